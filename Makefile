# `make demo` and `make test` set up everything they need in .venv: Python 3.11 or later (with venv), git and make will do.

PYTHON ?= python3
WORKERS ?= 2

BIN := .venv/bin
INSTALLED := .venv/.installed
DEMO := build/demo
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile

export PYTHONUNBUFFERED := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-slow matrix wheel-check release-check lint bench clean

# The page below is made from nothing: a home left by an earlier demo would only be read back.
demo: $(INSTALLED)
	rm -rf $(DEMO)
	mkdir -p $(DEMO)
	$(BIN)/python -m tests.demo $(DEMO)
	@echo "Open $(CURDIR)/$(DEMO)/comparison.html in a browser; it links the deletion's certificate."

test: lint
	$(PYTEST)

test-slow: $(INSTALLED)
	$(PYTEST) -m slow

# Every strategy against every kind of deletion, each beside a folder that never had the data.
matrix: $(INSTALLED)
	$(PYTEST) -m slow tests/redteam/test_matrix.py

# The wheel as others get it: without the checkout; release-check also without anything installed before.
wheel-check: $(INSTALLED)
	tests/wheel_check.sh $(BIN)/python

release-check: $(INSTALLED)
	tests/wheel_check.sh $(BIN)/python --empty

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Alone and one after the other: timings must not disturb each other.
bench: $(INSTALLED)
	@set -e; for script in $(sort $(wildcard tests/benchmarks/[a-z]*.py)); do \
		echo "== $$script"; $(BIN)/python $$script; \
	done

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable '.[test]'
	@touch $@

# .venv stays, because it is slow to make again; `rm -rf .venv` removes it.
clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
