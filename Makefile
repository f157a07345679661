PYTHON ?= python3
VENV ?= .venv
METHODS ?=
BACKBONE ?=
TASKS ?=
# Of each suite its own (three), unless given.
SEEDS ?=
TRIALS ?=
SEARCH ?=
TUNED_DIR ?=
FROM ?=
JOBS ?=
RETRY ?=
FAIL_FAST ?=
LAUNCHER ?=
# PROFILE= is its old name.
CLUSTER ?= $(PROFILE)
DATA ?= data
BIN := $(VENV)/bin
PREPARE := .venv-prepare
LOWEST := .venv-lowest
SWEEP = $(if $(METHODS),--methods $(METHODS)) $(if $(TASKS),--tasks $(TASKS)) $(if $(SEEDS),--seeds $(SEEDS))
SWEEP += $(if $(BACKBONE),--backbone $(BACKBONE)) $(if $(JOBS),--jobs $(JOBS)) $(if $(RETRY),--retry $(RETRY)) $(if $(FAIL_FAST),--fail-fast)
SWEEP += $(if $(LAUNCHER),--launcher $(LAUNCHER)) $(if $(CLUSTER),--cluster $(CLUSTER))
SETTINGS = data_root=$(DATA) $(SET)
SUITES := demo vtab fgvc gic robustness folder

.DEFAULT_GOAL := help
SUITE ?=
SET ?=
REPRODUCE := $(addprefix reproduce-,$(SUITES))
PREPARE_SUITES := $(addprefix prepare-,$(filter-out demo folder,$(SUITES)))
.PHONY: help demo search ablate-san plan status cancel $(REPRODUCE) $(PREPARE_SUITES) tables verify test test-cells test-fuzz test-lowest test-data test-sweep test-slurm test-latex lint types check bench bench-cuda docs clean

# Which variables a target takes, beside PYTHON and VENV. Any other on the command line is refused: it would be swallowed.
SWEEP_TAKES := METHODS TASKS SEEDS BACKBONE JOBS RETRY FAIL_FAST LAUNCHER CLUSTER PROFILE DATA SET
$(foreach target,demo $(REPRODUCE),$(eval TAKES_$(target) := $(SWEEP_TAKES)))
$(foreach target,search ablate-san,$(eval TAKES_$(target) := SUITE SEARCH TRIALS TUNED_DIR $(SWEEP_TAKES)))
$(foreach target,plan status cancel,$(eval TAKES_$(target) := SUITE $(SWEEP_TAKES)))
$(foreach target,$(PREPARE_SUITES),$(eval TAKES_$(target) := TASKS FROM DATA))
TAKES_verify := SUITE TASKS DATA
TAKES_tables := SUITE BACKBONE
TAKES_bench := METHODS BACKBONE
TAKES_bench-cuda := METHODS BACKBONE
GOALS := $(or $(MAKECMDGOALS),help)
TAKEN := $(sort $(foreach goal,$(GOALS),$(TAKES_$(goal))) PYTHON VENV)
# Of several targets each has to take it.
GIVEN := $(foreach variable,$(.VARIABLES),$(if $(filter command,$(origin $(variable))),$(variable)))
UNKNOWN := $(sort $(foreach goal,$(GOALS),$(filter-out $(TAKES_$(goal)) PYTHON VENV,$(GIVEN))))
ifneq ($(UNKNOWN),)
$(error `make $(GOALS)` does not take $(UNKNOWN). It takes $(TAKEN)$(if $(filter SET,$(TAKEN)),; settings of train.py go into SET="epochs=1 lr=1e-3"))
endif

help:  ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-20s %s\n", $$1, $$2}'
	@echo "  Which runs: METHODS=ssf,san:shift=true TASKS=digits,count SEEDS=0,1,2 BACKBONE=; any setting of train.py: SET=\"epochs=1 lr=1e-3\""

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# TensorFlow lives in an environment of its own: training never sees it.
$(PREPARE)/installed: pyproject.toml
	$(PYTHON) -m venv $(PREPARE)
	$(PREPARE)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[prepare]'
	@touch $@

