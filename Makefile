# The two commands of the README are `make demo` and `make test`; both set up .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: setup demo test test-slow bench clients reference lint format types check clean help

help:
	@echo "make demo       real SGLang servers on this machine: stock against bros, a table and a picture"
	@echo "make test       the test suite (real engine and server on the CPU)"
	@echo "make lint types what continuous integration checks besides"
	@echo "make test-slow  tests that take minutes;  make bench  measurements"
	@echo "make clients    openai, bench_serving, aiperf and guidellm against a live server"
	@echo "make reference  docs/settings.md and docs/metrics.md from the code"

# The pinned CPU set: no CUDA packages, nothing from a model hub. SGLang comes last, without its dependencies.
$(READY): requirements/cpu.txt requirements/cpu-constraints.txt requirements/sglang.txt requirements/dev.txt pyproject.toml build_backend/backend.py build_backend/bros_sglang_launch.pth
	@test -x $(PY) || { echo "Creating $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@$(PY) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or later is needed: make PYTHON=python3.11 ..."'
	@echo "Installing the pinned CPU packages (2 to 4 minutes, 3 GB, once)"
	@$(PY) -m pip install -q --disable-pip-version-check -c requirements/cpu-constraints.txt -r requirements/cpu.txt -r requirements/dev.txt
	@$(PY) -m pip install -q --disable-pip-version-check --no-deps -r requirements/sglang.txt
	@$(PY) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: $(READY)

demo: $(READY)
	@$(VENV)/bin/bros demo

test: $(READY)
	@$(PY) -m pytest

test-slow: $(READY)
	@$(PY) -m pytest -m slow

bench: $(READY)
	@$(PY) -m pytest -m bench -s

# Load generators that nobody here wrote, each in a venv of its own, against a live server on the CPU.
clients: $(READY)
	@$(PY) -m bros_sglang.evals.clients --out evals/results/clients

reference: $(READY)
	@$(PY) -W ignore -m bros_sglang.reference docs

lint: $(READY)
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

format: $(READY)
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

types: $(READY)
	@$(VENV)/bin/mypy

check: lint types test

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
