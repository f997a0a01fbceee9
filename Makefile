# The verbs. CI calls the same ones.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
SCRIPTS := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
BIN := $(VENV)/$(SCRIPTS)
# The extension's build has a target folder of its own, or each `cargo test` after it compiles SQLite again.
BUILD := --target-dir target/python
# The rules and backends are tested without Python, and so without the question which libpython to link.
CARGO_TEST := cargo test --quiet --locked --no-default-features
SDKS := 5 6 7
# Most tests wait for other processes. `make test PYTEST=` runs one at a time.
PYTEST ?= -n 2 --dist worksteal
# What the secrets of all tests look like: the tests' own, and those that the stand-in for Zoho gives out.
SECRETS := planted|1000\.(access|refresh|grant|secret)\.

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
RUST_SOURCES := Cargo.toml Cargo.lock $(shell find src -name '*.rs')
UV_COMPILE := uv pip compile --quiet --universal --upgrade --python-version 3.10 --custom-compile-command 'make lock'

.PHONY: help version setup build demo docs test test-rust test-python test-sdks test-sdk-8 test-browser lint lint-repository format wheel sdist crates licences audit floor bench bench-fast bench-lease reliability soak fuzz lock clean

version:
	@echo $(VERSION)

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/ready ## Make the virtual environment with the pinned tools

$(VENV)/ready: requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	touch $@

build: $(VENV)/built ## Build the extension and install it into the environment

$(VENV)/built: $(VENV)/ready pyproject.toml $(RUST_SOURCES)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --quiet --release --locked $(BUILD)
	touch $@

demo: build ## Log in, restart and refresh with the real SDK on a SQLite file, against a local stand-in for Zoho
	@$(BIN)/python examples/demo.py

$(VENV)-docs/ready: requirements/docs.txt
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/docs.txt
	touch $@

# A page that no other links to and a link that leads nowhere are warnings, and those are errors. The site is complete by
# itself: nothing in it is fetched from elsewhere.
docs: $(VENV)-docs/ready ## Build the documentation as a site: target/site/index.html
	rm -rf target/site
	$(VENV)-docs/bin/python -m sphinx --quiet --fail-on-warning --keep-going -c docs -d target/doctrees . target/site
	@! grep -rlE '<(script|link|img|iframe)[^>]* (src|href)="(https?:)?//' target/site --include='*.html' || { echo 'the site needs the network'; exit 1; }

test: test-rust test-python ## All tests, with the SDK 8

test-rust: ## Rules and backends, without Python: first without SQLite, then with it
	$(CARGO_TEST)
	$(CARGO_TEST) --features sqlite

test-python: build ## What Python adds, with the SDK 8
	$(BIN)/python -m pytest $(PYTEST)
	@! grep -nE '$(SECRETS)' target/pytest.xml || { echo 'a secret was put out'; exit 1; }

test-sdks: $(SDKS:%=test-sdk-%) test-sdk-8 ## The SDK's flows with the SDKs 5 to 8, each in its own environment

test-sdk-8: build
	$(BIN)/python -m pytest $(PYTEST) tests/sdk

$(SDKS:%=.venv-sdk-%/ready): .venv-sdk-%/ready: requirements/sdk-%.txt
	$(PYTHON) -m venv .venv-sdk-$*
	.venv-sdk-$*/$(SCRIPTS)/python -m pip install --quiet --disable-pip-version-check -r requirements/sdk-$*.txt
	touch $@

$(SDKS:%=test-sdk-%): test-sdk-%: .venv-sdk-%/ready target/wheel/ready
	.venv-sdk-$*/$(SCRIPTS)/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --force-reinstall target/wheel/*.whl
	.venv-sdk-$*/$(SCRIPTS)/python -m pytest $(PYTEST) tests/sdk

test-browser: build $(VENV)/ready-for-browser ## The example of a login with Zoho in a headless Chromium (which has to be there)
	$(BIN)/python -m pytest --junitxml=target/pytest-browser.xml tests/browser/two_windows.py

