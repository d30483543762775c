# make demo   sets everything up and super-resolves real slices into demo/   (INPUT=path for your own scan)
# make test   sets everything up and runs lint, type check and tests
# make benchmark-small   measures a few slices of ../shared/ct again and says where the committed numbers disagree
# make benchmark-small-refresh   puts what is measured now in their place
PYTHON ?= python3
BIN := .venv/bin
INPUT ?=

.PHONY: demo test benchmark-small benchmark-small-refresh lint typecheck clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: .venv/ready
	$(BIN)/python -m uhrct.cli.demo $(if $(INPUT),"$(INPUT)")

test: lint typecheck
	$(BIN)/python -m pytest

benchmark-small: .venv/ready
	$(BIN)/python benchmarks/small.py

benchmark-small-refresh: .venv/ready
	$(BIN)/python benchmarks/small.py --refresh

lint: .venv/ready
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks

typecheck: .venv/ready
	$(BIN)/mypy

clean:
	rm -rf .venv demo
