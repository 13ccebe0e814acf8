# Everything a person does with a checkout. Each target does its own set-up first.
# Another interpreter: make PYTHON=python3.13 <target>

PYTHON ?= python3
PY := .venv/bin/python
WORKERS ?= $(shell nproc)

help:            ## list these targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

setup:           ## make .venv with all that running and testing need
	@$(PYTHON) tools/setup.py dev

run:             ## start the platform with simulated carriers, on this machine
	@$(PYTHON) tools/setup.py run
	@.venv/bin/berid demo

test: setup      ## every test, on SQLite and PostgreSQL, whole processes included
	$(PY) -m pytest -n $(WORKERS)

check: setup     ## format, lint, types, import layers and the fast tests; under a minute
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m pytest -n $(WORKERS) -m "not postgres and not scenario" $(FAST)

# What needs no open door: the path itself, and all that it is made of.
FAST := $(addprefix tests/,base domain wire queue store flow test_config.py test_house.py test_layers.py test_metrics.py)

kill: setup      ## kill the process at every failpoint and at random, on both stores, and count what is left
	$(PY) -m tests.kill

bench: setup     ## measure
	$(PY) -m bench

format: setup    ## put the code into shape
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

docs: setup      ## write the generated pages of docs/ again
	$(PY) -m tools.docs

lock: setup      ## resolve pyproject.toml again and pin the result with hashes
	$(PY) -m uv lock --upgrade
	$(EXPORT) --no-dev --output-file requirements.txt
	$(EXPORT) --no-dev --extra tracing --output-file requirements-tracing.txt
	$(EXPORT) --extra tracing --output-file requirements-dev.txt

EXPORT := $(PY) -m uv export --frozen --quiet --format requirements-txt --no-emit-project --no-annotate --no-header

clean:           ## remove .venv and everything that tools have left behind
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup run test check kill bench format docs lock clean
