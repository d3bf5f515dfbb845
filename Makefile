# Each target is one line over the package; `make study` and `make test` build .venv themselves.
PYTHON ?= python3
# e.g. --allow-weak-sandbox, where the command asks for it
RUN_FLAGS ?=
VENV_PYTHON := .venv/bin/python
SMOKE := tests/lessons/test_smoke.py

.PHONY: setup study test test-units test-notebooks test-long test-all lab docs bench clean
.NOTPARALLEL:

study: setup ; $(VENV_PYTHON) -m plum_utils run params/mini.yaml $(RUN_FLAGS)

lab: setup ; $(VENV_PYTHON) -m plum_utils lab

docs: setup ; $(VENV_PYTHON) -m docs.site.build

# At most ten minutes on two cores: two processes, then the six notebooks alone, whose model takes both cores.
test: test-units test-notebooks

test-units: setup ; $(VENV_PYTHON) -m pytest -m "not long" -n 2 --ignore $(SMOKE)

test-notebooks: setup ; $(VENV_PYTHON) -m pytest $(SMOKE)

# What is marked long, by the rule in tests/durations.py.
test-long: setup ; $(VENV_PYTHON) -m pytest -m long

test-all: test test-long

setup: ; @$(PYTHON) setup_env.py

# Needs bubblewrap, and HUMANEVAL_OVERRIDE_PATH for evalplus' part; some minutes on an idle machine.
bench: setup
	$(VENV_PYTHON) benchmarks/sandbox.py --out benchmarks/results/sandbox.json
	$(VENV_PYTHON) benchmarks/static_checks.py --out benchmarks/results/static_checks.json
	$(VENV_PYTHON) benchmarks/hostile_peers.py --out benchmarks/results/hostile.json
	$(VENV_PYTHON) benchmarks/tables.py

clean: ; rm -rf .venv .pytest_cache .mypy_cache .hypothesis *.egg-info
