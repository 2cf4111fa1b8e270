# `make` alone prints what there is. Settings: FLAVOUR=cuda|cpu|emulated, CONFIG=path/of/cluster.yaml.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CONFIG  ?= config/cluster.yaml
FLAVOUR ?=
ARGS    ?=
ENGINE  ?=
POOL    ?=
IMAGE   ?=
VENV    := .venv
# --users='20' where USERS is set; the key is not among them: it would show in the list of processes.
upper    = $(shell echo $(1) | tr a-z A-Z)
given    = $(if $($(call upper,$(1))),--$(subst _,-,$(1))='$($(call upper,$(1)))')
planned  = --config='$(CONFIG)' $(foreach option,rps p95 first_p95 goodput image images words output_tokens vary turns think_s gpu pool gpus price policy requests seed out,$(call given,$(option)))
# For marks in this host's own cluster; a cluster elsewhere (URL=) never gets this one's key.
marked   = $(if $(URL),,MANYEYES_ADMIN_KEY="$${MANYEYES_ADMIN_KEY:-$$(cat secrets/admin.key 2>/dev/null)}")
export KEY
HOST    := $(VENV)/bin/python -m manyeyes.cli
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
status: $(VENV)/host ## How users, pools and engines are, alerts, events: [WATCH=1 CONTROLLER=URL PROMETHEUS=URL]
	@$(HOST) status --config '$(CONFIG)' $(if $(WATCH),--watch) $(call given,controller) $(call given,prometheus)

.PHONY: report
report: $(VENV)/host ## One page of the last hours, to build/report/: [HOURS=1 OUT=file.html CONTROLLER=URL PROMETHEUS=URL]
	@$(HOST) report --config '$(CONFIG)' $(foreach option,hours out controller prometheus,$(call given,$(option)))

.PHONY: scale
scale: $(VENV)/host ## How many engines run: N=2 [POOL=qwen3-vl-8b]; N=auto lets the load decide
	@$(HOST) scale --config '$(CONFIG)' --engines '$(N)' --pool '$(POOL)'

.PHONY: drain
drain: $(VENV)/host ## Give an engine no new requests, until make resume: ENGINE=gpu-0
	@$(HOST) drain --config '$(CONFIG)' --engine '$(ENGINE)'

.PHONY: resume
resume: $(VENV)/host ## Let a drained engine in again: ENGINE=gpu-0
	@$(HOST) resume --config '$(CONFIG)' --engine '$(ENGINE)'

.PHONY: restart-rolling
restart-rolling: $(VENV)/host ## Restart engines one after the other, with no lost request: [POOL=]
	@$(HOST) restart-rolling --config '$(CONFIG)' --pool '$(POOL)'

.PHONY: upgrade
upgrade: $(VENV)/host ## Give engines another image, one after the other: IMAGE=vllm/vllm-openai:v0.33.0
	@$(HOST) upgrade --config '$(CONFIG)' --image '$(IMAGE)'

.PHONY: backup
backup: $(VENV)/host ## Configuration, secrets, keys, state and Grafana in one file: [OUT=file.tar.gz]
	@$(HOST) backup --config '$(CONFIG)' --out '$(OUT)'

.PHONY: restore
restore: $(VENV)/host ## Put a backup back, while the cluster is down: FROM=build/backup/....tar.gz
	@$(HOST) restore --config '$(CONFIG)' --source '$(FROM)'

.PHONY: logs
logs: $(VENV)/host ## Follow what every part says: [PART=gateway SINCE=10m LEVEL=warning RAW=1 FOLLOW=no], or one request: REQUEST=id
	@$(HOST) logs --config '$(CONFIG)' $(foreach option,part since level request raw follow,$(call given,$(option)))

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

.PHONY: pin-images
pin-images: $(VENV)/host ## Images of others by their digest, written into $(CONFIG); again: the digests of today
	@$(HOST) pin-images --config '$(CONFIG)'

##@ The configuration

.PHONY: check-config
check-config: $(VENV)/host ## Every problem of $(CONFIG), at once
	@$(PY) -m manyeyes.config check '$(CONFIG)'

.PHONY: key
key: $(VENV)/host ## Make an API key and print it once: NAME=alice [RPM=600] [IN_FLIGHT=8]
	@$(PY) -m manyeyes.config key --config '$(CONFIG)' $(if $(RPM),--requests-per-minute='$(RPM)') $(if $(IN_FLIGHT),--in-flight='$(IN_FLIGHT)') -- '$(NAME)'

.PHONY: keys
keys: $(VENV)/host ## The API keys by name, and their limits
	@$(PY) -m manyeyes.config keys --config '$(CONFIG)'

.PHONY: user
user: $(VENV)/host ## Let a person log in to the page, or give a new password: NAME=alice
	@$(PY) -m manyeyes.config user --config '$(CONFIG)' -- '$(NAME)'

.PHONY: admin-key
admin-key: $(VENV)/host ## Print the key that changes of the running cluster want (docs/api.md)
	@$(HOST) admin-key

