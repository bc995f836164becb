# make run     everything, from a fresh clone to "ready, open http://…"     SOURCES=DIR  PORT=8080  HOST=127.0.0.1
# make test    what CI runs: ruff, mypy, pytest
# make lint    ruff and mypy alone

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := run
.PHONY: run test lint clean

VENV ?= .venv
BIN := $(VENV)/bin
TESTS ?=

run: $(VENV)/.installed
	@$(BIN)/streamsvc models pull
	@exec $(BIN)/streamsvc serve $(if $(HOST),--host "$(HOST)") $(if $(PORT),--port "$(PORT)") $(if $(SOURCES),--sources "$(SOURCES)")

test: $(VENV)/.installed-dev lint
	@$(BIN)/streamsvc models pull --all
	$(BIN)/python -m pytest $(TESTS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

# The stamps: installed again only when pyproject.toml has changed. With the dev tools in, the plain install is in too.
$(VENV)/.installed: pyproject.toml | $(BIN)/pip
	@echo "installing streamsvc into $(VENV): some minutes, the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/pip
	@echo "installing streamsvc and its tools into $(VENV): some minutes, the first time"
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
