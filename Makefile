# Sedna. `make demo` shows the main job; `make test` runs the tests.
SHELL := /bin/bash
GO ?= go
ARCH ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/edgetwin/sedna/models/wire.Version=$(VERSION)
TOOLS := $(CURDIR)/.tools
FUZZTIME ?= 20s
SEEDS ?= 200

CONTROLLER_GEN := sigs.k8s.io/controller-tools/cmd/controller-gen@v0.21.0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

BIN := bin
PROGRAMS ?= . ./cloud/cmd/globalmanager ./edge/cmd/localcontroller ./mapper/cmd/mapper

# For another architecture cgo (SQLite) needs its cross compiler and C library,
# as Debian packages them: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross.
ifneq ($(ARCH),)
BIN := bin/$(ARCH)
CROSS := $(filter-out $(shell $(GO) env GOHOSTARCH),$(ARCH))
build: export GOARCH := $(ARCH)
build: export CGO_ENABLED := 1
ifneq ($(CROSS),)
build: export CC := $(patsubst amd64,x86_64,$(patsubst arm64,aarch64,$(ARCH)))-linux-gnu-gcc
endif
endif

# What builds images, and for which architectures; REGISTRY is what their names
# begin with, such as registry.example.com/team/.
BUILDER ?= $(shell for b in docker buildah podman; do $$b info >/dev/null 2>&1 && echo $$b && break; done)
ARCHES ?= amd64 arm64
IMAGES ?= globalmanager localcontroller mapper mapper-slim
REGISTRY ?=
IMAGE_TAG ?= $(VERSION)

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: build
build: ## bin/{sedna,globalmanager,localcontroller,mapper}; ARCH=arm64 cross-builds into bin/arm64; PROGRAMS=./mapper/cmd/mapper builds some
	$(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/ $(PROGRAMS)

.PHONY: images
images: ## container images by docker, buildah or podman, for each of ARCHES, tagged VERSION-ARCH; IMAGES, REGISTRY, IMAGE_TAG
	@[ -n "$(BUILDER)" ] || { echo "images: docker, buildah or podman is needed, and none works here"; exit 1; }
	@set -e; for arch in $(ARCHES); do for image in $(IMAGES); do \
	  echo "$(REGISTRY)sedna-$$image:$(IMAGE_TAG)-$$arch"; \
	  $(BUILDER) $(if $(filter buildah,$(BUILDER)),bud --layers,build) $(BUILDER_FLAGS) --platform linux/$$arch \
	    --build-arg BUILDER_PLATFORM=linux/$(shell $(GO) env GOHOSTARCH) --build-arg VERSION=$(VERSION) \
	    --target $$image -f manifests/images/Dockerfile -t $(REGISTRY)sedna-$$image:$(IMAGE_TAG)-$$arch .; done; done

.PHONY: demo
demo: build ## the main job, end to end on real data; DEMO_JSON=FILE and DEMO_ANSWERS=FILE keep the figures
	bin/sedna demo $(if $(DEMO_JSON),--json $(DEMO_JSON)) $(if $(DEMO_ANSWERS),--answers $(DEMO_ANSWERS))

.PHONY: example-camera example-sensor
example-camera: build ## a camera before a display, read at the edge; EXAMPLE_JSON=FILE keeps the figures
	$(GO) run ./examples/camera $(if $(EXAMPLE_JSON),--json $(EXAMPLE_JSON))
example-sensor: build ## a pump watched at the edge over Modbus and MQTT; EXAMPLE_JSON=FILE keeps the figures
	$(GO) run ./examples/sensor $(if $(EXAMPLE_JSON),--json $(EXAMPLE_JSON))

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
	$(GO) vet -tags "e2e faults" . ./cloud/workload ./edge ./examples/...
	$(GO) run $(STATICCHECK) ./...

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME each (default 20s)
	@for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$p || exit 1; done; done

.PHONY: bench
bench: build ## Go benchmarks: the parts, then the whole system as processes of its own
	$(GO) test -run '^$$' -bench . -benchtime 200ms $$(grep -rl --include='*_test.go' '^func Benchmark' cloud edge lib mapper models | xargs -n1 dirname | sort -u | sed 's,^,./,')
	SEDNA_BIN=$(CURDIR)/bin $(GO) test -run '^$$' -bench . -benchtime 120x ./examples/demo
	$(GO) test -run '^$$' -bench . -benchtime 2000x .

# Debian's mosquitto is installed where it is missing; kubectl and curl are
# used where they are there.
.PHONY: e2e
e2e: build ## the system against stock clients: mosquitto, kubectl, curl
	@PATH=$$PATH:/usr/sbin; command -v mosquitto >/dev/null && command -v mosquitto_pub >/dev/null && command -v mosquitto_sub >/dev/null || \
	  { apt-get update -q && apt-get install -y -q --no-install-recommends mosquitto mosquitto-clients; }
	SEDNA_BIN=$(CURDIR)/bin $(GO) test -count=1 -tags e2e -v ./examples/demo ./examples/camera
	SEDNA_BIN=$(CURDIR)/bin $(GO) test -count=1 -v -run TestDemoFiguresFollowFromAnswers .
	$(MAKE) e2e-kube
	$(MAKE) e2e-arm64
	$(MAKE) robustness

# Built once, which takes minutes; KUBE_APISERVER=FILE names one that is there.
$(TOOLS)/kube-apiserver: cloud/workload/kubeapiserver/go.mod
	cd cloud/workload/kubeapiserver && $(GO) build -o $@ k8s.io/kubernetes/cmd/kube-apiserver

KUBE_APISERVER ?= $(TOOLS)/kube-apiserver

.PHONY: e2e-kube
e2e-kube: $(KUBE_APISERVER) ## workers in pods, against a real kube-apiserver
	KUBE_APISERVER=$(KUBE_APISERVER) $(GO) test -count=1 -tags e2e -v ./cloud/workload

# Debian's cross compiler, arm64's C library, and qemu that the kernel hands
# arm64 programs to, are installed and set up where they are missing.
.PHONY: e2e-arm64
e2e-arm64: ## the edge's programs as built for arm64, emulated
	@[ "$$(dpkg --print-architecture)" = arm64 ] || { \
	  { command -v aarch64-linux-gnu-gcc && command -v qemu-aarch64-static && [ -e /lib/ld-linux-aarch64.so.1 ]; } >/dev/null || \
	  { dpkg --add-architecture arm64 && apt-get update -q && \
	    apt-get install -y -q --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static libc6:arm64; }; \
	  d=/proc/sys/fs/binfmt_misc; [ -e $$d/register ] || mount -t binfmt_misc binfmt_misc $$d; \
	  [ -e $$d/qemu-aarch64 ] || cat /usr/lib/binfmt.d/qemu-aarch64.conf >$$d/register; }
	$(MAKE) build ARCH=arm64 PROGRAMS="./edge/cmd/localcontroller ./mapper/cmd/mapper"
	SEDNA_ARM64=$(CURDIR)/bin/arm64 $(GO) test -count=1 -tags e2e -v -run '^TestARM64$$' ./edge

.PHONY: robustness
robustness: ## SEEDS runs (default 200; 101-200 is a range) of everything going wrong, judged by the history checker; then some with wrong clocks, and the proof that it notices each missing remedy
	SEEDS=$(SEEDS) $(GO) test -count=1 -timeout 24h -v -run '^TestRobustness$$' .
	SEEDS=1-20 LOSSES=first-report,first-empty,desired-offline,twin-offline,delete-offline,quick-rebind,drop-up=0.05,drop-down=0.1 \
	  $(GO) test -count=1 -timeout 24h -v -run '^TestRobustness$$' .
	$(GO) test -tags faults -count=1 -timeout 24h -v -run '^TestRobustnessWithWrongClocks$$' .
	$(GO) test -tags faults -count=1 -timeout 24h -v -run '^TestCheckerNoticesMissingRemedies$$' .

.PHONY: generate
generate: ## deep copies, CRDs, protobuf (needs protoc)
	GOBIN=$(TOOLS) $(GO) install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
	GOBIN=$(TOOLS) $(GO) install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
	PATH=$(TOOLS):$$PATH protoc -I models/dmi --go_out=models/dmi --go_opt=paths=source_relative \
	  --go-grpc_out=models/dmi --go-grpc_opt=paths=source_relative models/dmi/dmi.proto
	$(GO) run $(CONTROLLER_GEN) object paths=./models/... crd:allowDangerousTypes=true paths=./models/... output:crd:dir=manifests/crds
	$(GO) run ./manifests/crdtrim manifests/crds

.PHONY: verify-generated
verify-generated: generate ## fails when generated files are stale
	git diff --exit-code -- models manifests
