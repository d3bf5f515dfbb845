# Each target is one line over the package; `make study` and `make test` build .venv themselves.
PYTHON ?= python3
# e.g. --allow-weak-sandbox, where the command asks for it
RUN_FLAGS ?=
VENV_PYTHON := .venv/bin/python

.PHONY: setup study test lab docs bench clean

study: setup ; $(VENV_PYTHON) -m plum_utils run params/mini.yaml $(RUN_FLAGS)

lab: setup ; $(VENV_PYTHON) -m plum_utils lab

docs: setup ; $(VENV_PYTHON) -m plum_utils.site

test: setup ; $(VENV_PYTHON) -m pytest

setup: ; @$(PYTHON) setup_env.py

# Needs bubblewrap, and HUMANEVAL_OVERRIDE_PATH for evalplus' part; some minutes on an idle machine.
bench: setup
	$(VENV_PYTHON) benchmarks/sandbox.py --out benchmarks/results/sandbox.json
	$(VENV_PYTHON) benchmarks/static_checks.py --out benchmarks/results/static_checks.json
	$(VENV_PYTHON) benchmarks/hostile_peers.py --out benchmarks/results/hostile.json
	$(VENV_PYTHON) benchmarks/tables.py

clean: ; rm -rf .venv .pytest_cache .mypy_cache .hypothesis *.egg-info
