# What developers and CI run. `make help` lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
SCRIPTS := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
BIN := $(VENV)/$(SCRIPTS)
# The tests of the rules and backends need no Python, so cargo does not have to find a libpython to link.
CARGO_TEST := cargo test --quiet --locked --no-default-features
SDKS := 5 6 7
# Most tests wait for other processes. `make test PYTEST=` runs one test at a time.
PYTEST ?= -n 2 --dist worksteal
PIP := -m pip install --quiet --disable-pip-version-check
# Which PostgreSQL server the tests use: `found` (installed, else of the wheel), `wheel` or `system`.
POSTGRES ?= found
WITH_POSTGRES := PYTHON=$(CURDIR)/$(BIN)/python $(BIN)/python tests/postgres_server.py --server $(POSTGRES) --
# The secrets of the tests, and those that the stand-in for Zoho issues, match this pattern.
SECRETS := planted|1000\.(access|refresh|grant|secret)\.

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
RUST_SOURCES := Cargo.toml Cargo.lock .cargo/config.toml $(shell find src -name '*.rs' -o -name '*.sql')
UV_COMPILE := uv pip compile --quiet --universal --upgrade --python-version 3.10 --custom-compile-command 'make lock'

.PHONY: help version setup build demo demo-postgres docs test test-rust test-rust-postgres test-python test-postgres test-contract test-pooler test-system test-sdks test-sdk-8 test-browser test-servers test-cells test-model coverage mutants lint lint-repository format wheel sdist crates licences audit floor bench bench-fast bench-keys bench-lease postgres-floor bench-postgres bench-postgres-fast bench-places reliability soak fuzz lock clean

version:
	@echo $(VERSION)

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/ready ## Make the virtual environment with all pinned tools

# The first environment has only what the build and the demo need. That is a tenth of the tools.
$(VENV)/ready-for-build: requirements/build.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed: make PYTHON=python3.12 …")'
	@command -v cargo >/dev/null || { echo 'Rust 1.95 or later is needed: https://rustup.rs'; exit 1; }
	$(if $(filter Windows_NT,$(OS)),,@command -v $${CC:-cc} >/dev/null || { echo 'A C compiler is needed: apt-get install gcc (Debian, Ubuntu), xcode-select --install (macOS)'; exit 1; })
	@echo 'Making the virtual environment $(VENV) (some seconds)…'
	@$(PYTHON) -m venv $(VENV)
	@echo 'Installing maturin and the Zoho CRM SDK 8 into it (some seconds)…'
	@$(BIN)/python $(PIP) -r requirements/build.txt
	@touch $@

$(VENV)/ready: $(VENV)/ready-for-build requirements/dev.txt
	@echo 'Installing the tools for tests and linters (half a minute)…'
	@$(BIN)/python $(PIP) -r requirements/dev.txt
	@touch $@

# Maturin has no quiet mode. Its output is shown only if it fails.
silently = VIRTUAL_ENV=$(CURDIR)/$(VENV) $(1) > $(VENV)/build.log 2>&1 || { cat $(VENV)/build.log; exit 1; }

build: $(VENV)/built ## Build the extension for tests and the demo, and install it into the environment

# Only one of the two builds is installed. Each removes the stamp of the other.
$(VENV)/built: $(VENV)/ready-for-build pyproject.toml $(RUST_SOURCES)
	@echo 'Building the extension (one or two minutes the first time)…'
	@$(call silently,$(BIN)/maturin develop --quiet --locked)
	@rm -f $(VENV)/built-as-released
	@touch $@

$(VENV)/built-as-released: $(VENV)/ready-for-build pyproject.toml $(RUST_SOURCES)
	@echo 'Building the extension as it is released (some minutes the first time)…'
	@$(call silently,$(BIN)/maturin develop --quiet --release --locked)
	@rm -f $(VENV)/built
	@touch $@

demo: build ## Log in, restart and refresh with the real SDK on a SQLite file, against a local stand-in for Zoho
	@echo 'Running a program three times (some seconds)…'
	@$(BIN)/python examples/demo.py

