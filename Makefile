# `make` alone prints what there is; everything else is `.venv/bin/manyeyes --help`, which these targets call.
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
# --users='20' where USERS is set. A key is never among them: it would show in the list of processes.
given    = $(if $($(call upper,$(1))),--$(subst _,-,$(1))='$($(call upper,$(1)))')
MANYEYES := MANYEYES_CALLED_BY_MAKE=1 $(VENV)/bin/python -m manyeyes.cli
cluster   = --config '$(CONFIG)' $(call given,flavour)
export KEY

##@ The cluster

.PHONY: up
up: $(VENV)/host ## Bring everything up: looks at this host, gets images, starts, asks a first question
	@$(MANYEYES) up $(cluster)

.PHONY: down
down: $(VENV)/host ## Stop and remove everything; models and metrics are kept
	@$(MANYEYES) down --config '$(CONFIG)'

.PHONY: clean
clean: $(VENV)/host ## As down, and remove models, caches and metrics too
	@$(MANYEYES) clean --config '$(CONFIG)'

.PHONY: status
status: $(VENV)/host ## How users, pools and engines are, alerts, events: [WATCH=1 CONTROLLER=URL PROMETHEUS=URL]
	@$(MANYEYES) status --config '$(CONFIG)' $(if $(WATCH),--watch) $(call given,controller) $(call given,prometheus)

.PHONY: logs
logs: $(VENV)/host ## Follow what every part says: [PART=gateway SINCE=10m LEVEL=warning RAW=1 FOLLOW=no], or one request: REQUEST=id
	@$(MANYEYES) logs --config '$(CONFIG)' $(foreach option,part since level request,$(call given,$(option))) $(if $(RAW),--raw) $(if $(filter no 0 false,$(FOLLOW)),--no-follow)

.PHONY: scale
scale: $(VENV)/host ## How many engines run: N=2 [POOL=qwen3-vl-8b]; N=auto lets the load decide
	@$(MANYEYES) scale --config '$(CONFIG)' $(call given,pool) -- '$(N)'

.PHONY: restart-rolling
restart-rolling: $(VENV)/host ## Restart engines one after the other, with no lost request: [POOL=]
	@$(MANYEYES) restart-rolling --config '$(CONFIG)' $(call given,pool)

.PHONY: upgrade
upgrade: $(VENV)/host ## Give engines another image, one after the other: IMAGE=vllm/vllm-openai:v0.33.0
	@$(MANYEYES) upgrade --config '$(CONFIG)' -- '$(IMAGE)'

.PHONY: loadtest
loadtest: $(VENV)/loadtest ## Users through the gateway: USERS=20 or RATE=4 [SCENARIO=image SHAPE=steady DURATION=60s URL= KEY=]
	@MANYEYES_API_KEY="$${KEY:-$${MANYEYES_API_KEY:-}}" $(MANYEYES) loadtest $(foreach option,users rate scenario shape duration url model slo processes,$(call given,$(option))) $(ARGS)

##@ This host

.PHONY: doctor
doctor: $(VENV)/host ## Needed X, found Y: what this host has; changes nothing
	@$(MANYEYES) doctor $(cluster)

.PHONY: docker
docker: $(VENV)/host ## Install Docker and Compose (Debian, Ubuntu, as root) and start the engine
	@$(MANYEYES) docker

.PHONY: images
images: $(VENV)/host ## Build every image here from Debian packages and PyPI, where none can be pulled
	@$(MANYEYES) images $(cluster)

##@ The configuration

.PHONY: check-config
check-config: $(VENV)/host ## Every problem of $(CONFIG), at once
	@$(MANYEYES) check-config --config '$(CONFIG)'

.PHONY: render
render: $(VENV)/host ## Write compose/rendered/default (two GPUs) anew, for a plain `docker compose up`
	@$(MANYEYES) render --config '$(CONFIG)'

.PHONY: k8s
k8s: $(VENV)/host ## Write deploy/kubernetes/ anew from $(CONFIG): [OUT=folder in this checkout] (docs/beyond-one-box.md)
	@$(MANYEYES) kubernetes --config '$(CONFIG)' $(call given,out)

##@ Working on ManyEyes

.PHONY: check
check: $(VENV)/test ## Lint, types, unit tests, golden files, documents: no Docker, no GPU, no cluster
	@tests/run check

.PHONY: test
test: $(VENV)/test ## Everything: check, clusters of processes, a real cluster with real vLLM on CPU, the page in a browser
	@tests/run all

.PHONY: test-nightly
test-nightly: $(VENV)/test ## Long faults and promised times, to docs/benchmarks/nightly.md, on a quiet machine (root; an hour, 3 GB of memory)
	@tests/run nightly

.PHONY: docs
docs: $(VENV)/test ## Write docs/reference/configuration.md, metrics.md, rules.md, alerts.md, the JSON Schema and the dashboards anew
	@$(MANYEYES) docs

.PHONY: help
help: ## This
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

# Environments: made by the target that needs them, again when their pins change.
$(VENV)/host: requirements/host.txt
	@requirements/environment host
$(VENV)/loadtest: requirements/loadtest.txt
	@requirements/environment loadtest
$(VENV)/test: requirements/test.txt
	@requirements/environment test
