# `make help` lists what there is to run. On a fresh Debian 12 with rustup's cargo, each target installs the packages
# that it needs and that are missing. It does so as root; any other user is told the packages' names.
#
# PG_CONFIG   the server to build for and to run, PostgreSQL 15 to 18   (default: the pg_config in PATH)
# SERVE       of `make demo`: 1 keeps the page up until Enter is typed, 0 does not   (default: 1 in a terminal)
# KEEP=1      leaves the temporary servers' folders for a look
# PART, ROUNDS   of `make bench`: sync (RECORDS, PAGES), settle (FACTS), read (METRICS), seal (CONNECTORS), database (ROWS),
#             upload (MEGABYTES), schedule (DUE, AT_ONCE), gateway (SECONDS), tenants (RECORDS, STORED),
#             retention (KEPT)

SHELL := /bin/bash
export PATH := $(CURDIR)/target/tools/bin:$(PATH):$(HOME)/.cargo/bin
export PG_CONFIG ?= pg_config

# Expanded when a recipe needs them: before `prepare` there may be no pg_config.
export PGRX_PG_CONFIG_PATH = $(shell command -v $(PG_CONFIG))
MAJOR = $(shell $(PG_CONFIG) --version 2>/dev/null | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p')
FEATURES = --no-default-features --features pg$(MAJOR)
INSTALL = cargo pgrx install --release --pg-config $(PGRX_PG_CONFIG_PATH) $(FEATURES)

# One profile and one selection of packages for everything that is tested: nothing is built twice.
TESTED = -p connector_service_core -p connector_service_test
E2E = $(shell sed -n '/^\[\[test/,/^name/s/^name = "\(.*\)"/--test \1/p' pg_test/Cargo.toml | grep -v regress)

.PHONY: help prepare prepare-test install install-test demo test test-core test-regress test-e2e upgrade bench pgspot lint

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 14

prepare: ## install what this machine lacks for building: packages, cargo-pgrx
	@pg_test/prepare.sh build

prepare-test: ## install what this machine lacks for the tests: pg_cron, MariaDB, openssl, and all of the above
	@pg_test/prepare.sh $(or $(PREPARED),test)

install: prepare ## build the extension and install it into the server of PG_CONFIG
	$(INSTALL)

# The steps after these are told by the program itself.
demo: ## from an empty server to the first numbers, step by step, in a server of its own; ends with the page
	@echo "Step 1 of 10: install what this machine lacks (a minute or two the first time, a second later on)"
	@pg_test/prepare.sh demo
	@echo "Step 2 of 10: build the extension and install it (5 to 10 minutes the first time, seconds later on)"
	@$(INSTALL)
	@echo "Step 3 of 10: build the program that shows the rest (about 2 minutes the first time, a second later on)"
	@cargo build -p connector_service_test --bin demo
	@cargo run --quiet -p connector_service_test --bin demo

# Everything that the tests need is installed at the start, and not after half of them.
test test-e2e: PREPARED = e2e

test: install-test ## everything below; ends with a line that counts
	@pg_test/run_tests.sh $(TESTED)

test-core: prepare ## what needs no server
	@pg_test/run_tests.sh $(TESTED) --lib

test-regress: install-test ## what a psql user types and sees; ACCEPT=1 takes what came as expected
	@pg_test/run_tests.sh $(TESTED) --test regress

test-e2e: install-test ## real servers, the real worker, scripted vendors
	@pg_test/run_tests.sh $(TESTED) $(E2E)

# The faults are places at which a test can kill the worker; `make install` builds without them.
install-test: prepare-test
	$(INSTALL) --features fault_points

upgrade: install-test ## from every released version to this one, compared with a fresh install
	@pg_test/run_tests.sh $(TESTED) --test upgrade

bench: install ## writing beside COPY, a change beside REFRESH, a read beside the plain query; PART and sizes as above
	@pg_test/prepare.sh bench
	cargo run --release -p connector_service_test --bin bench -- $(PART)

pgspot: install ## the install script, read as an attacker would; fetches pgspot from PyPI
	@pg_test/pgspot/pgspot.sh "$$($(PG_CONFIG) --sharedir)/extension/connector_service--$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1).sql"

lint: ## formatting, spelling, plain words, and clippy
	@pg_test/prepare.sh lint
	cargo fmt --all --check
	target/lint/bin/python pg_test/lint/lint.py
	cargo clippy --workspace --all-targets --no-default-features --features pg$(MAJOR),fault_points -- -D warnings
