# `make demo` and `make test` set up everything they need in .venv: Python 3.11 or later (with venv), git and make will do.

PYTHON ?= python3
WORKERS ?= 2

BIN := .venv/bin
INSTALLED := .venv/.installed
DEMO := build/demo
FIELD := $(BIN)/python -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])'
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile

export PYTHONUNBUFFERED := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo demo-deletion test test-slow wheel-check release-check lint bench clean

# The page below is made from nothing: a home left by an earlier demo would only be read back.
demo: $(INSTALLED)
	rm -rf $(DEMO)
	mkdir -p $(DEMO)
	$(BIN)/palimpsest compare split-mnist-5k ease simplecil finetune joint --preset quick --set joint.when=last \
		--seeds 3 --home $(DEMO)/home --out $(DEMO)/comparison.html
	@echo "Open $(CURDIR)/$(DEMO)/comparison.html in a browser."

# One (synthetic) person's images are deleted from an EASE run in a home of its own; the certificate lands in $(DEMO).
demo-deletion: $(INSTALLED)
	rm -rf $(DEMO)/deletion
	mkdir -p $(DEMO)
	$(BIN)/palimpsest run split-mnist-5k ease --preset quick --home $(DEMO)/deletion --json > $(DEMO)/run.json
	$(BIN)/palimpsest forget execute "$$($(FIELD) run < $(DEMO)/run.json)" --subject person-007 --reason demonstration \
		--yes --home $(DEMO)/deletion --json > $(DEMO)/deleted.json
	$(BIN)/palimpsest forget verify "$$($(FIELD) request < $(DEMO)/deleted.json)" --home $(DEMO)/deletion
	$(BIN)/palimpsest forget certify "$$($(FIELD) request < $(DEMO)/deleted.json)" --home $(DEMO)/deletion \
		--out $(DEMO)

test: lint
	$(PYTEST)

test-slow: $(INSTALLED)
	$(PYTEST) -m slow

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
