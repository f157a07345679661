PYTHON ?= python3
VENV ?= .venv
METHODS ?=
BACKBONE ?=
TASKS ?=
SEEDS ?= 0
BIN := $(VENV)/bin
PICK = $(if $(METHODS),--methods $(METHODS)) $(if $(TASKS),--tasks $(TASKS)) --seeds $(SEEDS)

.DEFAULT_GOAL := help
.PHONY: help demo tables test lint types check bench clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-8s %s\n", $$1, $$2}'
	@echo "  Options of demo: METHODS=ssf,san TASKS=digits,count SEEDS=0,1,2"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(VENV)/installed  ## Fine-tune with full, linear, ssf and san on the demo suite, and print the table (offline, CPU)
	$(BIN)/python scripts/reproduce.py demo $(PICK)

tables: $(VENV)/installed  ## Write the demo suite's tables from the local records
	$(BIN)/python scripts/tables.py demo

test: $(VENV)/installed-dev  ## Run the tests (no GPU, no data)
	$(BIN)/python -m pytest

lint: $(VENV)/installed-dev  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev  ## Check types, strictly
	$(BIN)/mypy

check: lint types test  ## Everything that CI checks

bench: $(VENV)/installed  ## Time a training step of every method against the floor (BACKBONE=a timm name)
	$(BIN)/python benchmarks/speed/step_time.py $(if $(METHODS),--methods $(METHODS)) $(if $(BACKBONE),--backbone $(BACKBONE))

clean:  ## Remove the environment and caches; records and tables stay
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache
