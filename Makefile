# The workshop. `make` alone says what there is; what it needs is Go, and bash for .ci/run.
# A line that starts with two # is the help of the target below it.

.DEFAULT_GOAL := help
SHELL := /bin/sh
TOOL := go tool -modfile=tools/go.mod
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 10m
COUNT ?= 6
HOURS ?= 500
CHAOS ?= 10m
MUTANTS ?= all
JOBS ?= 1000000
WAITERS ?= 9500
CLIENTS ?= 1,16,64

.PHONY: help build run test virtual chaos million waiting mutants bench bench-compare lint fmt generate soak cover fixture upgrade clean

## say what can be made
help:
	@awk '/^## /{text=substr($$0,4);next} /^[a-z-]+:/&&text{sub(":.*","");printf "  %-13s %s\n",$$0,text} {text=""}' $(MAKEFILE_LIST)

## bin/fleet-node, one static file
build:
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/fleet-node ./cmd/fleet-node

## a cluster of three nodes on this machine; ONCE=1 ends it when its job has shipped
run: build
	bin/fleet-node dev $(if $(ONCE),--once)

## vet and all tests; those that share state between goroutines under the race detector, where there is a C compiler
test:
	go vet ./...
	go test -timeout 8m ./...
	@if [ "$$(go env CGO_ENABLED)" = 1 ] && command -v "$$(go env CC)" >/dev/null; \
	then echo "go test -race"; go test -race -short -timeout 8m ./cluster/... ./fsm/... ./rpc/... ./worker/...; \
	else echo "no C compiler: the race detector is left out"; fi

## clusters in virtual time under faults for HOURS=500 hours; what they came to is in bin/virtual.txt
virtual:
	@mkdir -p bin && rm -f bin/virtual.txt
	FLEET_HOURS=$(HOURS) FLEET_REPORT=$(CURDIR)/bin/virtual.txt go test -run 'UnderFaults$$|Founded$$' -timeout $(HOURS)m ./internal/check
	@cat bin/virtual.txt

## real nodes that are killed, cut off and given bad disks, for about CHAOS; FLEET_SEED repeats the draws; bin/chaos.txt is the report
chaos:
	@mkdir -p bin && rm -f bin/chaos.txt
	FLEET_CHAOS=$(CHAOS) FLEET_REPORT=$(CURDIR)/bin/chaos.txt go test -count 1 -parallel 2 -timeout 4h ./internal/chaos
	@cat bin/chaos.txt

## what JOBS=1000000 queued jobs take on three real nodes of 5 GiB each; bin/million.txt is the report
million:
	@mkdir -p bin && rm -f bin/million.txt
	FLEET_JOBS=$(JOBS) FLEET_REPORT=$(CURDIR)/bin/million.txt go test -count 1 -run 'TestMillion$$' -timeout 1h ./internal/chaos
	@cat bin/million.txt

## what WAITERS=9500 waiting claims and as many live readers take on three real nodes; bin/waiting.txt is the report
waiting:
	@mkdir -p bin && rm -f bin/waiting.txt
	FLEET_WAITERS=$(WAITERS) FLEET_REPORT=$(CURDIR)/bin/waiting.txt go test -count 1 -run 'TestWaiting$$' -timeout 1h ./internal/chaos
	@cat bin/waiting.txt

## planted bugs, one at a time: each must be found by the test that it names; MUTANTS=lease plants those named so; bin/mutants.txt is the report
mutants:
	@mkdir -p bin && rm -f bin/mutants.txt
	FLEET_MUTANTS='$(MUTANTS)' FLEET_REPORT=$(CURDIR)/bin/mutants.txt go test -count 1 -run 'TestMutants$$' -timeout 4h ./internal/mutants
	@cat bin/mutants.txt

## benchmarks in the form that benchstat reads, COUNT=6 times each, into bin/bench.txt, or bin/before.txt with NAME=before; LARGE=1: a million jobs too
bench:
	@mkdir -p bin
	go test -run '^$$' -bench . -benchmem -count $(COUNT) -timeout 4h $(if $(LARGE),,-short) ./... | tee bin/$(or $(NAME),bench).txt
	@! grep '^FAIL' bin/$(or $(NAME),bench).txt

## fleet beside etcd, NATS JetStream and, where it is installed, Postgres, in about 3 minutes; CLIENTS=1,16,64,256 says how many call at once
bench-compare: build
	go -C bench build -o ../bin/compare .
	bin/compare -dir bin -clients $(CLIENTS)

## golangci-lint, at the version of tools/go.mod
lint:
	$(TOOL) golangci-lint run ./...

## format as the linter wants it
fmt:
	$(TOOL) golangci-lint fmt ./...

## the generated code; the tree does not change if it is current
generate:
	go generate ./...

## the same tests over and over, 10,000 hours of virtual time, all tests on each planted bug, and each fuzz target for FUZZTIME
soak:
	$(MAKE) virtual HOURS=10000
	go test -count 20 -timeout 2h ./...
	FLEET_MUTANTS_SUITE=all FLEET_REPORT=$(CURDIR)/bin/suite.txt go test -count 1 -run 'TestSuite$$' -timeout 24h ./internal/mutants
	@for package in $$(go list ./...); do for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz'); do \
	echo "$$package $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package || exit 1; done; done

## what the tests reach: bin/cover.html
cover:
	@mkdir -p bin
	go test -coverpkg ./... -coverprofile bin/cover.out ./...
	go tool cover -html bin/cover.out -o bin/cover.html
	go tool cover -func bin/cover.out | tail -1

## data directories of a release, for the tests of those that follow: BINARY=/path/to/it NAME=level2
fixture:
	@test -n "$(BINARY)" -a -n "$(NAME)" || { echo 'make fixture BINARY=/path/to/the/release NAME=level2' >&2; exit 2; }
	FLEET_FIXTURE_BINARY=$(abspath $(BINARY)) FLEET_FIXTURE_NAME=$(NAME) go test -count 1 -run TestMakeFixture ./cmd/fleet-node

## a rolling upgrade of real nodes from the release before: BINARY=/path/to/it
upgrade:
	@test -n "$(BINARY)" || { echo 'make upgrade BINARY=/path/to/the/release/before' >&2; exit 2; }
	FLEET_OLD_BINARY=$(abspath $(BINARY)) go test -count 1 -v -run 'TestUpgrade|TestOldRelease' ./cmd/fleet-node

## take away what was built
clean:
	rm -rf bin
