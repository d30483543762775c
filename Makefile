PYTHON ?= python3
BIN := .venv/bin
INPUT ?=

.PHONY: help demo test lint typecheck imports docs notebooks benchmark-small benchmark-small-refresh clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-24s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: .venv/ready  ## install everything and super-resolve two examples into demo/ (INPUT=path: your own scan)
	$(BIN)/python -m uhrct.cli.demo $(if $(INPUT),"$(INPUT)")

test: lint typecheck imports  ## install everything and run all checks and tests
	$(BIN)/python -m pytest --numprocesses auto

lint: .venv/ready  ## check style
	$(BIN)/ruff check src tests benchmarks scripts examples slicer notebooks
	$(BIN)/ruff format --check src tests benchmarks scripts examples slicer notebooks

typecheck: .venv/ready  ## check types
	$(BIN)/mypy

imports: .venv/ready  ## check that packages import only from lower levels
	$(BIN)/lint-imports --no-logo --no-cache

docs: .venv/ready  ## build the web site of the documentation into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open build/site/index.html"

notebooks: .venv/ready  ## execute the notebooks again
	$(BIN)/python scripts/notebooks.py

benchmark-small: .venv/ready  ## measure a few slices of ../shared/ct and compare with the committed numbers
	$(BIN)/python benchmarks/small.py

benchmark-small-refresh: .venv/ready  ## replace the committed numbers of benchmark-small by new ones
	$(BIN)/python benchmarks/small.py --refresh

clean:  ## remove .venv, demo/ and build/
	rm -rf .venv demo build
