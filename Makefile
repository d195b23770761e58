# Sedna. `make demo` shows the main job; `make test` runs the tests.
SHELL := /bin/bash
GO ?= go
ARCH ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/edgetwin/sedna/models/wire.Version=$(VERSION)
TOOLS := $(CURDIR)/.tools
FUZZTIME ?= 20s
SEEDS ?= 100

CONTROLLER_GEN := sigs.k8s.io/controller-tools/cmd/controller-gen@v0.21.0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# For another architecture cgo (SQLite) needs its cross compiler, as Debian
# packages it: gcc-aarch64-linux-gnu.
ifneq ($(ARCH),)
export GOARCH := $(ARCH)
export CGO_ENABLED := 1
ifeq ($(ARCH),arm64)
export CC := aarch64-linux-gnu-gcc
endif
endif

BINARIES := sedna globalmanager localcontroller mapper

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: build
build: ## bin/{sedna,globalmanager,localcontroller,mapper}; ARCH=arm64 cross-builds
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/ . ./cloud/cmd/globalmanager ./edge/cmd/localcontroller ./mapper/cmd/mapper

.PHONY: demo
demo: build ## the main job, end to end on real data; DEMO_JSON=FILE and DEMO_ANSWERS=FILE keep the figures
	bin/sedna demo $(if $(DEMO_JSON),--json $(DEMO_JSON)) $(if $(DEMO_ANSWERS),--answers $(DEMO_ANSWERS))

.PHONY: test
test: ## all tests that need Go, gcc and make
	$(GO) test ./...

.PHONY: race
race: ## the race detector, on all packages that do not link the API server and one that does
	@packages=; for p in $$($(GO) list ./...); do \
	  $(GO) list -deps -test $$p | grep -q '^k8s.io/apiextensions-apiserver/pkg/apiserver$$' || packages="$$packages $$p"; done; \
	$(GO) test -race $$packages ./cloud/twin

.PHONY: lint
lint: ## gofmt, go vet, staticcheck
	@bad=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$bad" ]; then echo "gofmt would change: $$bad"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags "e2e faults" . ./examples/...
	$(GO) run $(STATICCHECK) ./...

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME each (default 20s)
	@for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p || exit 1; done; done

.PHONY: bench
bench: build ## Go benchmarks: the parts, then the whole system as processes of its own
	$(GO) test -run '^$$' -bench . -benchtime 200ms $$(grep -rl --include='*_test.go' '^func Benchmark' cloud edge lib mapper models | xargs -n1 dirname | sort -u | sed 's,^,./,')
	SEDNA_BIN=$(CURDIR)/bin $(GO) test -run '^$$' -bench . -benchtime 120x ./examples/demo

# Debian's mosquitto is installed where it is missing; kubectl and curl are
# used where they are there.
.PHONY: e2e
e2e: build ## the system against stock clients: mosquitto, kubectl, curl
	@PATH=$$PATH:/usr/sbin; command -v mosquitto >/dev/null && command -v mosquitto_pub >/dev/null && command -v mosquitto_sub >/dev/null || \
	  { apt-get update -q && apt-get install -y -q --no-install-recommends mosquitto mosquitto-clients; }
	SEDNA_BIN=$(CURDIR)/bin $(GO) test -count=1 -tags e2e -v ./examples/demo
	SEDNA_BIN=$(CURDIR)/bin $(GO) test -count=1 -v -run TestDemoFiguresFollowFromAnswers .
	$(MAKE) robustness

.PHONY: robustness
robustness: ## SEEDS runs (default 100) of links dropping and processes killed, judged by the history checker; then the proof that it notices each missing remedy
	SEEDS=$(SEEDS) $(GO) test -count=1 -timeout 24h -v -run '^TestRobustness$$' .
	$(GO) test -tags faults -count=1 -timeout 24h -v -run '^TestCheckerNoticesMissingRemedies$$' .

.PHONY: generate
generate: ## deep copies, CRDs, protobuf (needs protoc)
	GOBIN=$(TOOLS) $(GO) install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
	GOBIN=$(TOOLS) $(GO) install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
	PATH=$(TOOLS):$$PATH protoc -I models/dmi --go_out=models/dmi --go_opt=paths=source_relative \
	  --go-grpc_out=models/dmi --go-grpc_opt=paths=source_relative models/dmi/dmi.proto
	$(GO) run $(CONTROLLER_GEN) object paths=./models/... crd:generateEmbeddedObjectMeta=true paths=./models/... output:crd:dir=manifests/crds
	$(GO) run ./manifests/crdtrim manifests/crds

.PHONY: verify-generated
verify-generated: generate ## fails when generated files are stale
	git diff --exit-code -- models manifests