reproduce-vtab: $(VENV)/installed  ## Run what has no record of VTAB-1k, then print the table (JOBS=, RETRY=failed, FAIL_FAST=1)
reproduce-fgvc: $(VENV)/installed  ## The same for FGVC
reproduce-gic: $(VENV)/installed  ## The same for CIFAR-100 and ImageNet-1k
reproduce-robustness: $(VENV)/installed  ## The same for ImageNet-A, -R and -C: SET="adapter_checkpoint=FILE"
reproduce-demo: $(VENV)/installed  ## The same for the demo suite
reproduce-folder: $(VENV)/installed  ## The same for your own images: SET="data.root=FOLDER data.task=NAME"
$(REPRODUCE):
	$(BIN)/python scripts/reproduce.py $(@:reproduce-%=%) $(SWEEP) $(SETTINGS)

plan: $(VENV)/installed  ## What there is to run for SUITE=vtab, and how long it will take
	$(BIN)/python scripts/reproduce.py $(or $(SUITE),vtab) $(SWEEP) --plan $(SETTINGS)

status: $(VENV)/installed  ## How far the runs of SUITE=vtab are, and what failed and why
	$(BIN)/python scripts/reproduce.py $(or $(SUITE),vtab) $(SWEEP) --status $(SETTINGS)

cancel: $(VENV)/installed  ## Cancel the SLURM jobs of SUITE=vtab
	$(BIN)/python scripts/reproduce.py $(or $(SUITE),vtab) $(SWEEP) --cancel $(SETTINGS)

demo: $(VENV)/installed  ## Fine-tune with full, linear, ssf and san on the demo suite, and print the table (offline, CPU)
	$(BIN)/python scripts/reproduce.py demo $(SWEEP) $(if $(SEEDS),,--seeds 0) $(SETTINGS)

SPACE = $(if $(SEARCH),--search $(SEARCH)) $(if $(TRIALS),--trials $(TRIALS)) $(if $(TUNED_DIR),--tuned-dir $(TUNED_DIR))
search: $(VENV)/installed  ## Search the hyper-parameters of every method of SUITE=vtab alike on val200, for recipe=tuned (SEARCH=lr_wd, TRIALS=8, TUNED_DIR=)
	$(BIN)/python scripts/search.py $(or $(SUITE),vtab) $(SPACE) $(SWEEP) $(SETTINGS)

ablate-san: $(VENV)/installed-figures  ## What SAN's parts add on SUITE=vtab: every arm is searched alike, then run with the suite's seeds
	$(BIN)/python scripts/ablate.py san $(or $(SUITE),vtab) $(SPACE) $(SWEEP) $(SETTINGS)

COMMA := ,
NAMES = $(if $(TASKS),$(addprefix $(1)/,$(subst $(COMMA), ,$(TASKS))),$(1))
PREPARING := $(if $(FROM),$(VENV)/installed,$(PREPARE)/installed)
prepare-vtab: $(PREPARING)  ## Get and pack VTAB-1k's images with TFDS: TASKS=cifar,svhn; or FROM=folder-or-zip
prepare-fgvc: $(PREPARING)  ## The same for the five fine-grained sets
prepare-gic: $(PREPARING)  ## The same for CIFAR-100 and ImageNet-1k
prepare-robustness: $(PREPARING)  ## The same for ImageNet-A, -R and -C
$(PREPARE_SUITES):
	$(if $(FROM),$(BIN),$(PREPARE)/bin)/python scripts/prepare.py $(call NAMES,$(@:prepare-%=%)) --root $(DATA) $(if $(FROM),--from $(FROM))

verify: $(VENV)/installed  ## Verify the packed data of SUITE=vtab, and draw results/figures/data/<task>.png
	$(BIN)/python scripts/verify.py $(call NAMES,$(or $(SUITE),vtab)) --root $(DATA) --sheets