demo-postgres: setup build ## The same with three programs at once, on a PostgreSQL server that it starts
	@echo 'Starting a server, and three programs (some seconds)…'
	@$(WITH_POSTGRES) $(BIN)/python examples/demo_postgres.py

$(VENV)-docs/ready: requirements/docs.txt
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python $(PIP) -r requirements/docs.txt
	touch $@

# Sphinx warns of a page without a link to it and of a broken link. Each warning is an error here. The last line checks
# that the site loads nothing from other servers.
docs: $(VENV)-docs/ready ## Build the documentation as a site: target/site/index.html
	rm -rf target/site
	$(VENV)-docs/bin/python -m sphinx --quiet --fail-on-warning --keep-going -c docs -d target/doctrees . target/site
	@! grep -rlE '<(script|link|img|iframe)[^>]* (src|href)="(https?:)?//' target/site --include='*.html' || { echo 'the site needs the network'; exit 1; }

test: test-rust-postgres test-python ## All tests, with the SDK 8, on a PostgreSQL server of their own

test-rust: ## The tests of the rules and backends that need no server: first without SQLite, then with it
	$(CARGO_TEST)
	$(CARGO_TEST) --features sqlite

test-rust-postgres: setup
	$(WITH_POSTGRES) $(CARGO_TEST) --features sqlite,postgres

test-postgres: test-rust-postgres build ## The backends in Rust, and tests/postgres, on the server that POSTGRES chooses
	$(WITH_POSTGRES) $(BIN)/python -m pytest $(PYTEST) --junitxml=target/pytest-postgres.xml tests/postgres
	@! grep -nE '$(SECRETS)' target/pytest-postgres.xml || { echo 'a secret was put out'; exit 1; }

# POOLER: what stands between the tests and the server.
test-contract: setup build ## The contract alone, on the server that POSTGRES chooses
	$(WITH_POSTGRES) $(POOLER) $(CARGO_TEST) --features sqlite,postgres --test contract --test lease postgres
	$(WITH_POSTGRES) $(POOLER) $(BIN)/python -m pytest $(PYTEST) --junitxml=target/pytest-contract$(if $(POOLER),-pooler).xml \
	  tests/test_stores.py -k PostgreSQL

test-pooler: ## The contract through pgbouncer in transaction mode, which must be installed
	$(MAKE) test-contract POOLER='$(BIN)/python tests/postgres/pooler.py'

test-system: ## The contract alone, on the server of this system, directly and through pgbouncer
	$(MAKE) POSTGRES=system test-contract test-pooler

test-python: setup build ## The tests in Python, with the SDK 8
	$(WITH_POSTGRES) $(BIN)/python -m pytest $(PYTEST)
	@! grep -nE '$(SECRETS)' target/pytest.xml || { echo 'a secret was put out'; exit 1; }

test-sdks: $(SDKS:%=test-sdk-%) test-sdk-8 ## The tests with the SDKs 5 to 8, each in its own environment

test-sdk-8: setup build
	$(WITH_POSTGRES) $(BIN)/python -m pytest $(PYTEST) tests/sdk

$(SDKS:%=.venv-sdk-%/ready): .venv-sdk-%/ready: requirements/sdk-%.txt
	$(PYTHON) -m venv .venv-sdk-$*
	.venv-sdk-$*/$(SCRIPTS)/python $(PIP) -r requirements/sdk-$*.txt
	touch $@

$(SDKS:%=test-sdk-%): test-sdk-%: setup .venv-sdk-%/ready target/wheel-debug/ready
	.venv-sdk-$*/$(SCRIPTS)/python $(PIP) --no-index --no-deps --force-reinstall target/wheel-debug/*.whl
	$(WITH_POSTGRES) .venv-sdk-$*/$(SCRIPTS)/python -m pytest $(PYTEST) --junitxml=target/pytest-sdk-$*.xml tests/sdk
	@! grep -nE '$(SECRETS)' target/pytest-sdk-$*.xml || { echo 'a secret was put out'; exit 1; }

