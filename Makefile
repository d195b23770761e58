# Sedna. `make demo` shows the main job; `make test` runs the tests.
SHELL := /bin/bash
GO ?= go
ARCH ?= $(shell $(GO) env GOARCH)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/edgetwin/sedna/models/wire.Version=$(VERSION)
TOOLS := $(CURDIR)/.tools

CONTROLLER_GEN := sigs.k8s.io/controller-tools/cmd/controller-gen@v0.21.0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: generate
generate: ## deep copies, CRDs, protobuf (needs protoc)
	GOBIN=$(TOOLS) $(GO) install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
	GOBIN=$(TOOLS) $(GO) install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
	PATH=$(TOOLS):$$PATH protoc -I models/dmi --go_out=models/dmi --go_opt=paths=source_relative \
	  --go-grpc_out=models/dmi --go-grpc_opt=paths=source_relative models/dmi/dmi.proto
	$(GO) run $(CONTROLLER_GEN) object paths=./models/... crd:generateEmbeddedObjectMeta=true paths=./models/... output:crd:dir=manifests/crds
	$(GO) run ./manifests/crdtrim manifests/crds
