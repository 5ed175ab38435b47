# Every target creates .venv and installs on first use.
PYTHON ?= python3
BIN := .venv/bin
SET_UP := .venv/installed

.PHONY: demo test lint unit slurm-test fuzz fuzz-parser versions-test clean

demo: $(SET_UP)
	$(BIN)/python refine.py --config fast --output runs/demo --compare coffee

test: lint unit

lint: $(SET_UP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(SET_UP)
	$(BIN)/python -m pytest

# On a real Slurm, which it installs, starts and ends (Debian, as root); skipped with the reason where it cannot.
slurm-test: $(SET_UP)
	$(BIN)/python -m pytest -m slurm -rs tests/slurm

# Damaged and forged files of every codec, some minutes; FUZZ sets other numbers.
FUZZ ?= --damaged 100000 --forged 20000
fuzz: $(SET_UP)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.fuzz_files $(FUZZ)

# Guided by coverage, for FUZZ_SECONDS; atheris has wheels for Linux alone, so that it is no dependency.
FUZZ_SECONDS ?= 60
fuzz-parser: $(SET_UP)
	$(BIN)/python -m pip install --quiet "atheris>=2.3,<4"
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.fuzz_parser -max_total_time=$(FUZZ_SECONDS)

# In environments of their own, of some 6 GB each, which are removed; for a schedule, not for every change.
versions-test: $(SET_UP)
	$(BIN)/python tests/versions.py lowest
	$(BIN)/python tests/versions.py newest

$(SET_UP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv runs
