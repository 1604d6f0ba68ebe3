# Everything a person does with a clone. Each target sets up what it needs by itself, and only when something changed.
#
#   make up      the whole system on this machine; ARGS='--port 8123 --register-agents 4' are handed to `gpuping up`
#   make test    the test suite            make check   formatting, types, import directions
#   make bench   benchmarks (QUICK=1)      make soak    the tests that take minutes; MINUTES=30: at work, must not grow
#   make chaos   SEED=n MINUTES=m: faults by seed, audited from outside (ARGS=--help); best as root
#   make drill   NAME=servers|migrate|upgrade|restore|standstill|presence: what an operator does, under load (ARGS=--help)
#   make web     the page, built           make lock    new pins in requirements*.txt
#   make screenshots   the README's pictures, from the demo; ALL=1 OUT=folder: every page, to be looked at
#   make agentd-binary   dist/gpuping-agentd: agentd in one file, for GPU hosts without a new Python
#   make release   that, wheel, sdist, list of components and checksums in dist/, of the version in pyproject.toml
#
# Needed beforehand: Python 3.11 or newer with venv, Node.js with npm, a package index; for agentd-binary and release
# binutils and the shared library of that Python, too (Debian 12: libpython3.11).

# Images for containers often forbid Python to keep what it compiled. The tests start hundreds of processes, each of
# which would compile all of our modules anew: together a tenth of the time that the tests take.
export PYTHONDONTWRITEBYTECODE :=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# PYTHON may be set; otherwise the first of these that is new enough
# a release: pip leaves packages out for a candidate, such as the python3.11 of Ubuntu 22.04
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11, 0, "final"))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c '$(IS_NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)
RUNTIME := $(VENV)/.runtime-installed
DEVELOPMENT := $(VENV)/.development-installed
RELEASE := $(VENV)/release/.installed
WEB := gateway/static/built/.done
WEB_LIBRARIES := node_modules/.fetched
WEB_SOURCES := $(shell find gateway/static -path gateway/static/vendor -prune -o -path gateway/static/built -prune \
	-o -type f -print)
UV_COMPILE = $(VENV)/uv/bin/uv pip compile --quiet --python-version 3.11 --universal --generate-hashes \
	--no-header --no-annotate --constraints constraints.txt --group build pyproject.toml

# most tests wait for real time to pass; a file's tests stay together, in order
SIDE_BY_SIDE ?= -n 5 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help up test check check-style check-types check-imports check-tests soak chaos drill bench web screenshots lock format clean agentd-binary release

help:
	@sed -n 's/^#   //p' Makefile

up: $(RUNTIME) $(WEB)
	@$(BIN)/gpuping up $(ARGS)

test: $(DEVELOPMENT) $(WEB)
	$(BIN)/pytest -m "not slow" $(SIDE_BY_SIDE) $(ARGS)

# without MINUTES the slow tests; with it the whole system at work for so long, and what it uses
soak: $(DEVELOPMENT) $(WEB)
ifdef MINUTES
	$(BIN)/python -m tests.chaos.soak --minutes $(MINUTES) $(ARGS)
else
	$(BIN)/pytest -m slow --timeout 3600 $(ARGS)
endif

chaos: $(DEVELOPMENT) $(WEB)
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

drill: $(DEVELOPMENT) $(WEB)
	$(BIN)/python -m tests.chaos.drills $(NAME) $(if $(PREVIOUS),--previous $(PREVIOUS)) $(ARGS)

# with --jobs side by side; that the tests can be collected also compiles them, once for all of their workers
check: check-style check-types check-imports check-tests

check-style: $(DEVELOPMENT)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

check-types: $(DEVELOPMENT)
	$(BIN)/mypy

check-imports: $(DEVELOPMENT)
	$(BIN)/lint-imports

check-tests: $(DEVELOPMENT)
	@echo "$(BIN)/pytest --collect-only"
	@collected=$$($(BIN)/pytest --collect-only --quiet --quiet) || { echo "$$collected"; exit 1; }

format: $(DEVELOPMENT)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(DEVELOPMENT)
	@QUICK=$(QUICK) $(BIN)/python -m bench $(ARGS)

web: $(WEB)

# the README's pictures, from the real page of `gpuping up --demo`; needs chromium and chromedriver.
# ALL=1 OUT=folder: every page at five widths, in light, dark and forced colours, to be looked at
screenshots: $(DEVELOPMENT) $(WEB)
ifdef ALL
	@$(BIN)/python -m tests.gallery --output $(or $(OUT),/tmp/gpuping-pictures) $(ARGS)
else
	@$(BIN)/python -m tests.screenshots
endif

# It runs where the C library is at least as new as the one that this machine's Python was built for.
agentd-binary: $(RELEASE)
	@VENV=$(VENV) sh deploy/release/agentd-binary.sh

release: $(RELEASE) $(WEB)
	@VENV=$(VENV) sh deploy/release/release.sh

# The newest versions within the ranges of pyproject.toml, pinned by hash; a lock names no registry. What runs is
# chosen first, and the other locks keep to it: what is tested is what is shipped.
lock: $(VENV)/bin/python
	@test -x $(VENV)/uv/bin/uv || { $(BIN)/python -m venv $(VENV)/uv && $(VENV)/uv/bin/pip install --quiet uv; }
	$(UV_COMPILE) --upgrade --extra all --output-file requirements.txt
	$(UV_COMPILE) --upgrade --constraints requirements.txt --extra dev --output-file requirements-dev.txt
	$(UV_COMPILE) --upgrade --constraints requirements.txt --extra agentd --extra release \
		--output-file requirements-release.txt

clean:
	rm -rf $(VENV) node_modules gateway/static/vendor gateway/static/built build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache \
		.import_linter_cache .hypothesis

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer found (a release, no candidate); install it, or say where: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Making the Python environment in $(VENV) ($(PYTHON)) ..."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "make: 'python -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# every package is checked against its hash; the project itself is installed as the folder that it is
$(RUNTIME): requirements.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing Python packages (requirements.txt) ..."
	@$(PIP) install --require-hashes -r requirements.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEVELOPMENT): requirements-dev.txt $(RUNTIME)
	@echo "Installing Python packages for development (requirements-dev.txt) ..."
	@$(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@

# an environment of its own, with what agentd needs and nothing else, so that the file is small
$(RELEASE): requirements-release.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing Python packages for releases (requirements-release.txt) ..."
	@rm -rf $(VENV)/release && $(BIN)/python -m venv $(VENV)/release
	@$(VENV)/release/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes \
		-r requirements-release.txt
	@touch $@

$(WEB_LIBRARIES): package.json package-lock.json
	@command -v npm >/dev/null || { echo "make: npm not found; install Node.js 18 or newer (the page's libraries come from npm)" >&2; exit 1; }
	@node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' || { echo "make: the page is built with Node.js 18 or newer, and this is $$(node --version); install a newer one (nodejs.org)" >&2; exit 1; }
	@echo "Fetching the page's libraries (package-lock.json) ..."
	@npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(WEB): $(WEB_LIBRARIES) gateway/web-build.mjs $(WEB_SOURCES)
	@echo "Building the page ..."
	@npm run --silent build
	@touch $@
