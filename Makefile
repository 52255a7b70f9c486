# make test is what CI runs; make quickstart is the five-minute tour. Both make their own .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# jax ends its support of Python 3.11 earlier than of the others, so there are two tested sets.
CONSTRAINTS := constraints/$(if $(filter 3.11,$(VERSION)),py311,py312).txt
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -q -c $(CONSTRAINTS)
INSTALL_INPUTS := setup.cfg pyproject.toml $(CONSTRAINTS)
# The stamps carry the Python version, so that another PYTHON makes another environment.
BASE_STAMP := $(VENV)/.installed-base-$(VERSION)
TEST_STAMP := $(VENV)/.installed-test-$(VERSION)
DOCS_STAMP := $(VENV)/.installed-docs-$(VERSION)
MAKE_VENV = test -x $(BIN)/python$(VERSION) || $(PYTHON) -m venv --clear $(VENV)

# Two test processes fill two cores, so BLAS brings no threads of its own; where there is an accelerator they share
# its memory instead of one taking most of it. Which platform JAX runs on is left to JAX. Most of a test's time is
# compiling programs that run for milliseconds, so that XLA's backend optimises as little as it can, and a file's tests
# stay in one process, which makes the runs that they share once. tests/conftest.py orders the files.
WORKERS ?= 2
PYTEST := XLA_FLAGS="--xla_backend_optimization_level=0 $$XLA_FLAGS" OMP_NUM_THREADS=1 XLA_PYTHON_CLIENT_PREALLOCATE=false $(BIN)/python -m pytest -n $(WORKERS) --dist=loadfile --no-loadscope-reorder
NOTEBOOKS := $(wildcard notebooks)

.PHONY: help venv quickstart lint types check test docs format clean
.DEFAULT_GOAL := help

help:
	@echo "make quickstart  run the MountainCar experiment at its default size, from data to report"
	@echo "make venv        install everything that development needs into $(VENV)"
	@echo "make check       lint, types and the fast tests"
	@echo "make test        all of it, slow tests and notebooks included: what CI runs"
	@echo "make format      let ruff rewrite what it can"
	@echo "make docs        build the documentation into site/"
	@echo "make clean       remove caches and build products, not runs/ and not $(VENV)"

venv: $(TEST_STAMP)

$(BASE_STAMP): $(INSTALL_INPUTS)
	$(MAKE_VENV)
	$(PIP_INSTALL) -e .
	@touch $@

$(TEST_STAMP): $(INSTALL_INPUTS)
	$(MAKE_VENV)
	$(PIP_INSTALL) -e '.[test,half-cheetah]'
	@touch $(BASE_STAMP) $@

$(DOCS_STAMP): $(INSTALL_INPUTS)
	$(MAKE_VENV)
	$(PIP_INSTALL) -e '.[docs]'
	@touch $(BASE_STAMP) $@

quickstart: $(BASE_STAMP)
	$(BIN)/python -m experiments.run --config=configs/mountain_car.py --workdir=runs/mountain_car

lint: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TEST_STAMP)
	$(BIN)/mypy

check: lint types
	$(PYTEST) -m "not slow"

test: lint types
	PERSIM_NOTEBOOK_SIZE=smoke $(PYTEST) $(if $(NOTEBOOKS),--nbmake) tests $(NOTEBOOKS)

format: $(TEST_STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DOCS_STAMP)
	$(BIN)/mkdocs build --strict

clean:
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
