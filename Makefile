# `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := run
.PHONY: run test test-fast test-random lint format wheel clean help

VENV ?= .venv
BIN := $(VENV)/bin
TESTS ?=
SEED ?=
WORKERS ?= 2
FAST := not models and not media and not browser and not slow and not load
FAST_FOLDERS := tests/core tests/timeline tests/events tests/answers tests/speech

run: $(VENV)/.installed  ## install, download the weights, serve           SOURCES=DIR PORT=8080 HOST=127.0.0.1 MODEL=none|NAME SEES=smolvlm-500m
	@$(BIN)/streamsvc models pull $(if $(MODEL),--chat "$(MODEL)")
	@$(if $(SEES),$(BIN)/streamsvc models pull "$(SEES)")
	@$(if $(SEES),export STREAMSVC_THINK__SEES="$(SEES)" STREAMSVC_THINK__SCENES=true;) $(if $(filter-out none auto,$(MODEL)),export STREAMSVC_THINK__MODEL="$(MODEL)";) exec $(BIN)/streamsvc serve $(if $(HOST),--host "$(HOST)") $(if $(PORT),--port "$(PORT)") $(if $(SOURCES),--sources "$(SOURCES)")

# The weights come while mypy runs: both take a minute or two of one core.
test: $(VENV)/.installed-dev  ## what CI runs: ruff, mypy, pytest                TESTS="tests/core -x" WORKERS=0
	@$(BIN)/streamsvc models pull --all & pulled=$$!; $(MAKE) --no-print-directory lint; wait $$pulled
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(TESTS)

test-fast: $(VENV)/.installed-dev  ## pure unit tests: no weights, network or browser; under a minute
	$(BIN)/python -m pytest -m "$(FAST)" $(or $(TESTS),$(FAST_FOLDERS))

test-random: $(VENV)/.installed-dev  ## pytest in random order                             SEED=1 TESTS=...
	@$(BIN)/streamsvc models pull --all
	$(BIN)/python -m pytest -p randomly $(if $(SEED),--randomly-seed=$(SEED)) $(TESTS)

lint: $(VENV)/.installed-dev  ## ruff and mypy alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev  ## ruff format, and ruff's safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Its times are those of the last commit and its modes the same everywhere: equal sources give equal bytes.
wheel: $(VENV)/.installed  ## build dist/streamsvc-VERSION-py3-none-any.whl
	@rm -rf build
	@umask 022; export SOURCE_DATE_EPOCH="$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || stat -c %Y pyproject.toml)}"; \
	  $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean:  ## remove build outputs and caches
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):[^#]*## */\1\t/p' $(MAKEFILE_LIST) | expand -t 14

# Stamps: reinstall only when pyproject.toml has changed. The dev install contains the plain one.
$(VENV)/.installed: pyproject.toml | $(BIN)/pip
	@echo "installing streamsvc into $(VENV): some minutes the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/pip
	@echo "installing streamsvc and its tools into $(VENV): some minutes the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed

$(BIN)/pip:
	@python=; \
	for candidate in python3 python3.14 python3.13 python3.12 python3.11; do \
	  if command -v $$candidate >/dev/null && $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo "streamsvc needs Python 3.11 or newer. On Debian or Ubuntu: apt install python3 python3-venv" >&2; exit 1; fi; \
	if ! $$python -c 'import ensurepip, venv' 2>/dev/null; then \
	  version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	  echo "$$python cannot make virtual environments. On Debian or Ubuntu: apt install python$$version-venv" >&2; exit 1; \
	fi; \
	$$python -m venv "$(VENV)"
