# Every command of the project. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SCRIPTS := service/dashboard/static/vendor/package-lock.json
VLLM_STAMP := .cache/vllm/.installed

# Containers often forbid Python to keep what it has compiled; then each of the many processes of the tests does it again.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install servers demo up production test test-seconds test-fast soak bench mutate lint format base openapi sdk clean

help: ## List the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(STAMP) $(SCRIPTS) ## Make .venv with everything that the project needs

$(STAMP): pyproject.toml clients/python/pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Luthier needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable '.[dev]' --editable clients/python
	touch $@

# The dashboard's scripts come from npm. Without them the pages say so, and the service works.
$(SCRIPTS): $(STAMP) service/dashboard/package-lock.json
	@$(BIN)/python -m service.dashboard.web.packages && touch $@ || echo 'make install: without the scripts of the dashboard'

servers: install $(VLLM_STAMP) ## Install what the tests start beside Python's packages: radosgw, Chromium and vLLM's environment
	@$(BIN)/python -m tests.servers.chat_templates || echo 'make servers: without real chat templates; tests say so'
	@$(BIN)/python -m tests.servers.frameworks || echo 'make servers: without frameworks that call the API; tests say so'
	@tests/servers/install_chromium.sh || echo 'make servers: without a browser; tests of pages will say so'
	@$(BIN)/python -m tests.servers.trl || echo 'make servers: without TRL, whose losses ours are compared with; tests say so'
	@tests/servers/install_radosgw.sh || echo 'make servers: without radosgw; tests that need it will say so'

# The plugin is a copy of this code, so it is installed again when that changes; seconds, once vLLM itself is there.
$(VLLM_STAMP): pyproject.toml $(shell find deploy/vllm service workers -type f -not -name '*.pyc')
	@if [ -n "$$LUTHIER_VLLM_PYTHON" ]; then echo "make servers: vLLM is in $$LUTHIER_VLLM_PYTHON"; \
	elif PYTHON=$(PYTHON) deploy/vllm/install_cpu.sh; then touch $@; \
	else echo 'make servers: without vLLM; tests that need it will say so'; fi

BASE := smollm2-135m
demo: install ## From a file to a tuned answer, through the official openai SDK; make demo BASE=luthier-tiny is the quick one
	$(BIN)/python examples/demo/demo.py --base $(BASE)

up: install ## Serve until Ctrl-C: API, worker and engine on embedded defaults
	@exec $(BIN)/luthierd up

ENGINE ?= vllm
production: servers ## The production set on this machine until Ctrl-C: Postgres, Valkey, S3, API, two workers, vLLM
	@exec $(BIN)/python -m tests.production --engine $(ENGINE)

PROCESSES ?= 3
test: servers ## Every test
	$(BIN)/python -m pytest -n $(PROCESSES) --max-worker-restart 0

test-seconds: servers ## Every test, and how long each file took goes into tests/seconds.toml, by which they are shared out
	$(BIN)/python -m pytest -n $(PROCESSES) --max-worker-restart 0 --record-seconds

test-fast: install ## The tests without real servers or long training
	$(BIN)/python -m pytest -n 2 -m 'not slow'

ROUNDS ?= 20
JOBS ?= 200
soak: servers ## Break the production set again and again and count: make soak ROUNDS=20 JOBS=200
	$(BIN)/python -m tests.faults.soak --rounds $(ROUNDS) --jobs $(JOBS)

bench: servers ## Measure all that docs/performance.md names, about forty minutes on a quiet machine; continues; ALL=1 begins again
	$(BIN)/python -m benchmarks.run $(if $(ALL),--all)

mutate: servers ## Break the product on purpose and show that the tests notice; continues where it was stopped; ALL=1 begins again
	$(BIN)/python -m tests.mutations.mutate $(if $(ALL),--all)

lint: install ## ruff, mypy strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## Put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

TEXT ?= ../shared/data/books
base: install ## Remake the bundled base from a folder of .txt files: make base TEXT=folder
	$(BIN)/python -m workers.toy_base.make_base --text $(TEXT) --out workers/toy_base/luthier-tiny

openapi: install ## Rewrite openapi/openapi.json from the routes
	$(BIN)/luthierd openapi openapi/openapi.json

sdk: install ## Rewrite the generated part of clients/python from openapi/openapi.json
	$(BIN)/python -m clients.python.make_sdk

clean: ## Remove what can be remade
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .cache
