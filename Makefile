# Two commands do all the set-up on a fresh machine: `make demo` and `make test`. Both build on `make setup`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: setup demo test lint docs bench clean

setup: $(VENV)/.ready

# albumentations wants opencv-python-headless and ultralytics opencv-python: one package folder, two wheels. The headless
# one is laid last, because the other needs a desktop's libGL, which servers do not have.
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[yolo,dicom,study,dev]"
	$(BIN)/pip install --quiet --force-reinstall --no-deps opencv-python-headless
	touch $@

demo: setup
	$(BIN)/tigergen demo --out $(DEMO)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered

docs: setup
	$(BIN)/python docs/generate.py

bench: setup
	@for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage
