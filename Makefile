# make demo, make test and make test-all are each the only command a fresh machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One process per core with one thread each: two threads each would wait for one another. Compiled modules are kept
# even where the environment says otherwise: the tests start hundreds of processes.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

.PHONY: setup demo test test-slow test-slurm test-all check clean

setup: $(READY)

$(READY): .ci/constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[dev,adapters,figures]'
	touch $(READY)

demo: setup
	$(BIN)/python run.py experiment=demo

test: setup
	$(PYTEST) -m "not slow and not slurm and not browser and not study"

test-slow: setup
	$(PYTEST) --durations=15 -m "(slow or browser or study) and not slurm"

# SLURM tests share one scheduler, so they run one after another.
test-slurm: setup
	$(BIN)/python -m pytest -m slurm

test-all: test test-slow test-slurm

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

clean:
	rm -rf store results outputs multirun
