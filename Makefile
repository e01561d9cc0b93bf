# Works on a machine with Python 3.11 and make, nothing else. `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
# The first of these that is there and new enough.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo "$$python" && break; done)
IN_VENV := $(VENV)/bin/
PIP := $(IN_VENV)python -m pip --disable-pip-version-check -qq
# A stamp a set of packages: nothing is installed again until one of these files changes.
REQUIREMENTS := pyproject.toml constraints.txt hatch_build.py $(wildcard nemotron_voice/model/*.c)
STAMPS := $(VENV)/.stamps
SUMMARY := --durations=5
# Many tests wait for real time. In the order of files: by default those with the fewest tests, which
# have the longest ones, come last, and one worker has nothing to do.
SIDE_BY_SIDE := -n 2 --dist loadfile --no-loadscope-reorder
OLDEST := $(VENV)/oldest
SYNTHESIS := $(VENV)/synthesis

export PYTHONUNBUFFERED := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: finetune-demo help demo test test-reference test-server test-oldest test-cluster test-slow lint format wheel constraints clean

help: ## what make can do
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

demo: $(STAMPS)/pipecat ## a Pipecat bot answers recorded calls that change language
	@$(IN_VENV)python examples/agents/pipecat_multilingual.py --offline $(ARGS)

test: $(STAMPS)/dev lint ## lint, types, unit and end-to-end tests: minutes
	@$(IN_VENV)python -m pytest $(SUMMARY) $(SIDE_BY_SIDE) -m "not reference and not slow and not cluster and not server"

test-server: $(STAMPS)/dev ## unmodified clients, bad clients, a bad network, a page in Chromium
	@$(IN_VENV)python -m pytest $(SUMMARY) $(SIDE_BY_SIDE) -m "server and not slow"

test-reference: $(STAMPS)/reference ## parity with NeMo 3.0.0 and Transformers 5.23
	@$(IN_VENV)python -m pytest $(SUMMARY) -m "reference and not slow"

test-oldest: $(STAMPS)/oldest ## the adapters with the oldest Pipecat and LiveKit that the extras allow
	@$(OLDEST)/bin/python -m pytest $(SUMMARY) -p no:cacheprovider tests/pipecat tests/livekit

test-cluster: $(STAMPS)/cluster ## Ray Serve and Ray Data, on this machine
	@$(IN_VENV)python -m pytest $(SUMMARY) -m "cluster and not slow"

test-slow: $(STAMPS)/dev ## soak tests
	@$(IN_VENV)python -m pytest $(SUMMARY) -m slow

lint: $(STAMPS)/dev ## ruff and mypy
	@$(IN_VENV)ruff check .
	@$(IN_VENV)ruff format --check .
	@$(IN_VENV)mypy
	@MYPYPATH=examples/agents $(IN_VENV)mypy examples/agents/*.py
	@MYPYPATH=plugin $(IN_VENV)mypy --explicit-package-bases plugin/livekit/plugins/nemotron/__init__.py

format: $(STAMPS)/dev ## put the code in form
	@$(IN_VENV)ruff format .
	@$(IN_VENV)ruff check --fix .

finetune-demo: $(STAMPS)/reference $(STAMPS)/synthesis ## teach the bundled checkpoint Hindi, and dishes: hours
	@$(IN_VENV)python -m training.finetune_demo --synthesis-python $(SYNTHESIS)/bin/python

wheel: $(STAMPS)/dev ## dist/*.whl and dist/*.tar.gz
	@$(IN_VENV)python -m build --outdir dist .

constraints: $(VENV)/bin/python ## resolve constraints.txt anew
	@$(PIP) install --dry-run --ignore-installed --report $(VENV)/report.json \
		torch==2.13.0 -e ".[dev,pipecat,livekit,remote,server,cluster,reference,peers]"
	@$(IN_VENV)python scripts/constraints.py $(VENV)/report.json constraints.txt

clean: ## remove what make made
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; none was found" >&2; exit 1; }
	@echo "making $(VENV) with $(PYTHON)" >&2
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS)

$(STAMPS)/core: $(VENV)/bin/python $(REQUIREMENTS)
	@echo "installing nemotron-voice (the first time: torch, about a minute)" >&2
	@$(PIP) install -c constraints.txt -e .
	@mkdir -p $(@D) && touch $@

$(STAMPS)/pipecat: $(STAMPS)/core
	@echo "installing Pipecat" >&2
	@$(PIP) install -c constraints.txt -e ".[pipecat]"
	@touch $@

$(STAMPS)/dev: $(STAMPS)/pipecat
	@echo "installing what the tests need" >&2
	@$(PIP) install -c constraints.txt -e ".[dev,livekit]"
	@touch $@

# Only what differs is installed; everything else is the other environment's.
$(STAMPS)/oldest: $(STAMPS)/dev constraints-oldest.txt
	@echo "installing the oldest Pipecat and LiveKit" >&2
	@rm -rf $(OLDEST) && $(PYTHON) -m venv $(OLDEST)
	@$(OLDEST)/bin/python -m pip --disable-pip-version-check -qq install -r constraints-oldest.txt
	@$(IN_VENV)python -c 'import os, sysconfig; print(sysconfig.get_path("purelib"), os.path.abspath("."), os.path.abspath("plugin"), sep="\n")' \
		> "$$($(OLDEST)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz_newest.pth"
	@touch $@

$(STAMPS)/synthesis: $(VENV)/bin/python training/requirements-synthesis.txt
	@echo "installing the synthesis" >&2
	@rm -rf $(SYNTHESIS) && $(PYTHON) -m venv $(SYNTHESIS)
	@$(SYNTHESIS)/bin/python -m pip --disable-pip-version-check -qq install -r training/requirements-synthesis.txt
	@touch $@

$(STAMPS)/cluster: $(STAMPS)/dev
	@echo "installing Ray" >&2
	@$(PIP) install -c constraints.txt -e ".[cluster]"
	@touch $@

$(STAMPS)/reference: $(STAMPS)/dev
	@echo "installing NeMo and Transformers (the first time: about two minutes)" >&2
	@$(PIP) install -c constraints.txt -e ".[reference]"
	@touch $@
