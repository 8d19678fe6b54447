# make compare and make test each work as the first command after a clone.

PYTHONS = python3.14 python3.13 python3.12 python3.11 python3
VENV = .venv
BIN = $(VENV)/bin
INSTALL = -m pip install --quiet --disable-pip-version-check
PIP = $(BIN)/python $(INSTALL) --constraint constraints.txt
LATEST = .venv-latest

# Else each of many processes compiles torch anew, where the environment forbids to keep bytecode.
test quick sweep attack ports course latest: export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL = help
.PHONY: help compare test quick sweep attack ports course latest docs lint format clean

help:  ## what there is
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

compare: $(VENV)/.run  ## the four tables, written to results/
	@$(BIN)/gradtwin

test: $(VENV)/.test  ## the test suite
	@$(BIN)/python -m pytest -n auto --dist worksteal

quick: $(VENV)/.test  ## most laws of the rules and some tests of check
	@$(BIN)/python -m pytest -n auto --dist worksteal tests/test_laws.py tests/comparisons/check \
	    -k 'not (noise or mistake or alarm or cause or draws or be_wrong)'

sweep: $(VENV)/.test  ## what is dear, on all rows, under every kernel that the processor has
	@$(BIN)/python tests/sweep.py

attack: $(VENV)/.test  ## readers, writers and commands before damaged files and strange words
	@$(BIN)/python -m pytest -n auto --dist worksteal --sweep tests/attack

ports: $(VENV)/.ports  ## ports of models of transformers; and of timm, where that is installed
	@$(BIN)/python -m pytest -n auto --dist worksteal tests/comparisons/check/test_ports_*.py

course: $(VENV)/.test  ## the course: solutions are right, exercises open, wrong solutions found
	@$(BIN)/python -m pytest -n auto --dist worksteal --sweep tests/examples/test_course.py

latest: $(LATEST)/bin/python  ## the test suite with the newest of all packages
	@echo "installing the newest packages into $(LATEST)"
	@$(LATEST)/bin/python $(INSTALL) --upgrade --upgrade-strategy eager torch --editable '.[test]'
	@$(LATEST)/bin/python -m pytest -n auto --dist worksteal

docs: $(VENV)/.docs  ## the site, in build/docs/
	@$(BIN)/python -m sphinx --quiet --fresh-env --fail-on-warning --keep-going docs build/docs
	@echo "made build/docs/index.html"

lint: $(VENV)/.lint  ## ruff, and mypy on what is installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@rm -rf build && $(PIP) --no-deps --target build/installed .
	@cd build && MYPYPATH=installed ../$(BIN)/mypy --config-file ../pyproject.toml

format: $(VENV)/.lint  ## ruff, with its own hands
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## all that was made
	@rm -rf $(VENV) $(LATEST) build docs/tour results *.egg-info

# The newest Python that runs, is at least 3.11 and can make an environment.
$(VENV)/bin/python:
	@for python in $(PYTHONS); do \
	    if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	    then echo "making $(VENV) with $$($$python --version)"; exec $$python -m venv $(VENV); fi; \
	done; \
	echo "wanted Python 3.11 or newer with venv; tried $(PYTHONS)" >&2; exit 1

$(VENV)/.run: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing (once; torch is large)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	@$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/.ports: $(VENV)/.test
	@$(PIP) --editable '.[test,transformers]'
	@touch $@

$(VENV)/.docs: $(VENV)/.run
	@$(PIP) --editable '.[docs]'
	@touch $@

$(VENV)/.lint: $(VENV)/.run
	@$(PIP) --editable '.[lint]'
	@touch $@

$(LATEST)/bin/python: $(VENV)/bin/python
	@$(BIN)/python -m venv $(LATEST)
