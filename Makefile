# Each target is one line over the package; `make study` and `make test` build .venv themselves.
PYTHON ?= python3
VENV_PYTHON := .venv/bin/python

.PHONY: setup study test clean

study: setup ; $(VENV_PYTHON) -m plum_utils run params/mini.yaml

test: setup ; $(VENV_PYTHON) -m pytest

setup: ; @$(PYTHON) setup_env.py

clean: ; rm -rf .venv .pytest_cache .mypy_cache .hypothesis *.egg-info
