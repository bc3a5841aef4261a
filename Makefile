# Every task of toolkit, one target each; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin

.PHONY: help setup demo test check lint format unit test-docker test-databases test-e2e images bench schema clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: ## Install what is missing on this machine and start the Docker engine
	@tools/setup.sh

demo: setup ## The main job: deploy the quickstart, run 2,000 events, print the per-hop table
	@tools/demo.sh

test: ## Everything: checks, unit, integration and end to end; leaves nothing behind
	@tools/test.sh

check: test ## What CI runs

lint: ## Style, types, import rules, playbooks, scripts, images
	@tools/lint.sh

format: ## Rewrite the sources in the project's format
	@$(BIN)/ruff format toolkit tests && $(BIN)/ruff check --fix -q toolkit tests

unit: ## Tests that need no engine
	@$(BIN)/pytest tests/unit tests/contract -n 2

test-docker: ## Tests on real virtual nodes
	@$(BIN)/pytest tests/integration

test-databases: ## Local clouds and the Event Handler on MariaDB and PostgreSQL (installs both, and Debian's Python drivers)
	@YES=1 tools/setup.sh --tests && apt-get install -y -qq --no-install-recommends mariadb-server postgresql \
	  python3-pymysql python3-psycopg2 python3-sqlalchemy python3-httptools python3-uvloop python3-prometheus-client python3-cryptography >/dev/null
	@TOOLKIT_NODE_PYTHON=/usr/bin/python3 $(BIN)/pytest tests/contract/arrowhead -m databases

test-e2e: ## The README's story and the browser
	@$(BIN)/pytest tests/e2e

images: ## Build every image
	@$(BIN)/toolkit images build

bench: ## Benchmarks, each beside its yardstick in one run (tests/bench/README.md)
	@tests/bench/run.sh

schema: ## Write the JSON Schema of testbed files
	@$(BIN)/toolkit schema > docs/testbed.schema.json

clean: ## Remove the virtual environment and caches; testbeds stay (toolkit teardown removes those)
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
