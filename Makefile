# What fits in 35 minutes on two cores is `make test`; the rest is `make test-full`.
# Every rung is a target of its own. Tests of whole clusters need root (network and mount namespaces).

SHELL   := /bin/bash
CARGO   ?= cargo
PREFIX  ?= /usr/local
DESTDIR ?=
SEEDS   ?= 500
ROUNDS  ?= 2
FUZZ_SECONDS ?= 20
# Options for cargo: --locked keeps a build to the committed Cargo.lock.
CARGO_FLAGS ?= --locked
# Seconds of each random test of POSIX behaviour.
LADRILLO_POSIX_SECONDS ?= 30
export CARGO CARGO_FLAGS SEEDS ROUNDS FUZZ_SECONDS LADRILLO_POSIX_SECONDS

# One file per promise; those with a stock GlusterFS on one side are a rung of their own.
STOCK_TESTS   := $(filter stock_%,$(basename $(notdir $(wildcard tests/tests/*.rs))))
POSIX_TESTS   := $(filter posix_%,$(basename $(notdir $(wildcard tests/tests/*.rs))))
CLUSTER_TESTS := $(filter-out stock_% posix_%,$(basename $(notdir $(wildcard tests/tests/*.rs))))

RUNGS := lint test-unit test-sim test-cluster test-stock test-posix fuzz-smoke

.PHONY: all build release setup demo test test-full lint test-unit test-sim test-cluster test-stock test-posix test-ring test-rdma fuzz-smoke bench bench-parts \
        install uninstall clean help

all: build

help:
	@echo 'make build         the programs, in target/debug'
	@echo 'make demo          three nodes on this machine: create, mount, kill a brick, heal (root)'
	@echo 'make test          $(RUNGS)'
	@echo 'make test-ring     tests of clusters and POSIX behaviour with mounts over FUSE over io_uring (root)'
	@echo 'make test-rdma     the transports over RDMA in a virtual machine with software RDMA (no hardware needed; root)'
	@echo 'make test-full     the same with ROUNDS=20, SEEDS=5000 and 10 minutes of each random test'
	@echo 'make bench         ours, GlusterFS and the local disk side by side: docs/benchmarks (BENCH=--quick for a first impression)'
	@echo 'make bench-parts   the criterion benches of the parts'
	@echo 'make install       PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)'

setup:
	tools/setup

build:
	$(CARGO) build $(CARGO_FLAGS) --workspace --bins --examples

release:
	$(CARGO) build $(CARGO_FLAGS) --workspace --bins --release

demo: setup build
	tools/demo

test: setup
	tools/run-rungs $(RUNGS)

test-full: setup
	ROUNDS=20 SEEDS=5000 FUZZ_SECONDS=120 LADRILLO_POSIX_SECONDS=600 tools/run-rungs $(RUNGS) test-ring test-rdma

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings

test-unit:
	tools/cargo-test --workspace --exclude ladrillo-tests
	$(CARGO) test $(CARGO_FLAGS) --doc -p ladrillo-fuse-client

test-sim: build
	tools/test-sim

test-cluster: build
	tools/need-root
	tools/cargo-test -p ladrillo-tests --lib $(CLUSTER_TESTS:%=--test %)

test-stock: build
	tools/need-root
	tools/cargo-test -p ladrillo-tests $(STOCK_TESTS:%=--test %)

test-posix: build
	tools/need-root
	tools/posix-tools
	tools/cargo-test -p ladrillo-tests $(POSIX_TESTS:%=--test %)

# Not in `make test`: the same tests with the other front end.
test-ring: build
	tools/need-root
	tools/test-ring

# Not in `make test`: an emulated machine takes its time. KERNEL=6.12 for another kernel; RDMA="sdp rdma smc" for some transports.
test-rdma: build
	tools/test-rdma $(RDMA)

fuzz-smoke:
	tools/fuzz-smoke

# BENCH: options of ladrillo-bench; PROGRAMS: a directory with glusterd and the others, instead of the release build's.
bench: setup
	$(CARGO) build $(CARGO_FLAGS) --release --bins $(if $(PROGRAMS),-p ladrillo-benches,--workspace)
	PROGRAMS="$(PROGRAMS)" tools/bench $(BENCH)

bench-parts:
	$(CARGO) bench $(CARGO_FLAGS) -p ladrillo-benches --benches

install: release
	tools/install-files "$(DESTDIR)$(PREFIX)" "$(DESTDIR)"

uninstall:
	tools/install-files --remove "$(DESTDIR)$(PREFIX)" "$(DESTDIR)"

clean:
	$(CARGO) clean
