# `make` alone prints what there is. Settings: FLAVOUR=cuda|cpu|emulated, CONFIG=path/of/cluster.yaml.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CONFIG  ?= config/cluster.yaml
FLAVOUR ?=
ARGS    ?=
VENV    := .venv
HOST    := $(VENV)/bin/python -m host
PY      := $(VENV)/bin/python

##@ The cluster

.PHONY: up
up: $(VENV)/host ## Bring everything up: looks at this host, gets images, starts, asks a first question
	@$(HOST) up --config '$(CONFIG)' --flavour '$(FLAVOUR)'

.PHONY: down
down: $(VENV)/host ## Stop and remove everything; models and metrics are kept
	@$(HOST) down --config '$(CONFIG)'

.PHONY: clean
clean: $(VENV)/host ## As down, and remove models, caches and metrics too
	@$(HOST) clean --config '$(CONFIG)'

.PHONY: status
status: ## Which engines are up
	@docker compose ps --all --format 'table {{.Service}}\t{{.Status}}'

.PHONY: logs
logs: ## Follow the logs of every part (Ctrl-C ends it)
	@docker compose logs --follow --tail 20

##@ This host

.PHONY: doctor
doctor: $(VENV)/host ## Needed X, found Y: what this host has; changes nothing
	@$(HOST) doctor --config '$(CONFIG)' --flavour '$(FLAVOUR)'

.PHONY: docker
docker: $(VENV)/host ## Install Docker and Compose (Debian, Ubuntu, as root) and start the engine
	@$(HOST) docker

.PHONY: images
images: $(VENV)/host ## Build every image here from Debian packages and PyPI, where none can be pulled
	@$(HOST) images --config '$(CONFIG)' --flavour '$(FLAVOUR)'

##@ The configuration

.PHONY: check-config
check-config: $(VENV)/host ## Every problem of $(CONFIG), at once
	@$(PY) -m config check '$(CONFIG)'

.PHONY: key
key: $(VENV)/host ## Make an API key and print it once: NAME=alice [RPM=600] [IN_FLIGHT=8]
	@$(PY) -m config key --config '$(CONFIG)' $(if $(RPM),--requests-per-minute='$(RPM)') $(if $(IN_FLIGHT),--in-flight='$(IN_FLIGHT)') -- '$(NAME)'

.PHONY: keys
keys: $(VENV)/host ## The API keys by name, and their limits
	@$(PY) -m config keys --config '$(CONFIG)'

.PHONY: admin-key
admin-key: $(VENV)/host ## Print the key that changes of the running cluster want (docs/api.md)
	@$(HOST) admin-key

.PHONY: render
render: $(VENV)/host ## Write rendered/default (two GPUs) anew, for a plain `docker compose up`
	@$(PY) -m render --config '$(CONFIG)'

.PHONY: docs
docs: $(VENV)/host ## Write docs/configuration.md, the JSON Schema and the dashboards anew
	@$(PY) -m config reference > docs/configuration.md
	@$(PY) -m config schema > config/cluster.schema.json
	@$(PY) -m monitoring.grafana.build

##@ Proof

.PHONY: check
check: $(VENV)/test ## Lint, types, unit, golden and process tests without Docker or a GPU (under a minute)
	@tests/run check

.PHONY: test
test: $(VENV)/test ## Everything: check, then a real cluster with real vLLM on CPU, then the page in a browser
	@tests/run all

.PHONY: bench-gateway
bench-gateway: $(VENV)/test ## Other gateways beside this one, to docs/benchmarks.md: 2 hours (ARGS=--quick: 17 minutes)
	@out=build/bench/results/$$(date +%Y%m%d-%H%M%S); \
	tests/nginx/fetch build/nginx; \
	$(PY) -m bench --out "$$out" $(ARGS) && $(PY) -m bench.report "$$out"

##@ Working on ManyEyes

.PHONY: format
format: $(VENV)/test ## Format and sort imports
	@$(VENV)/bin/ruff format -q . && $(VENV)/bin/ruff check -q --fix .

.PHONY: golden
golden: $(VENV)/test ## Write tests/golden anew from config/examples
	@$(PY) -m tests.golden.make

.PHONY: lock
lock: $(VENV)/test ## Pin requirements/*.txt anew from pyproject.toml
	@requirements/lock

.PHONY: help
help: ## This
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

# Environments: made by the target that needs them, again when their pins change.
$(VENV)/host: requirements/host.txt
	@host/environment host
$(VENV)/test: requirements/test.txt
	@host/environment test