.PHONY: render
render: $(VENV)/host ## Write compose/rendered/default (two GPUs) anew, for a plain `docker compose up`
	@$(PY) -m manyeyes.render --config '$(CONFIG)'

.PHONY: k8s
k8s: $(VENV)/host ## Write deploy/kubernetes/ anew from $(CONFIG): [OUT=folder in this checkout] (docs/kubernetes.md)
	@$(PY) -m manyeyes.render.kubernetes --config '$(CONFIG)' --out '$(or $(OUT),deploy/kubernetes)'

.PHONY: swarm
swarm: $(VENV)/host ## Write deploy/swarm anew from $(CONFIG), for `docker stack deploy` (docs/kubernetes.md)
	@$(PY) -m manyeyes.render.swarm --config '$(CONFIG)'

.PHONY: docs
docs: $(VENV)/test ## Write docs/configuration.md, docs/metrics.md, rules.md, alerts.md, the JSON Schema and the dashboards anew
	@$(PY) -m manyeyes.config reference > docs/configuration.md
	@$(PY) -m manyeyes.config schema > config/cluster.schema.json
	@$(PY) -m manyeyes.controller.telemetry.metrics_reference > docs/metrics.md
	@$(PY) -m manyeyes.monitoring.prometheus.reference rules > docs/rules.md
	@$(PY) -m manyeyes.monitoring.prometheus.reference alerts > docs/alerts.md
	@$(PY) -m manyeyes.monitoring.grafana.build

##@ Proof

.PHONY: check
check: $(VENV)/test ## Lint, types, unit tests, golden files, documents: no Docker, no GPU, no cluster
	@tests/run check

.PHONY: test
test: $(VENV)/test ## Everything: check, clusters of processes, a real cluster with real vLLM on CPU, the page in a browser
	@tests/run all

.PHONY: test-nightly
test-nightly: $(VENV)/test ## Long faults and promised times, to docs/nightly.md, on a quiet machine (root; an hour, 3 GB of memory)
	@$(HOST) images --config tests/nightly/cluster.yaml
	@manyeyes/devcluster/fetch/nginx build/nginx
	@tests/faketime/fetch build/faketime
	@MANYEYES_NO_SKIPS=1 MANYEYES_NIGHTLY_RESULT=docs/nightly.md unshare --net --mount --propagation=private \
		bash -c 'ip link set lo up && exec $(PY) -m pytest tests/nightly'

.PHONY: autoscale-replay
autoscale-replay: $(VENV)/test ## What scaling would have done: FILE=recorded.jsonl POOL=... [OTHER=policy.yaml] [CONFIG=]
	@$(PY) -m manyeyes.controller.autoscaling.replay '$(FILE)' --pool '$(POOL)' --config '$(CONFIG)' $(if $(OTHER),--other '$(OTHER)')

.PHONY: simulated-day
simulated-day: $(VENV)/test ## Scaling on simulated days, to docs/scaling.md
	@$(PY) -m tests.autoscaling_simulation

.PHONY: bench-gateway
bench-gateway: $(VENV)/test ## Other gateways beside this one, to docs/benchmarks.md: 2 hours (ARGS=--quick: 17 minutes)
	@out=build/bench/results/$$(date +%Y%m%d-%H%M%S); \
	manyeyes/devcluster/fetch/nginx build/nginx; \
	$(PY) -m benchmarks --out "$$out" $(ARGS) && $(PY) -m benchmarks.report "$$out"

.PHONY: bench-controller
bench-controller: $(VENV)/test ## What the controller costs with 200 engines and with 3, and ten minutes of a saturated engine: 25 minutes
	@$(PY) -m benchmarks.controller $(ARGS)
	@$(PY) -m pytest -q -s tests/nightly/test_saturated_engine.py

.PHONY: alert-drill
alert-drill: $(VENV)/test ## Every fault and the alerts it must raise, on processes, to docs/alert-drill.md: 10 minutes
	@manyeyes/devcluster/fetch/nginx build/nginx
	@manyeyes/devcluster/fetch/prometheus build/prometheus
	@$(PY) -m tests.alert_drill $(ARGS)

.PHONY: bench-monitoring
bench-monitoring: $(VENV)/test ## What Prometheus and the exporters cost at eight engines: 20 minutes
	@manyeyes/devcluster/fetch/nginx build/nginx
	@manyeyes/devcluster/fetch/prometheus build/prometheus
	@$(PY) -m benchmarks.monitoring $(ARGS)

.PHONY: k8s-proof
k8s-proof: $(VENV)/test ## The gateway on Kubernetes' files, 3 -> 50 -> 3 pods again and again, without Kubernetes: 4 minutes
	@manyeyes/devcluster/fetch/nginx build/nginx
	@$(PY) -m tests.kubernetes.cluster_e2e

.PHONY: k8s-pod-proof
k8s-pod-proof: $(VENV)/test ## A rendered pod's containers under its own security settings, by Docker: vLLM on CPU, its image present
	@$(PY) -m tests.kubernetes.pod_e2e

.PHONY: swarm-proof
swarm-proof: $(VENV)/test ## The emulated stack on a Docker Swarm of one node, which it makes and leaves: 5 minutes, images present
	@$(PY) -m tests.swarm.proof

