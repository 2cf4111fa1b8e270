# `make` prints the targets. They call `.venv/bin/manyeyes`, which has more commands: `.venv/bin/manyeyes --help`.
# Settings: FLAVOUR=cuda|cpu|emulated, CONFIG=path/of/cluster.yaml.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CONFIG  ?= config/cluster.yaml
FLAVOUR ?=
POOL    ?=
IMAGE   ?=
ARGS    ?=
VENV    := .venv
upper    = $(shell echo $(1) | tr a-z A-Z)
# --users='20' if USERS is set. Keys are not passed like this, because a process list would show them.
given    = $(if $($(call upper,$(1))),--$(subst _,-,$(1))='$($(call upper,$(1)))')
MANYEYES := MANYEYES_CALLED_BY_MAKE=1 $(VENV)/bin/python -m manyeyes.cli
cluster   = --config '$(CONFIG)' $(call given,flavour)
export KEY

##@ The cluster

.PHONY: up
up: $(VENV)/host ## Start the cluster: check this host, get images, start containers, send a first request
	@$(MANYEYES) up $(cluster)

.PHONY: down
down: $(VENV)/host ## Stop and remove all containers; models and metrics are not deleted
	@$(MANYEYES) down --config '$(CONFIG)'

.PHONY: clean
clean: $(VENV)/host ## Same as down, and also delete models, caches and metrics
	@$(MANYEYES) clean --config '$(CONFIG)'

.PHONY: status
status: $(VENV)/host ## Show users, pools, engines, alerts and events: [WATCH=1 CONTROLLER=URL PROMETHEUS=URL]
	@$(MANYEYES) status --config '$(CONFIG)' $(if $(WATCH),--watch) $(call given,controller) $(call given,prometheus)

.PHONY: logs
logs: $(VENV)/host ## Show the logs of all parts: [PART=gateway SINCE=10m LEVEL=warning RAW=1 FOLLOW=no], or trace one request: REQUEST=id
	@$(MANYEYES) logs --config '$(CONFIG)' $(foreach option,part since level request,$(call given,$(option))) $(if $(RAW),--raw) $(if $(filter no 0 false,$(FOLLOW)),--no-follow)

.PHONY: scale
scale: $(VENV)/host ## Set the number of running engines: N=2 [POOL=qwen3-vl-8b]; N=auto lets the load decide
	@$(MANYEYES) scale --config '$(CONFIG)' $(call given,pool) -- '$(N)'

.PHONY: restart-rolling
restart-rolling: $(VENV)/host ## Restart engines one after the other, without lost requests: [POOL=]
	@$(MANYEYES) restart-rolling --config '$(CONFIG)' $(call given,pool)

.PHONY: upgrade
upgrade: $(VENV)/host ## Restart engines with another image, one after the other: IMAGE=vllm/vllm-openai:v0.33.0
	@$(MANYEYES) upgrade --config '$(CONFIG)' -- '$(IMAGE)'

.PHONY: loadtest
loadtest: $(VENV)/loadtest ## Run a load test: USERS=20 or RATE=4 [SCENARIO=image SHAPE=steady DURATION=60s URL= KEY=]
	@MANYEYES_API_KEY="$${KEY:-$${MANYEYES_API_KEY:-}}" $(MANYEYES) loadtest $(foreach option,users rate scenario shape duration url model slo processes,$(call given,$(option))) $(ARGS)

##@ This host

.PHONY: doctor
doctor: $(VENV)/host ## Check this host: needed X, found Y; changes nothing
	@$(MANYEYES) doctor $(cluster)

.PHONY: docker
docker: $(VENV)/host ## Install Docker and Compose (Debian or Ubuntu, as root) and start Docker's engine
	@$(MANYEYES) docker

.PHONY: images
images: $(VENV)/host ## Build missing images on this host, from Debian packages and PyPI
	@$(MANYEYES) images $(cluster)

##@ The configuration

.PHONY: check-config
check-config: $(VENV)/host ## Check $(CONFIG) and report all problems
	@$(MANYEYES) check-config --config '$(CONFIG)'

.PHONY: render
render: $(VENV)/host ## Write compose/rendered/default (two GPUs), for a plain `docker compose up`
	@$(MANYEYES) render --config '$(CONFIG)'

.PHONY: k8s
k8s: $(VENV)/host ## Write deploy/kubernetes/ from $(CONFIG): [OUT=folder in this checkout] (docs/beyond-one-box.md)
	@$(MANYEYES) kubernetes --config '$(CONFIG)' $(call given,out)

##@ Development

.PHONY: check
check: $(VENV)/test ## Run lint, type checks, unit tests, golden files and document checks: no Docker, no GPU, no cluster
	@tests/run check

.PHONY: test
test: $(VENV)/test ## Run all tests: check, clusters of processes, a real cluster with vLLM on CPU, the page in a browser
	@tests/run all

.PHONY: test-nightly
test-nightly: $(VENV)/test ## Test long faults and promised times; writes docs/benchmarks/nightly.md (idle machine, root, 1 hour, 3 GB of memory)
	@tests/run nightly

.PHONY: docs
docs: $(VENV)/test ## Write docs/reference/ (configuration, metrics, rules, alerts), the JSON Schema and the dashboards
	@$(MANYEYES) docs

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

# Virtual environments. A target creates the environment that it needs, and again when the pinned versions change.
$(VENV)/host: requirements/host.txt
	@requirements/environment host
$(VENV)/loadtest: requirements/loadtest.txt
	@requirements/environment loadtest
$(VENV)/test: requirements/test.txt
	@requirements/environment test
