# SPDX-License-Identifier: GPL-3.0-or-later
# Everything a person or a build machine runs. `make help` lists it.

PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3.13 python3 2>/dev/null) python3)
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.bitcourt-runtime
DEV := $(VENV)/.bitcourt-dev
TOOLS := .toolchain/bin
WORKERS ?= 2
BROWNIE_TEST := $(BIN)/brownie test --network anvil
PIP := $(BIN)/pip install --disable-pip-version-check -qq

# brownie finds anvil on PATH.
export PATH := $(CURDIR)/$(TOOLS):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench fuzz exhaustive analyse prove mutate contracts snapshot brownie clean toolchain

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(RUNTIME) ## train a digits classifier through the protocol, honestly and with a cheater
	@$(BIN)/bitcourt demo

test: $(DEV) toolchain ## check the compiled contracts, run brownie's tests, then all others
	@$(BIN)/python -m scripts.compile_contracts --check
	@$(BROWNIE_TEST)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

brownie: $(DEV) toolchain ## run the contract tests under brownie
	@$(BROWNIE_TEST)

lint: $(DEV) toolchain ## ruff, mypy --strict, and solc with warnings as errors
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m scripts.compile_contracts --check

format: $(DEV) ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

bench: $(DEV) toolchain ## measure kernels, gas and whole tasks
	@$(BIN)/python -m bench

fuzz: $(DEV) toolchain ## a million vectors of each arithmetic primitive, and many more examples of each property
	@$(BIN)/python -m tests.fuzz_float32 --count 1000000
	@HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -m hypothesis -n $(WORKERS) --dist loadfile

exhaustive: $(DEV) toolchain ## all 2^32 operands of each primitive that has one, through the compiled kernels
	@$(BIN)/python -m tests.exhaustive_float32

analyse: $(DEV) toolchain ## run Slither over the contracts; each finding is answered in docs/
	@$(BIN)/python -m scripts.analyse

prove: $(DEV) toolchain ## prove the theorems of tests/proofs/ with halmos
	@$(BIN)/python -m scripts.prove

mutate: $(DEV) toolchain ## change each comparison and guard of the contracts: a test must notice
	@$(BIN)/python -m scripts.mutate

contracts: $(DEV) toolchain ## recompile the contracts that ship with the package
	@$(BIN)/python -m scripts.compile_contracts

snapshot: $(DEV) toolchain ## measure gas again and rewrite tests/snapshots/gas.json
	@$(BIN)/python -m pytest -m gas --update-snapshots

toolchain: $(DEV)
	@$(BIN)/python -m scripts.toolchain

clean: ## remove what these targets made, the environment included
	rm -rf $(VENV) .toolchain build reports *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One pip call each: brownie's exact pins cannot be met afterwards. The developers' environment is
# also good for the demo, so the runtime stamp follows it.
$(RUNTIME): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if [ ! -e $(DEV) ]; then echo "installing bitcourt"; $(PIP) -e .; else $(PIP) -e '.[dev]'; touch $(DEV); fi
	@touch $@

$(DEV): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing bitcourt and its developers' tools"
	@$(PIP) -e '.[dev]'
	@touch $@ $(RUNTIME)
