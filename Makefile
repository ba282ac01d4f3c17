# `make` shows what there is to make.
.DEFAULT_GOAL := help
.PHONY: help setup demo man test check lint format judge crash fuzz stress bench lock

PYTHON := .venv/bin/python

help: ## Show the targets.
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## Install what is missing: Debian packages (as root), .venv from the lock.
	@tools/setup.sh

demo: setup ## Show the main job: a snapshot of a live database, its backup and restore.
	@.venv/bin/ulvm demo

man: setup ## Make manual pages and completion in build/installed, as the package has them.
	$(PYTHON) -m ulvm.cli.installed build/installed

test: setup ## Run all tests. With CI=true nothing is skipped.
	$(PYTHON) tools/test.py

lint: setup ## Formatting, lint and types.
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy

check: lint test ## Everything that must hold: lint, and all tests.

format: setup ## Format the code and fix what ruff can fix.
	.venv/bin/ruff format
	.venv/bin/ruff check --fix

# Proofs: short as in `make test`; with LONG=1 for a night; SEED=n repeats a run.
PROOF = $(if $(LONG),ULVM_LONG=1) $(if $(SEED),ULVM_SEED=$(SEED)) \
	$(PYTHON) -m pytest $(if $(LONG),-o timeout=0)

judge: setup ## Beside a real kernel's device-mapper and LVM2. LONG=1: for a night; SEED=n: again.
	$(PROOF) tests/kernel

crash: setup ## Power cuts, kill -9 and failing disks. LONG=1, SEED=n.
	$(PROOF) tests/crash

fuzz: setup ## Hostile input. LONG=1, SEED=n.
	$(PROOF) tests/fuzz

stress: setup ## Many clients at once; file systems above. LONG=1, SEED=n.
	$(PROOF) tests/stress

# ROWS='first-*' picks rows; what else there is to say goes into BENCH: see python -m bench --help.
bench: setup ## Measure ulvm beside its peers, in build/bench.json. QUICK=1: a few rows, soon done.
	$(PYTHON) -m bench $(if $(QUICK),--quick) $(if $(ROWS),--rows '$(ROWS)') $(BENCH)

lock: ## Make requirements.lock anew from pyproject.toml (with pip-tools).
	CUSTOM_COMPILE_COMMAND="make lock" $(PYTHON) -m piptools compile --quiet --upgrade \
		--generate-hashes --extra dev --build-deps-for editable --allow-unsafe --strip-extras \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
		--output-file requirements.lock pyproject.toml
