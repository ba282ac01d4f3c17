# `make` shows what there is to make.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint format judge lock

PYTHON := .venv/bin/python

help: ## Show the targets.
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## Install what is missing: Debian packages (as root), .venv from the lock.
	@tools/setup.sh

demo: setup ## Show the main job: a snapshot of a live database, its backup and restore.
	@.venv/bin/ulvm demo

test: setup ## Run all tests. With CI=true nothing is skipped.
	$(PYTHON) -m pytest

lint: setup ## Formatting, lint and types.
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy

check: lint test ## Everything that must hold: lint, and all tests.

format: setup ## Format the code and fix what ruff can fix.
	.venv/bin/ruff format
	.venv/bin/ruff check --fix

judge: setup ## Only the tests against LVM2 and device-mapper of a real kernel.
	$(PYTHON) -m pytest tests/kernel

lock: ## Make requirements.lock anew from pyproject.toml (with pip-tools).
	CUSTOM_COMPILE_COMMAND="make lock" $(PYTHON) -m piptools compile --quiet --upgrade \
		--generate-hashes --extra dev --build-deps-for editable --allow-unsafe --strip-extras \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
		--output-file requirements.lock pyproject.toml
