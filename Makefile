# make quickstart   train with reinforcement learning on the embedded data, evaluate, write a report
# make test         the tests
# make lint         style and types
# make docs         the API reference, build/docs/index.html
# Each target makes .venv and installs what it needs. Another interpreter: make PYTHON=python3.12 test

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

.PHONY: quickstart test lint docs format clean
.DEFAULT_GOAL := quickstart

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "moonseg needs Python 3.11 or newer; name one: make PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/installed

quickstart: $(VENV)/installed
	$(VENV)/bin/moonseg quickstart $(ARGS)

# Two workers: each compiles its own JAX programs, so more would need memory rather than save time.
test: $(VENV)/installed-test
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q $(ARGS)

lint: $(VENV)/installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(VENV)/installed-test
	$(VENV)/bin/python docs/reference.py build/docs

format: $(VENV)/installed-test
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info
