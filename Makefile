# One name for every habit. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
# Tools that `make check` had to install itself stand here; the right version on PATH is used as it is.
TOOLS_DIR := $(TARGET_DIR)/tools

.PHONY: help demo test contract check setup tools sim mutants kill bench render image e2e fuzz

help: ## this list
	@echo "usage: make TARGET"
	@echo
	@awk -F ':[^#]*## ' '/^[a-z0-9-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: setup ## a cluster of pairs on this machine; DEMO_ARGS="--help" says what it takes
	@cargo build --release -p udht-manager -p udht-sync -p udht-tests --bins
	@exec "$(TARGET_DIR)/release/demo" $(DEMO_ARGS)

# The tests run the programs as a user would, so these are built with them, by one command: cargo chooses features for
# all that it builds at once, and what was chosen twice would be compiled twice.
test: setup ## build the programs and run every test; TEST_ARGS="NAME" runs those whose name holds NAME
	@cargo build --workspace --bins --tests
	@cargo test --workspace --no-fail-fast $(TEST_ARGS)

contract: setup ## a running manager against its own OpenAPI document, by schemathesis, with each store
	@cargo build --workspace --bins --tests
	@.ci/contract

# Built as for `make test`, so that nothing is compiled twice.
e2e: setup ## the release on a kind cluster, from end to end, with images made anew; E2E_ARGS="--only scale" is one step
	@cargo build --workspace --bins --tests
	@.ci/e2e $(E2E_ARGS)

check: setup tools ## formatting, lints, documentation, layering, licences, spelling: all that is not a test
	@PATH="$(TOOLS_DIR)/bin:$$PATH" .ci/check

setup: ## install what the build needs from the system
	@.ci/setup

tools: setup ## install the tools of `make check`
	@.ci/tools "$(TOOLS_DIR)"

sim: setup ## histories of simulated clusters with faults: HISTORIES=.. JOBS=.. FAMILY=..; SEED=.. tells one
	@cargo build --quiet --release -p udht-simulator
	@"$(TARGET_DIR)/release/udht-simulator" $(if $(SEED),--seed $(SEED)) $(if $(HISTORIES),--histories $(HISTORIES)) \
		$(if $(JOBS),--jobs $(JOBS)) $(if $(FIRST),--first $(FIRST)) $(if $(FAMILY),--family $(FAMILY))

# Built apart from all else: nothing that is shipped has a mistake in it on purpose.
mutants: setup ## mistakes on purpose in what the simulator drives: it finds each, and nothing where there is none
	@CARGO_TARGET_DIR="$(TARGET_DIR)/mutants" RUSTFLAGS="--cfg udht_mutants" cargo build --quiet --release -p udht-simulator
	@"$(TARGET_DIR)/mutants/release/udht-simulator" --mutants $(if $(JOBS),--jobs $(JOBS))

kill: setup ## rounds of kill -9 under load, with each store: ROUNDS=.. STORE=..; SEED=.. makes the same choices again
	@cargo build --quiet --release -p udht-manager -p udht-sync -p udht-tests --bins
	@"$(TARGET_DIR)/release/kill" $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(STORE),--store $(STORE)) \
		$(if $(SEED),--seed $(SEED))

# Where .ci/image leaves what it puts into the images.
IMAGE_PROGRAMS = $(TARGET_DIR)/$(shell rustc -vV | sed -n 's/^host: //p')/image

# A count is the same in every build, so the quick ones are taken with what `make test` built. All else is measured of the
# programs that are in the images.
bench: setup ## every number beside its goal and something real: QUICK=1 the counts alone, ONLY=GROUP; BENCH_ARGS="--list"
	@$(if $(QUICK),,.ci/setup wrk)
	@cargo build $(if $(QUICK),--workspace --bins --tests,--release -p udht-bench --bins)
	@$(if $(QUICK),,IMAGE_LOAD=no .ci/image)
	@mkdir -p "$(TARGET_DIR)/bench"
	@"$(TARGET_DIR)/$(if $(QUICK),debug,release)/bench" --json "$(TARGET_DIR)/bench/results.json" $(if $(QUICK),--quick,--programs "$(IMAGE_PROGRAMS)") \
		$(if $(ONLY),--only $(ONLY)) $(BENCH_ARGS)

render: ## k8s/ written anew from the chart
	@.ci/render
	@tests/observe.py --render

image: setup ## the two container images, as archives in target/images and in docker; IMAGE_TAG=.. names them
	@.ci/image

fuzz: ## fuzzing of everything that reads foreign bytes: FUZZ_TARGET=.. FUZZ_SECONDS=60 each; needs a nightly compiler
	@.ci/fuzz