$(VENV)/ready-for-browser: $(VENV)/ready requirements/browser.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/browser.txt
	touch $@

# For this machine: of what `make build` has compiled, and so in a moment.
target/wheel/ready: $(VENV)/built $(shell find python -name '*.py*')
	rm -rf target/wheel
	$(BIN)/maturin build --quiet --release --locked $(BUILD) --out target/wheel
	touch $@

# For others. On Linux zig stands in for the C compiler and the linker: it brings the symbols of every glibc, so that the
# wheel needs none that is newer than Rust itself does (2.17), whatever this machine has. Elsewhere the system's own will do.
# TARGET: another than this machine (`TARGET=universal2-apple-darwin`). INTERPRETER: one for which the stable ABI's wheel is
# none, a free-threaded one (`INTERPRETER=python3.14t`).
ifeq ($(shell uname -s),Linux)
PORTABLE := --zig --compatibility pypi $(if $(findstring musl,$(TARGET)),musllinux_1_2,manylinux2014)
endif
wheel: $(VENV)/ready-for-packages ## Build the wheel for everybody into dist/, audit it, and smoke-test it in every CPython found
	rm -rf dist/*.whl
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/maturin build --quiet --release --locked --target-dir target/portable $(PORTABLE) \
	  $(if $(TARGET),--target $(TARGET)) $(if $(INTERPRETER),--interpreter $(INTERPRETER)) --out dist
	$(BIN)/twine check --strict dist/*.whl
	$(if $(PORTABLE),$(BIN)/auditwheel show dist/*.whl | tr '\n' ' ' | grep -oE 'platform tag: *"(manylinux_2_17|musllinux_1_2)_\w+"')
	$(if $(INTERPRETER),,$(BIN)/abi3audit --strict --summary dist/*.whl)
	$(if $(findstring musl,$(TARGET)),,$(BIN)/python tests/wheel_smoke.py dist $(INTERPRETER))

sdist: $(VENV)/ready-for-packages build ## Build the source distribution into dist/, and from it a wheel, offline
	rm -rf dist/*.tar.gz target/sdist
	$(BIN)/maturin sdist --out dist
	$(BIN)/twine check --strict dist/*.tar.gz
	mkdir -p target/sdist/source
	# -m: with times of today, or cargo takes what the checkout was built to for what these files would be built to.
	tar xzmf dist/zoho_token_store-$(VERSION).tar.gz -C target/sdist/source --strip-components 1
	cd target/sdist/source && PATH="$(CURDIR)/$(BIN):$$PATH" CARGO_NET_OFFLINE=true CARGO_TARGET_DIR="$(CURDIR)/target/python" \
	  python -m pip wheel --quiet --no-index --no-build-isolation --no-deps --no-cache-dir --wheel-dir .. .
	@ls -sh dist/*.tar.gz

# Forty times the size of the source distribution, so not within it. It is a CARGO_HOME to be unpacked anywhere.
CRATES := zoho_token_store-$(VERSION)-crates
crates: ## Pack the source of every crate into dist/, for who builds the source distribution without a registry
	rm -rf target/crates
	mkdir -p target/crates/$(CRATES) dist
	cargo vendor --quiet --locked target/crates/$(CRATES)/vendor
	printf '[source.crates-io]\nreplace-with = "vendored"\n\n[source.vendored]\ndirectory = "$(CRATES)/vendor"\n' \
	  > target/crates/$(CRATES)/config.toml
	tar cJf dist/$(CRATES).tar.xz -C target/crates $(CRATES)
	@ls -sh dist/$(CRATES).tar.xz

licences: ## Write THIRD-PARTY-LICENSES anew (needs cargo-about)
	cargo about generate --locked --output-file THIRD-PARTY-LICENSES about.hbs

ADVISORIES ?= advisories
audit: ## Licences, sources and known faults of all crates (needs cargo-deny; `make audit ADVISORIES=` leaves out what needs the network)
	cargo deny --locked --all-features check bans licenses sources $(ADVISORIES)

lint: build lint-repository ## Formatters, linters, types, the stub against the module, the walls between the layers
	cargo fmt --check
	cargo clippy --quiet --locked --all-targets --no-default-features -- -D warnings
	cargo clippy --quiet --locked --all-targets --no-default-features --features sqlite -- -D warnings
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python cargo clippy --quiet --locked --all-targets --no-default-features --features python -- -D warnings
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python cargo clippy --quiet --locked --all-targets --all-features -- -D warnings
	$(BIN)/python scripts/check_layers.py
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest zoho_token_store._native --ignore-missing-stub --mypy-config-file pyproject.toml

lint-repository: setup ## What others read: the package's metadata, workflows, forms
	$(BIN)/validate-pyproject pyproject.toml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(BIN)/zizmor --offline --quiet --pedantic .github

floor: target/floor ## Build the bare point SELECT in Rust, which `make bench` compares with

# It shares no source with the library.
target/floor: Cargo.toml Cargo.lock benchmarks/floor.rs
	cargo build --quiet --release --locked --no-default-features --features sqlite --bench floor $(BUILD) --message-format=json \
	  | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | xargs -I{} cp {} $@

bench: $(VENV)/ready-for-benchmarks build floor target/wheel/ready ## The stores beside their peers, with what is to be reached (25 minutes)
	$(BIN)/python benchmarks/bench.py --million --json target/bench.json --picture target/bench.svg $(OPTIONS)

bench-fast: build floor ## The same in little, to see that it works (20 seconds)
	$(BIN)/python benchmarks/bench.py --fast $(OPTIONS)

bench-lease: $(VENV)/ready-for-benchmarks build ## Token calls of many workers at one expiry, with the refresh lease and without
	cd benchmarks && ../$(BIN)/python refresh_lease.py $(OPTIONS)

reliability: build ## The same faults on this store, the SDK's FileStore and a plain sqlite3 store: a table
	cd benchmarks && ../$(BIN)/python reliability.py $(OPTIONS)

# MINUTES: how long. SEED: to repeat a run; otherwise each is a new one, and printed.
MINUTES ?= 20
soak: build ## Every fault in its long form, again and again for MINUTES (20)
	$(BIN)/python tests/faults/soak.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) -- $(PYTEST)

# With clang the fuzzer sees which ways SQLite's own code takes, too.
fuzz: build ## Any file at all for MINUTES (20; needs a nightly Rust and cargo-fuzz), then any steps with any tokens
	mkdir -p target/fuzz/corpus
	cd tests/fuzz && $(if $(shell command -v clang),CC=clang CFLAGS="-fsanitize=fuzzer-no-link,address -g -O1") \
	  cargo +nightly fuzz run --fuzz-dir . --target-dir ../../target/fuzz open_file ../../target/fuzz/corpus ../data/fuzz -- \
	  -dict=dictionary -max_len=24000 -timeout=25 -max_total_time=$$(($(MINUTES) * 60)) -artifact_prefix=../../target/fuzz/
	ZOHO_TOKEN_STORE_EXAMPLES=2000 $(BIN)/python -m pytest $(PYTEST) tests/model

$(VENV)/ready-for-benchmarks: $(VENV)/ready requirements/bench.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/bench.txt
	touch $@

$(VENV)/ready-for-packages: $(VENV)/ready requirements/package.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/package.txt
	touch $@

format: setup ## Let the formatters write
	cargo fmt
	$(BIN)/ruff check --fix --quiet || true
	$(BIN)/ruff format

lock: ## Pin the Python tools anew (needs uv)
	for name in dev bench browser docs package $(SDKS:%=sdk-%); do $(UV_COMPILE) requirements/$$name.in -o requirements/$$name.txt; done

clean: ## Remove what the other verbs made
	rm -rf $(VENV) $(VENV)-docs .venv-sdk-* target dist
