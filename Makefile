# Thin names for commands that README shows in full. Everything runs from .venv, which is made when missing.
PYTHON ?= python3
VENV := .venv/bin

.PHONY: demo test test-slow lint bench

# Installed again when a requirements file changes.
.venv/installed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv .venv
	$(VENV)/python -m pip install --quiet --upgrade pip
	$(VENV)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

test: .venv/installed
	$(VENV)/python -m pytest -q

test-slow: .venv/installed
	$(VENV)/python -m pytest -q -m "slow"

lint: .venv/installed
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/pyright