test-cells: setup build ## The cells on real services: Redis and MariaDB of this system, and a stand-in for Amazon's
	$(BIN)/python -m pytest $(PYTEST) --junitxml=target/pytest-cells.xml tests/cells
	@! grep -nE '$(SECRETS)' target/pytest-cells.xml || { echo 'a secret was put out'; exit 1; }

test-browser: setup build $(VENV)/ready-for-browser ## The login example in a headless Chromium, which must be installed
	$(BIN)/python -m pytest --junitxml=target/pytest-browser.xml tests/browser/two_windows.py

$(VENV)/ready-for-browser: $(VENV)/ready requirements/browser.txt
	$(BIN)/python $(PIP) -r requirements/browser.txt
	touch $@

test-servers: setup build $(VENV)/ready-for-servers ## Two applications in one process of a real uWSGI, which needs a C compiler
	$(BIN)/python -m pytest --junitxml=target/pytest-servers.xml tests/servers/uwsgi_mounts.py

$(VENV)/ready-for-servers: $(VENV)/ready requirements/servers.txt
	@echo 'Compiling uWSGI (about a minute)…'
	$(BIN)/python $(PIP) -r requirements/servers.txt
	touch $@

# Wheels for this machine. Cargo has compiled them for `make build`, so that only packing is left.
target/wheel-debug/ready: $(VENV)/built $(shell find python -name '*.py*')
	rm -rf target/wheel-debug
	$(BIN)/maturin build --quiet --locked --out target/wheel-debug
	touch $@

target/wheel/ready: $(VENV)/built-as-released $(shell find python -name '*.py*')
	rm -rf target/wheel
	$(BIN)/maturin build --quiet --release --locked --compression-level 9 --out target/wheel
	touch $@

