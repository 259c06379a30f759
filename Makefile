# Every target does its own set-up: prerequisites (deploy/prerequisites.sh), and RocksDB compiled once into a cache
# outside the clone (deploy/rocksdb.sh). A target directory of your own is respected: CARGO_TARGET_DIR=... make test

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Where rustup puts cargo, for shells that do not know it yet.
export PATH := $(PATH):$(HOME)/.cargo/bin
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
SEEDS ?= 200
MODE ?= async
ALTERS ?= by-seed

# Put before a cargo command. ROCKSDB_LIB_DIR from outside wins.
SETUP = deploy/prerequisites.sh; \
	ROCKSDB_LIB_DIR=$${ROCKSDB_LIB_DIR:-$$(deploy/rocksdb.sh)}; \
	export ROCKSDB_LIB_DIR ROCKSDB_STATIC=1;

.PHONY: help setup build binaries test demo tour swarm clippy fmt fmt-check

help: ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## Install what is missing and compile RocksDB once
	@$(SETUP) echo "RocksDB: $$ROCKSDB_LIB_DIR"

build: ## The whole workspace, for development
	@$(SETUP) cargo build --workspace --all-targets

binaries: ## kv and kv-node, optimised
	@$(SETUP) cargo build --release --bin kv --bin kv-node

test: ## All tests of the workspace
	@$(SETUP) cargo test --workspace

demo: binaries ## Three zones on this machine, and a shell on them
	@$(TARGET)/release/kv demo

tour: binaries ## The tour on real input: partition, conflicts, resolution, a killed node
	@PATH="$(TARGET)/release:$$PATH" deploy/tour.sh

swarm: ## The simulator over many seeds (SEEDS=200 MODE=async ALTERS=by-seed)
	@$(SETUP) cargo run --profile sim -p meridian-chaos --bin kv-chaos -- swarm --seeds $(SEEDS) --mode $(MODE) --alters $(ALTERS)

clippy: ## Lints; warnings are errors
	@$(SETUP) cargo clippy --workspace --all-targets -- -D warnings

fmt: ## Format the sources
	@cargo fmt --all

fmt-check: ## Fail when a source is not formatted
	@cargo fmt --all --check
