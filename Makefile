# Tenure. `make demo` shows the whole loop on this machine, `make test` checks it; both make what they need.
SHELL := /bin/sh
VENV ?= .venv
BIN := $(VENV)/bin
export VENV
# What `make up` is told (docs/cluster.md).
export CLUSTER NAME CONTEXT OVERLAY TAG BUILD REGISTRY MIRROR PULL_SECRET IMAGE_LOAD MANIFESTS INGRESS_DOMAIN GATEWAY GATEWAY_URL
export S3_URL S3_BUCKET S3_REGION RUNS_URL DATA RUN TIMEOUT PURGE EDIT_KSERVE
export WITH_GATEWAY_API WITH_ENVOY_GATEWAY WITH_CERT_MANAGER WITH_KSERVE WITH_KFP

.DEFAULT_GOAL := help
.PHONY: audit bench chaos clean cluster-check cluster-down cluster-status compile conformance demo demo-rollback down environment environment-checkov environment-detector environment-dev environment-fuzz environment-peers environment-predictor format fuzz help images lint lint-manifests lock sbom status test test-fast up

help: ## Show what can be typed
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-16s %s\n", $$1, $$2}'

environment: ## Create the environment that runs Tenure on this machine
	@scripts/environment laptop

environment-dev:
	@scripts/environment dev

# Drift detection by alibi-detect needs another numpy. Its place is fixed: that is where the platform looks.
environment-detector: ## Create the environment that runs the detector with alibi-detect
	@VENV=.venv-detector scripts/environment detector

environment-checkov:
	@VENV=.venv-checkov scripts/environment checkov

# Its place is fixed too: that is where benchmarks/serving.py looks.
environment-peers: ## Create the environment of MLServer, which benchmarks compare with
	@VENV=.venv-peers scripts/environment peers

# And so is this one's.
environment-predictor: ## Create the environment of the predictor's image, in which benchmarks measure it
	@VENV=.venv-predictor scripts/environment predictor

# schemathesis plugs itself into every pytest beside it.
environment-fuzz: ## Create the environment of `make fuzz`
	@VENV=.venv-fuzz scripts/environment fuzz

demo: environment environment-detector ## Show the whole loop: train, canary, promotion, drift, retraining
	@$(BIN)/tenure demo

demo-rollback: environment environment-detector ## Ship a harmful canary and see it taken back
	@$(BIN)/tenure demo-rollback

down: ## Stop everything that was started here; leaves no process
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m embedded down; else echo "nothing runs: there is no $(VENV)"; fi

status: environment ## Show what runs
	@$(BIN)/tenure status

up: environment ## Install everything on a Kubernetes cluster: kind, or CLUSTER=existing (docs/cluster.md)
	@kind-cluster/up up

cluster-check: environment ## See whether this machine, or the cluster, has what `make up` needs
	@kind-cluster/up check

cluster-status: environment ## Show what runs on the cluster
	@kind-cluster/up status

cluster-down: environment ## Delete the kind cluster; of an existing cluster, take Tenure off it
	@kind-cluster/up down

test: environment-dev environment-detector ## Check style, types and imports, then run every test
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest -n auto --dist loadgroup -q

test-fast: environment-dev ## Run the tests that need no platform
	$(BIN)/pytest -n auto --dist loadgroup -q -m "not e2e"

# Half an hour for twenty seeds, on one platform that is started for it.
SEEDS ?= 1..3
chaos: environment-dev environment-detector ## Kill what runs, under load, in an order that SEEDS=1..20 decides
	$(BIN)/pytest tests/e2e/test_chaos.py -n 0 -q -s --show-capture=no --seeds $(SEEDS)

lint: environment-dev ## Check style, types and the rooms' import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lint-manifests: environment-dev environment-checkov ## Let checkov read the rendered manifests
	@scripts/check-manifests

audit: environment-dev ## Look for known faults in the code (bandit) and in what it stands on (pip-audit)
	@scripts/audit

format: environment-dev ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: environment-dev environment-peers environment-predictor ## Measure every claim of the README (takes some minutes)
	@set -e; for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python $$file; done

conformance: environment-dev environment-peers ## Hold ours, KServe and MLServer against the protocol; write docs/conformance.md
	$(BIN)/python benchmarks/conformance.py --write

fuzz: environment-dev environment-fuzz ## Let schemathesis and atheris look for requests that break the predictor
	$(BIN)/python -m tests.fuzz

compile: environment-dev ## Recompile pipelines/*.yaml from their Python
	$(BIN)/python -m pipelines.training

images: ## Build the images with docker (IMAGES="predictor pilot" for some; see scripts/images)
	@scripts/images $(IMAGES)

sbom: environment-dev ## Build the images, and write each one's bill of materials into sbom/
	@SBOM=$(CURDIR)/sbom scripts/images $(IMAGES)

lock: environment ## Resolve pyproject.toml's groups anew into requirements/
	scripts/lock

clean: down ## Remove the platform's state (.tenure)
	rm -rf .tenure
