# make run     builds and starts a server on 127.0.0.1:2379 in ./default.etcd
# make cluster the same with three members, on 2379, 22379 and 32379
# make test    runs every test; needs Go, git and make, nothing else
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

# io_uring comes through a module that links only with -checklinkname=0; a
# plain "go build" works too and uses pwrite.
TAGS    ?= giouring
LDFLAGS ?= -checklinkname=0 -X main.version=$(VERSION) -X main.commit=$(COMMIT)
BUILD    = $(GO) build -tags '$(TAGS)' -ldflags '$(LDFLAGS)'
# The linter is pinned in a module file of its own.
LINT     = $(GO) tool -modfile=$(CURDIR)/.ci/lint.mod

# Modules beside the root one: tests that drive the built binary, and tools.
MODULES  = $(patsubst %/go.mod,%,$(wildcard test/go.mod test/*/go.mod tools/*/go.mod))

.PHONY: build run cluster etcdctl race test test-root test-modules conformance check generate bench clean

build:
	@mkdir -p bin
	$(BUILD) -o bin/quire ./cmd/quire

run: build
	./bin/quire $(ARGS)

# Three members on this machine, until ^C.
cluster: build
	@tools/cluster.sh $(ARGS)

# etcd's own command line client, pinned in test/go.mod.
etcdctl:
	@mkdir -p bin
	cd test && $(GO) build -o $(CURDIR)/bin/etcdctl go.etcd.io/etcd/etcdctl/v3

test: check test-root test-modules

# The packages with goroutines under the race detector; it needs a C compiler.
race:
	@$(GO) env CC | xargs which >/dev/null 2>&1 || { echo "skipped: the race detector needs a C compiler"; exit 0; }; \
	CGO_ENABLED=1 $(GO) test -race -short ./disk ./socket ./wal ./pagestore ./index ./raft ./raft/peer ./engine ./watchfanout ./rpc/... ./cmd/quire ./cmd/quire/certs ./cmd/quire/corruption ./cmd/quire/discovery

# Formatting, vet with and without io_uring, staticcheck (not: uses of deprecated
# names, which generated code has, and x<<3|0, which is how a protobuf tag reads).
check:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$')); \
	if [ -n "$$unformatted" ]; then echo "not formatted:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags '$(TAGS)' ./...
	$(LINT) staticcheck -checks inherit,-SA1019,-SA4016 $$($(GO) list ./... | grep -v '^quire/api')

test-root:
	$(GO) test -timeout 20m -tags '$(TAGS)' -ldflags=-checklinkname=0 ./...

test-modules: build
	@set -e; for m in $(MODULES); do \
		echo "== $$m"; \
		(cd $$m && $(GO) vet ./... && QUIRE_BIN=$(CURDIR)/bin/quire $(GO) test -timeout 20m ./...); \
	done

# etcd's own end-to-end tests against bin/quire; ARGS='-run ^TestKV' for some of them.
conformance: build
	cd test/conformance && $(GO) run . -server $(CURDIR)/bin/quire $(ARGS)

# Code from api/*.proto; the result is committed.
generate:
	cd api && $(GO) tool -modfile=gen.mod buf generate

# Benchmarks beside the code, with allocations.
bench:
	$(GO) test -tags '$(TAGS)' -ldflags=-checklinkname=0 -run '^$$' -bench . -benchmem ./...

clean:
	rm -rf bin