# Wheels for users. On Linux zig is the C compiler and the linker. It has the symbols of every glibc, so the wheel needs
# only glibc 2.17, as Rust does, on any build machine. On other systems the system's own compiler is used.
# TARGET: the target platform, if it is not this machine (`TARGET=universal2-apple-darwin`). INTERPRETER: a free-threaded
# Python (`INTERPRETER=python3.14t`), because the wheel for the stable ABI does not work with one.
ifeq ($(shell uname -s),Linux)
PORTABLE := --zig --compatibility pypi $(if $(findstring musl,$(TARGET)),musllinux_1_2,manylinux2014)
endif
wheel: $(VENV)/ready-for-packages ## Build the wheel for users into dist/, audit it, and smoke-test it in every CPython found
	rm -rf dist/*.whl
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/maturin build --quiet --release --locked --compression-level 9 --target-dir target/portable $(PORTABLE) \
	  $(if $(TARGET),--target $(TARGET)) $(if $(INTERPRETER),--interpreter $(INTERPRETER)) --out dist
	$(BIN)/twine check --strict dist/*.whl
	$(if $(PORTABLE),$(BIN)/auditwheel show dist/*.whl | tr '\n' ' ' | grep -oE 'platform tag: *"(manylinux_2_17|musllinux_1_2)_\w+"')
	$(if $(INTERPRETER),,$(BIN)/abi3audit --strict --summary dist/*.whl)
	$(if $(findstring musl,$(TARGET)),,$(BIN)/python tests/wheel_smoke.py dist $(INTERPRETER))

sdist: $(VENV)/ready-for-packages ## Build the source distribution into dist/, and from it a wheel, offline
	rm -rf dist/*.tar.gz target/sdist
	cargo fetch --quiet --locked
	$(BIN)/maturin sdist --out dist
	$(BIN)/twine check --strict dist/*.tar.gz
	mkdir -p target/sdist/source
	# -m: the unpacked files are as new as now. With their old times cargo would reuse the build of the checkout.
	tar xzmf dist/zoho_token_store-$(VERSION).tar.gz -C target/sdist/source --strip-components 1
	cd target/sdist/source && PATH="$(CURDIR)/$(BIN):$$PATH" CARGO_NET_OFFLINE=true CARGO_TARGET_DIR="$(CURDIR)/target" \
	  python -m pip wheel --quiet --no-index --no-build-isolation --no-deps --no-cache-dir --wheel-dir .. .
	@ls -sh dist/*.tar.gz

# The crates are forty times as large as the source distribution, so they have their own archive. Unpacked anywhere, it
# serves as a CARGO_HOME.
CRATES := zoho_token_store-$(VERSION)-crates
crates: ## Pack the source of every crate into dist/, for builds of the source distribution without a registry
	rm -rf target/crates
	mkdir -p target/crates/$(CRATES) dist
	cargo vendor --quiet --locked target/crates/$(CRATES)/vendor
	printf '[source.crates-io]\nreplace-with = "vendored"\n\n[source.vendored]\ndirectory = "$(CRATES)/vendor"\n' \
	  > target/crates/$(CRATES)/config.toml
	tar cJf dist/$(CRATES).tar.xz -C target/crates $(CRATES)
	@ls -sh dist/$(CRATES).tar.xz

licences: ## Rewrite THIRD-PARTY-LICENSES (needs cargo-about)
	cargo about generate --locked --output-file THIRD-PARTY-LICENSES about.hbs

ADVISORIES ?= advisories
audit: ## Check licences, sources and known vulnerabilities of all crates (needs cargo-deny; `ADVISORIES=` skips the network)
	cargo deny --locked --all-features check bans licenses sources $(ADVISORIES)

lint: build lint-repository ## Formatters, linters, types, the stub against the module, the layers, the SQL
	cargo fmt --check
	cargo clippy --quiet --locked --all-targets --no-default-features -- -D warnings
	cargo clippy --quiet --locked --no-default-features --features sqlite -- -D warnings
	cargo clippy --quiet --locked --no-default-features --features postgres -- -D warnings
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python cargo clippy --quiet --locked --no-default-features --features python -- -D warnings
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python cargo clippy --quiet --locked --all-targets --all-features -- -D warnings
	$(BIN)/python scripts/check_layers.py
	$(BIN)/python scripts/check_sql.py
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

# The program shares no source with the library.
target/floor: Cargo.toml Cargo.lock benchmarks/floor.rs
	cargo build --quiet --release --no-default-features --features sqlite --bench floor --locked --message-format=json \
	  | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | xargs -I{} cp {} $@

postgres-floor: target/postgres_floor ## Build the bare statements in Rust, which `make bench-postgres` compares with

# It has the library's own find and save, too.
target/postgres_floor: benchmarks/postgres_floor.rs $(RUST_SOURCES)
	cargo build --quiet --release --no-default-features --features postgres --bench postgres_floor --locked \
	  --message-format=json | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | xargs -I{} cp {} $@

bench: $(VENV)/ready-for-benchmarks $(VENV)/built-as-released floor target/wheel/ready ## Measure the stores beside their peers, and check the targets (25 minutes)
	$(BIN)/python benchmarks/bench.py --million --json target/bench.json --picture target/bench.svg $(OPTIONS)

bench-fast: $(VENV)/built-as-released floor ## Run the benchmark on small tables, to see that it works (20 seconds)
	$(BIN)/python benchmarks/bench.py --fast $(OPTIONS)

bench-postgres: $(VENV)/ready-for-benchmarks $(VENV)/built-as-released postgres-floor ## Measure CustomStorePostgreSQL beside its peers, on servers of its own (6 minutes)
	$(BIN)/python benchmarks/bench_postgres.py --server $(POSTGRES) --json target/bench-postgres.json $(OPTIONS)

bench-postgres-fast: $(VENV)/ready-for-benchmarks $(VENV)/built-as-released postgres-floor ## Run that benchmark with few calls, to see that it works (half a minute)
	$(BIN)/python benchmarks/bench_postgres.py --server $(POSTGRES) --fast $(OPTIONS)

bench-places: setup $(VENV)/built-as-released ## Measure stores over cells, on Redis and MariaDB of this system (half a minute)
	$(BIN)/python benchmarks/places.py $(OPTIONS)

bench-keys: $(VENV)/built-as-released ## Measure encrypted stores beside a plain one (half a minute)
	$(BIN)/python benchmarks/keys.py $(OPTIONS)

bench-lease: $(VENV)/ready-for-benchmarks $(VENV)/built-as-released ## Measure refreshes: token calls and waits of many workers, and draw target/{refreshes,waits}.svg (10 minutes)
	cd benchmarks && ../$(BIN)/python refresh_lease.py --picture ../target/refreshes.svg --waits ../target/waits.svg $(OPTIONS)

reliability: build ## Inject the same faults into this store, the SDK's FileStore and a plain sqlite3 store: a table
	cd benchmarks && ../$(BIN)/python reliability.py $(OPTIONS)

# MINUTES: start no round after this time. SEED: repeat a run. Without it each run draws a seed, and prints it.
MINUTES ?= 20
soak: setup build ## Run the tests of faults in their long form, round after round for MINUTES (20)
	$(BIN)/python tests/faults/soak.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) -- $(PYTEST)

# With clang the fuzzer also sees the branches of SQLite's code.
fuzz: build ## Open random files and rows for MINUTES (20; needs a nightly Rust and cargo-fuzz), then run the long model test
	mkdir -p target/fuzz/corpus target/fuzz/corpus-row
	cd tests/fuzz && $(if $(shell command -v clang),CC=clang CFLAGS="-fsanitize=fuzzer-no-link,address -g -O1") \
	  cargo +nightly fuzz run --fuzz-dir . --target-dir ../../target/fuzz open_file ../../target/fuzz/corpus ../data/fuzz -- \
	  -dict=dictionary -max_len=24000 -timeout=25 -max_total_time=$$(($(MINUTES) * 60)) -artifact_prefix=../../target/fuzz/
	cd tests/fuzz && cargo +nightly fuzz run --fuzz-dir . --target-dir ../../target/fuzz open_row ../../target/fuzz/corpus-row \
	  ../data/fuzz-row -- -max_len=4000 -timeout=25 -max_total_time=$$(($(MINUTES) * 6)) -artifact_prefix=../../target/fuzz/
	$(MAKE) test-model EXAMPLES=2000

# EXAMPLES: how many sequences of steps. `make test` tries 25.
EXAMPLES ?= 1500
test-model: setup build ## Compare the stores with the model for EXAMPLES (1500) random sequences of steps
	ZOHO_TOKEN_STORE_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest $(PYTEST) --timeout=7200 tests/model

# One mutant takes about 13 s. SHARD: which part of all mutants, such as 0/4.
mutants: ## Change src/domain and src/store in small ways, and list what no test notices (needs cargo-mutants)
	cargo mutants --file 'src/domain/**' --file 'src/store/**' --no-default-features --features sqlite --cargo-arg=--locked \
	  --output target $(if $(SHARD),--shard $(SHARD))

COVERED := .venv-coverage
$(COVERED)/ready: requirements/dev.txt requirements/coverage.txt
	$(PYTHON) -m venv $(COVERED)
	$(COVERED)/$(SCRIPTS)/python $(PIP) -r requirements/dev.txt -r requirements/coverage.txt
	touch $@

coverage: $(COVERED)/ready ## Run all tests, and list the covered lines of Rust and Python: target/coverage
	$(COVERED)/$(SCRIPTS)/python tests/postgres_server.py --server $(POSTGRES) -- \
	  $(COVERED)/$(SCRIPTS)/python tests/measure_coverage.py -- $(PYTEST)

$(VENV)/ready-for-benchmarks: $(VENV)/ready requirements/bench.txt
	$(BIN)/python $(PIP) -r requirements/bench.txt
	touch $@

$(VENV)/ready-for-packages: $(VENV)/ready requirements/package.txt
	$(BIN)/python $(PIP) -r requirements/package.txt
	touch $@

format: setup ## Format all sources
	cargo fmt
	$(BIN)/ruff check --fix --quiet || true
	$(BIN)/ruff format

lock: ## Pin the newest versions of the Python tools (needs uv)
	for name in dev build bench browser coverage docs package servers $(SDKS:%=sdk-%); do $(UV_COMPILE) requirements/$$name.in -o requirements/$$name.txt; done

clean: ## Remove everything that the other targets make
	rm -rf $(VENV) $(VENV)-docs $(COVERED) .venv-sdk-* target dist
