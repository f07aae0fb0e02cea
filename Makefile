# Two commands do everything: `make demo` and `make test`. Each sets up .venv first when it is missing or stale.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test smoke parity lint licences bench clean
setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/fuseloop demo --out outputs/demo

# A worker for each core, of one thread each: the tests are too small for more, and threads that wait slow the others.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile

# Some real pairs of every folder of FUSELOOP_DATA, by the real command; says so and does nothing when it is not set.
smoke: setup
	$(BIN)/python tools/smoke.py

# Against the golden values in FUSELOOP_FIXTURES where it is set, else against those that are committed.
parity: setup
	$(BIN)/python tools/parity.py $(if $(FUSELOOP_FIXTURES),$(FUSELOOP_FIXTURES)/networks,tests/oracles/networks)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

licences: setup
	$(BIN)/python tools/licences.py

# make bench runs every benchmark, make bench ONLY=fuse one of them.
bench: setup
	$(BIN)/python -m benchmarks $(ONLY)

clean:
	rm -rf .venv outputs .pytest_cache .mypy_cache .ruff_cache