##@ Load

.PHONY: loadtest
loadtest: $(VENV)/loadtest ## People through the gateway: USERS=20 or RATE=4 [SCENARIO=image SHAPE=steady DURATION=60s URL= KEY=]
	@$(marked) MANYEYES_API_KEY="$${KEY:-$${MANYEYES_API_KEY:-}}" $(PY) -m loadtest $(foreach option,users rate scenario shape duration url model slo processes,$(call given,$(option))) $(ARGS)

.PHONY: loadtest-page
loadtest-page: $(VENV)/host ## Locust's page at /locust/ of the running cluster
	@docker compose --profile loadtest up --detach --wait --no-recreate loadtest

.PHONY: scale-proof
scale-proof: $(VENV)/test ## What did more GPUs bring? COUNTS=1,2,3 emulated, no Docker; ARGS='--on compose' for the cluster
	@manyeyes/devcluster/fetch/nginx build/nginx
	@$(if $(findstring compose,$(ARGS)),$(marked)) MANYEYES_API_KEY="$${KEY:-$${MANYEYES_API_KEY:-}}" $(PY) -m loadtest.scaling_report $(call given,counts) $(ARGS)

.PHONY: chaos
chaos: $(VENV)/loadtest ## Every fault on the running cluster, under load, and a report: [FAULTS= USERS= CONFIRM=yes]
	@MANYEYES_API_KEY="$${KEY:-$${MANYEYES_API_KEY:-}}" $(PY) -m benchmarks.chaos --config '$(CONFIG)' $(foreach option,faults users scenario model confirm out,$(call given,$(option))) $(ARGS)

.PHONY: soak
soak: $(VENV)/loadtest ## An hour at 80 % load with a fault every minute: [MINUTES=60]
	@MANYEYES_API_KEY="$${KEY:-$${MANYEYES_API_KEY:-}}" $(PY) -m benchmarks.chaos.soak --config '$(CONFIG)' $(foreach option,minutes load scenario model confirm out,$(call given,$(option))) $(ARGS)

.PHONY: compare
compare: $(VENV)/loadtest ## Two runs beside each other, and what of it is noise: A=build/loadtest/... B=build/loadtest/...
	@$(PY) -m loadtest.compare '$(A)' '$(B)' $(ARGS)

.PHONY: plan
plan: $(VENV)/loadtest ## How many GPUs? RPS=40 [P95=5 IMAGE=1280x720 GPU=rtx4090 POOL= TURNS= OUTPUT_TOKENS= PRICE= ...], an estimate
	@$(PY) -m manyeyes.planner plan $(call planned) $(ARGS)

.PHONY: plan-policies
plan-policies: $(VENV)/loadtest ## Balancing policies on thousands of simulated engines: [ENGINES=10000 RPS= REQUESTS= TURNS= ...]
	@$(PY) -m manyeyes.planner policies $(call planned) $(foreach option,engines processes policies,$(call given,$(option))) $(ARGS)

.PHONY: plan-error
plan-error: $(VENV)/test ## The planner beside emulated engines, five configurations: 35 minutes on a quiet machine
	@manyeyes/devcluster/fetch/nginx build/nginx
	@$(PY) -m manyeyes.planner.plan_validation --speed 0.5 --repeats 2 $(ARGS)

.PHONY: calibrate
calibrate: $(VENV)/loadtest ## Measure one engine's timing in a few minutes: URL=http://127.0.0.1:8000 [MODEL= OUT= DEVICE=]
	@MANYEYES_API_KEY="$${KEY:-$${MANYEYES_API_KEY:-}}" $(PY) -m manyeyes.calibration $(foreach option,url model out device,$(call given,$(option))) $(ARGS)

.PHONY: emulator-error
emulator-error: $(VENV)/test ## How far the emulator is from the engine that was calibrated: URL= PROFILE=build/calibrate/profile.yaml
	@MANYEYES_API_KEY="$${KEY:-$${MANYEYES_API_KEY:-}}" $(PY) -m manyeyes.calibration.emulator_validation $(foreach option,url model out profile,$(call given,$(option))) $(ARGS)

##@ Working on ManyEyes

.PHONY: format
format: $(VENV)/test ## Format and sort imports
	@$(VENV)/bin/ruff format -q . && $(VENV)/bin/ruff check -q --fix .

.PHONY: audit
audit: ## What each environment holds (SBOM), and what of it has known vulnerabilities; wants PyPI's or OSV's advisories
	@requirements/run-audit

.PHONY: golden
golden: $(VENV)/test ## Write the three golden cases of tests/golden anew
	@$(PY) -m tests.golden.make

.PHONY: lock
lock: $(VENV)/test ## Pin requirements/*.txt anew from pyproject.toml
	@requirements/lock

.PHONY: help
help: ## This
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

# Environments: made by the target that needs them, again when their pins change.
$(VENV)/host: requirements/host.txt
	@requirements/environment host
$(VENV)/loadtest: requirements/loadtest.txt
	@requirements/environment loadtest
$(VENV)/test: requirements/test.txt
	@requirements/environment test
