# make setup · run · suite · gpu · figures · report · test · test-all · lint · docs     (ARGS="…" goes to the command)
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
ARGS ?=
APT := apt-get -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=20

.PHONY: help setup run suite gpu gpu-wheels figures report test test-all test-lowest test-cluster lint docs packages-drawing lock clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# The lock pins every package; an interrupted setup leaves no stamp and starts again.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"lumos: Python {v[0]}.{v[1]}; 3.11 or newer is needed (make PYTHON=python3.12 …)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode -r requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps -e .
	@touch $@

setup: $(STAMP)  ## make .venv with everything that is needed

run: $(STAMP)  ## the main job: CFD, dense and gated
	$(BIN)/python run.py workload=cfd lumos.lambda=1e-3 $(ARGS)

suite: $(STAMP)  ## all workloads, dense and LUMOS, at scale=small; goes on where it was stopped
	$(BIN)/python -m lumos suite $(ARGS)

gpu: $(STAMP)  ## all that one GPU can show in nine minutes: thirteen workloads at paper widths; goes on where it was stopped
	$(BIN)/python scripts/gpu_suite.py $(ARGS)

gpu-wheels: $(STAMP)  ## build/gpu-wheels: the packages that a machine with torch and without network lacks for `make gpu`
	$(BIN)/python scripts/gpu_suite.py --wheels $(ARGS)

figures: $(STAMP)  ## every table and figure of the evaluation, from the records alone
	$(BIN)/python -m lumos figures $(ARGS)

report: $(STAMP)  ## results/report.html: tables, figures and records on one page
	$(BIN)/python -m lumos report $(ARGS)

test: $(STAMP)  ## the tests, without the slow ones
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(ARGS)

test-all: $(STAMP)  ## all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-cluster: $(STAMP)  ## sweeps, DDP, requeue and a dead node on a two-node Slurm, started and stopped here
	@PATH="$$PATH:/usr/sbin"; command -v slurmctld >/dev/null && command -v munged >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && timeout 300 bash -c '$(APT) update >/dev/null && \
	    DEBIAN_FRONTEND=noninteractive $(APT) install -y --no-install-recommends slurm-wlm munge >/dev/null'; } || \
	  echo "slurm-wlm and munge cannot be installed here; the tests will be skipped"
	LUMOS_CLUSTER_TESTS=1 $(BIN)/python -m pytest tests/cluster $(ARGS)

# Two environments, of which torch and its CUDA libraries take about 5 GB each.
LOWEST := .venv-lowest
test-lowest: $(STAMP)  ## tests with the lowest versions that pyproject.toml allows: the engine alone, then the suite
	for part in engine suite; do \
	  $(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)/$$part && \
	  VIRTUAL_ENV=$(LOWEST)/$$part $(BIN)/uv pip install --quiet -r requirements-lowest-$$part.lock || exit 1; \
	done
	$(LOWEST)/engine/bin/python -m pytest -m "not slow" tests/tracing tests/gating tests/compaction tests/pruning $(ARGS)
	$(LOWEST)/suite/bin/python -m pytest -m "not slow" tests/suite tests/run tests/workloads tests/exporting $(ARGS)

lint: $(STAMP)  ## ruff, the direction of imports, pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

docs: $(STAMP)  ## the documentation as a site, in build/site; what is made from conf/ and the code is made anew
	$(BIN)/python scripts/config_docs.py
	$(BIN)/python scripts/draw_packages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet $(ARGS)

packages-drawing: $(STAMP)  ## docs/figures/packages.svg: the packages of lumos and which imports which
	$(BIN)/python scripts/draw_packages.py

COMPILE := $(BIN)/uv pip compile pyproject.toml --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-header --upgrade --quiet

lock: $(STAMP)  ## pin the newest allowed versions in requirements.lock, the lowest in requirements-lowest-*.lock
	$(COMPILE) --extra dev --universal -o requirements.lock
	$(COMPILE) --group engine-tests --resolution lowest-direct -o requirements-lowest-engine.lock
	$(COMPILE) --group suite-tests --extra all --resolution lowest-direct -o requirements-lowest-suite.lock

clean:  ## remove the environment; data and results stay
	rm -rf $(VENV) $(LOWEST) build dist *.egg-info
