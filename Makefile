# Everything a developer or CI does has a target here. Each one first sets up what it
# needs (scripts/setup), so that a fresh clone needs nothing but make and Python.

VENV ?= .venv
python := $(VENV)/bin/python
ARGS ?=
# Tests wait for processes more than they compute: at least two at a time.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ "$$n" -gt 2 ] && echo "$$n" || echo 2)
SOURCES := manage.py executor_site batches
TEMPLATES := find executor_site batches -name '*.html' -print0 | xargs -0r

export VENV
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV
MAKEFLAGS += --no-print-directory

.DEFAULT_GOAL := help
.PHONY: help demo serve test lint format types migrations check lock clean setup-run setup-tools setup-test

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo '  ARGS="…" is handed on, VENV=folder another virtual environment than .venv,'
	@echo '  PYTHON=python3.12 the interpreter to make it with'

demo: setup-run  ## everything set up, then one real batch from start to finish
	@exec $(python) manage.py demo $(ARGS)

serve: setup-run  ## the server, on http://127.0.0.1:8080 unless HOST and PORT say otherwise
	@exec $(python) manage.py serve $(ARGS)

test: setup-test  ## everything set up, then the whole test-suite (ARGS="-k word" for a part)
	@$(python) -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: setup-tools  ## ruff and djade, checking
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(TEMPLATES) $(VENV)/bin/djade --check

format: setup-tools  ## ruff and djade, fixing
	@$(python) -m ruff check --fix .
	@$(python) -m ruff format .
	@$(TEMPLATES) $(VENV)/bin/djade

types: setup-tools  ## mypy, strict
	@$(python) -m mypy $(SOURCES)

migrations: setup-tools  ## do the migrations hold every change of the models?
	@$(python) manage.py makemigrations --check --dry-run

check: lint types migrations test  ## all of it, exactly as CI

lock:  ## the lock files from pyproject.toml (ARGS=--upgrade for newer versions)
	@scripts/lock $(ARGS)

clean:  ## remove what can be made again; var/ with the server's state stays
	rm -rf .venv build dist *.egg-info .coverage htmlcov .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -path ./var -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

setup-run:
	@scripts/setup run

setup-tools:
	@scripts/setup tools

setup-test:
	@scripts/setup test
