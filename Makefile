# Two commands do everything: `make demo` and `make test`. Each sets up .venv first when it is missing or stale.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test lint bench docs clean
setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/fuseloop demo --out outputs/demo

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# make bench runs every benchmark, make bench ONLY=fuse one of them.
bench: setup
	$(BIN)/python -m benchmarks $(ONLY)

clean:
	rm -rf .venv outputs .pytest_cache .mypy_cache .ruff_cache
