# querylife. `make help` lists what there is to do. Every target sets up what it needs, and only once.

.DEFAULT_GOAL := help
.PHONY: help install format check test serve repository demo clean

PYTHON ?= python3.11
GRPC_PORT ?= 8001
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## the environment of the Triton side, in .venv

$(INSTALLED): requirements/triton.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements/triton.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

format: $(INSTALLED) ## rewrite the sources in house style
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

check: $(INSTALLED) ## ruff and mypy --strict
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

test: repository ## set everything up and pass the tests
	$(BIN)/pytest

repository: $(INSTALLED) ## export the towers and fill model_repository/ (CPU profile)
	$(BIN)/querylife-build repository

serve: repository ## Triton on GRPC_PORT, supervised, until Ctrl-C
	$(BIN)/querylife serve --grpc-port $(GRPC_PORT)
