# `make demo` shows the whole story; `make test` runs the tests. Both set up what they need in .venv.
# PYTHON=/path/to/python3.12 chooses the interpreter; the newest of 3.11 to 3.13 is taken otherwise.

PYTHON ?= $(firstword $(shell .ci/interpreters))
VENV ?= .venv
BIN = $(VENV)/bin
TESTS ?=

.PHONY: demo test lint clean

demo: $(VENV)/ready
	$(BIN)/upshim demo

test: $(VENV)/ready
	$(BIN)/python -m pytest -n 4 $(TESTS)

lint: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11, 3.12 or 3.13 found; name one with PYTHON=" >&2; exit 1; }
	@.ci/venv "$(PYTHON)" $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