$(VENV)/installed-figures: pyproject.toml $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[figures,parquet]'
	@touch $@

tables: $(VENV)/installed-figures  ## Write tables and figures of all local records, beside the published numbers; or of SUITE=vtab
	$(BIN)/python scripts/tables.py $(SUITE) $(if $(BACKBONE),--backbone $(BACKBONE))

# As many processes as there are cores, which take over what others have left; more than eight wait for the slowest test.
PARALLEL := -n auto --maxprocesses 8 --dist worksteal
test: $(VENV)/installed-dev  ## Run the tests (no GPU, no data)
	$(BIN)/python -m pytest $(PARALLEL)

test-cells: $(VENV)/installed-dev  ## Methods on the families that `make test` leaves out, and compiled
	$(BIN)/python -m pytest $(PARALLEL) -m cells tests/methods

test-fuzz: $(VENV)/installed-dev  ## Read thousands of damaged files of every format (SAN_FUZZ_SEED=7 SAN_FUZZ_TIMES=10: others, more)
	$(BIN)/python -m pytest $(PARALLEL) -m fuzz tests/test_fuzz.py

LOWEST_TESTS := $(addprefix tests/,methods backbones training data search test_own_models.py adapter test_record.py)
LOWEST_TESTS += $(addprefix tests/,report/test_compare.py report/test_within_task.py test_foreign_files.py test_fuzz.py) --ignore tests/methods/test_peft_library.py
test-lowest:  ## Oracles, contract and hostile files on the lowest version of each dependency
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check $$($(PYTHON) tests/lowest_versions.py) 'pytest>=8' pytest-xdist
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	$(LOWEST)/bin/python -m pytest $(PARALLEL) -m 'fuzz or not (cells or data or sweep or slurm or latex)' $(LOWEST_TESTS)

test-data: $(PREPARE)/installed  ## Synthetic archives of all 16 VTAB sources through TFDS's real builders to training
	$(PREPARE)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[prepare,dev]'
	$(PREPARE)/bin/python -m pytest -m data -W default tests/data_tier

test-sweep: $(VENV)/installed-dev  ## Sweeps that are killed, shared and resumed, here, on Ray and by torchrun; a compiled run (Debian: g++)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[ray,dev]'
	$(BIN)/python -m pytest -m sweep

test-latex: $(VENV)/installed-dev  ## Compile the tables (Debian: texlive-latex-extra, texlive-science, poppler-utils)
	$(BIN)/python -m pytest -m latex tests/report

test-slurm: $(VENV)/installed-dev  ## Sweeps on a real SLURM of one node (tests/one_node_slurm.sh start, as root)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[slurm,dev]'
	$(BIN)/python -m pytest -m slurm tests/sweep/test_slurm.py

lint: $(VENV)/installed-dev  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev  ## Check types, strictly
	$(BIN)/mypy

check: lint types test  ## Everything that CI checks

bench: $(VENV)/installed  ## Time a training step of every method against the floor (BACKBONE=a timm name)
	$(BIN)/python benchmarks/speed/step_time.py $(if $(METHODS),--methods $(METHODS)) $(if $(BACKBONE),--backbone $(BACKBONE))

bench-cuda: $(VENV)/installed  ## The same and more on a GPU, in minutes: step, memory, share of its ceiling, where SAN's time goes
	$(BIN)/python benchmarks/speed/cuda_check.py --compile floor,san --profile san --out benchmarks/speed $(if $(METHODS),--methods $(METHODS)) $(if $(BACKBONE),--backbone $(BACKBONE))

$(VENV)/installed-docs: pyproject.toml $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

docs: $(VENV)/installed-docs  ## Build docs/ into docs/_build/html; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -n -q -b html docs docs/_build/html

clean:  ## Remove the environment and caches; records and tables stay
	rm -rf $(VENV) $(PREPARE) $(LOWEST) *.egg-info docs/_build .pytest_cache .mypy_cache .ruff_cache
