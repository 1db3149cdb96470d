# Slipway: every target that a person calls has a sentence behind `##`, which `make help` prints.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export SLIPWAY_CACHE ?= $(HOME)/.cache/slipway
UV_VERSION := 0.13.9
UV := $(SLIPWAY_CACHE)/uv-$(UV_VERSION)/bin/uv
export UV_PYTHON_DOWNLOADS := never
# Tests start hundreds of processes, each of which would compile scikit-learn and its like again.
unexport PYTHONDONTWRITEBYTECODE
# The builder under test calls uv by name, as it does in its image.
export PATH := $(dir $(UV)):$(PATH)
RUN := $(UV) run --no-sync
CLUSTER := PYTHONPATH=hack python3 -m cluster
SYNCED := .venv/.synced

.PHONY: help
help: ## List every target with a sentence.
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / {printf "  \033[36m%-20s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- the workspace ----------------------------------------------------------------------------

$(UV):
	@bash hack/install-uv $(UV_VERSION) $(dir $(@D))

$(SYNCED): uv.lock pyproject.toml */pyproject.toml | $(UV)
	@$(UV) sync --frozen --all-groups --quiet && touch $@

.PHONY: sync
sync: $(SYNCED) ## Install the workspace's locked Python packages into .venv.

.PHONY: fmt
fmt: $(SYNCED) ## Format the code and mend what the linter can mend.
	@$(RUN) ruff format . && $(RUN) ruff check --fix .

.PHONY: lint
lint: $(SYNCED) ## Check format, lint rules and the layers between rooms.
	@$(RUN) ruff format --check . && $(RUN) ruff check . && $(RUN) lint-imports

.PHONY: type
type: $(SYNCED) ## Check types (mypy, strict).
	@MYPY_CACHE_DIR=$(SLIPWAY_CACHE)/mypy $(RUN) mypy

.PHONY: unit
unit: $(SYNCED) ## Run the fast tests: no cluster, no network (EXPLORE=1: examples that no run had before).
	@PYTHONPATH=hack python3 -m tools ensure crane docker-registry git h2spec versitygw sshd ssh-keygen svnserve \
		apache2 /usr/lib/apache2/modules/mod_dav_svn.so >/dev/null
	@$(RUN) pytest -q -n 3 --dist worksteal tests/unit tests/golden

.PHONY: test-examples
test-examples: $(UV) ## Run the tests that the example projects have, each in its own locked environment.
	@echo "examples/flight-delay" && cd examples/flight-delay && $(UV) run --quiet --locked pytest -q
	@# What its training leaves would go into the demo's commit.
	@echo "examples/iris-legacy" && cd examples/iris-legacy && trap 'rm -f model.joblib metrics.json' EXIT && \
		$(UV) venv --quiet --clear --python 3.11 && $(UV) pip sync --quiet --require-hashes requirements.txt && \
		.venv/bin/python -m unittest discover tests

.PHONY: test-runtime-clients
test-runtime-clients: $(SYNCED) ## Ask the runtime by clients of others: Java, C#, Go, kserve, grpcurl, curl (Maven, Go and PyPI are reached).
	@PYTHONPATH=hack python3 -m tools ensure grpcurl curl mcs mono /usr/lib/mono/4.5/System.Net.Http.dll >/dev/null
	@$(RUN) pytest -q -p no:cacheprovider --durations=5 tests/clients

.PHONY: test-browser
test-browser: $(SYNCED) ## Use the runtime's page as a person does, in a real browser (headless Chromium).
	@PYTHONPATH=hack python3 -m tools ensure chromium chromedriver >/dev/null
	@$(RUN) pytest -q -p no:cacheprovider tests/browser

.PHONY: soak-runtime
soak-runtime: $(SYNCED) ## Load the runtime with TLS, keys, gRPC, traces, records, values and workers for five minutes, and see that nothing grows.
	@$(RUN) python tests/bench/soak_runtime.py
.PHONY: fuzz-runtime
fuzz-runtime: $(SYNCED) ## Attack the runtime: 100,000 bad requests beside good ones, its OpenAPI document, its parsers (bounded).
	@$(RUN) python tests/fuzz/fuzz_http.py
	@$(RUN) python tests/fuzz/fuzz_grpc.py
	@$(RUN) python tests/fuzz/fuzz_openapi.py
	@$(RUN) python tests/fuzz/fuzz_parsers.py $(SLIPWAY_CACHE)/fuzz-corpus -max_total_time=60 -artifact_prefix=$(SLIPWAY_CACHE)/fuzz-

.PHONY: golden
golden: $(SYNCED) ## Rewrite the golden plans; read them as a diff.
	@$(RUN) pytest -q tests/golden --golden-update

.PHONY: crds
crds: $(SYNCED) ## Write crds/ and the API reference from the pydantic models.
	@$(RUN) python -m slipway_operator.api

.PHONY: verify
verify: crds ## Regenerate everything that is generated and fail on a difference.
	@git diff --exit-code -- crds charts docs/spec
	@new=$$(git ls-files --others --exclude-standard -- crds charts docs/spec); \
		[ -z "$$new" ] || { printf 'generated and not added:\n%s\n' "$$new" >&2; exit 1; }

# ---- the local cluster and the images -----------------------------------------------------------

.PHONY: cluster-up cluster-status cluster-down cluster-kubeconfig cluster-registry cluster-purge cluster-selftest
cluster-up: ## Start a real single-node Kubernetes on this machine (or use the one SLIPWAY_CONTEXT names).
	@$(CLUSTER) up
cluster-status: ## Say which part of the cluster runs, since when, and what to do about those that do not.
	@$(CLUSTER) status
cluster-down: ## Stop the local cluster and leave nothing of it running, mounted or configured.
	@$(CLUSTER) down
cluster-kubeconfig: ## Print the path of the cluster's kubeconfig.
	@$(CLUSTER) kubeconfig
cluster-registry: ## Print the prefix of the registry that this machine, nodes and pods reach.
	@$(CLUSTER) registry
cluster-purge: ## Stop the local cluster and delete its images, objects and volumes too.
	@$(CLUSTER) purge
cluster-selftest: ## Break a second cluster beside the one in use in every way, and check that it heals and leaves nothing.
	@PYTHONPATH=hack python3 -m cluster.selftest

.PHONY: tools
tools: ## Make every pinned tool available (helm, crane, kubectl, …) and print where each is.
	@PYTHONPATH=hack python3 -m tools ensure helm crane kubectl kubeconform kube-score uv

.PHONY: images images-verify images-refresh
images: $(SYNCED) ## Build the images whose inputs changed, push them to the cluster's registry, print their sizes.
	@PYTHONPATH=hack $(RUN) python -m images
images-verify: $(SYNCED) ## Build all images twice from nothing and compare their digests.
	@PYTHONPATH=hack $(RUN) python -m images --verify
images-refresh: $(SYNCED) ## As images, with the newest Debian packages (security updates).
	@PYTHONPATH=hack $(RUN) python -m images --refresh

# ---- the demo -----------------------------------------------------------------------------------

LAB := PYTHONPATH=hack $(RUN) python -m lab.demo

.PHONY: demo demo-clean
demo: $(SYNCED) ## Show it all: a cluster if there is none, the operator, two real projects, predictions, a scale-up, a rollback.
	@$(LAB)
demo-clean: $(SYNCED) ## Remove what the demo made; the cluster and the CRDs stay (with those would go every ModelDeployment).
	@$(LAB) clean

# ---- tests on the real cluster -------------------------------------------------------------------

ON_CLUSTER := $(RUN) pytest -q --durations=10 -p no:cacheprovider

.PHONY: install chart-check test-cluster e2e test bench-pipeline
install: $(SYNCED) ## Install this tree's chart and images on the cluster that runs.
	@PYTHONPATH=hack $(RUN) python -c 'from lab.install import install, open_lab; install(open_lab())'
chart-check: $(SYNCED) ## Check the chart with helm lint, kubeconform, kube-score and checkov.
	@PYTHONPATH=hack $(RUN) python -m chart
test-cluster: $(SYNCED) ## Run the tests that need a real API server or cluster.
	@$(ON_CLUSTER) -n 2 --dist loadfile tests/cluster
e2e: $(SYNCED) ## Run the journeys that a user makes, on the real cluster.
	@PYTHONPATH=hack python3 -m tools ensure crane git svnserve docker-registry sshd ssh-keygen \
		apache2 /usr/lib/apache2/modules/mod_dav_svn.so >/dev/null
	@$(ON_CLUSTER) -n 3 --dist loadfile --ignore tests/e2e/alone --ignore tests/e2e/elsewhere tests/e2e
	@$(ON_CLUSTER) tests/e2e/alone
.PHONY: test-gitops
test-gitops: $(SYNCED) ## See that a real Argo CD, Flux's way, helm and kubectl undo no rollback (10 more minutes when cold).
	@PYTHONPATH=hack python3 -m tools ensure argocd flux-apply redis-server helm kubectl git >/dev/null
	@$(ON_CLUSTER) -n 2 --dist loadfile tests/gitops
.PHONY: test-restore
test-restore: $(SYNCED) ## Restore a backup of resources and log into another cluster with the same registry (2 minutes).
	@$(ON_CLUSTER) tests/e2e/elsewhere
test: ## Run lint, type, unit, test-examples, verify, chart-check, test-cluster and e2e, on a real cluster that is started where there is none.
	@hack/stages lint type unit test-examples verify cluster-up images install chart-check test-cluster e2e
bench-pipeline: $(SYNCED) ## Measure from kubectl apply to the first right prediction, split by step.
	@PYTHONPATH=hack:. $(RUN) python tests/bench/bench_pipeline.py
.PHONY: bench-grpc
bench-grpc: $(SYNCED) ## Measure what carries gRPC: our HTTP/2 layer, the h2 library, gRPC's own server, MLServer.
	@PYTHONPATH=hack python3 -m tools ensure h2load >/dev/null
	@$(RUN) python tests/bench/bench_grpc.py
.PHONY: faults test-faults faults-cluster bench-operator
faults: $(SYNCED) ## Disturb each write of each flow once on a control plane of its own, in a few minutes.
	@PYTHONPATH=hack python3 -m tools ensure helm kubectl etcd >/dev/null
	@$(ON_CLUSTER) --ignore tests/faults/on_cluster tests/faults
test-faults: $(SYNCED) ## Every fault at every write of every flow, every watch and list, counted (long; FLOW=update FAULT=409: some of it).
	@PYTHONPATH=hack python3 -m tools ensure helm kubectl etcd >/dev/null
	@SLIPWAY_FAULTS=all SLIPWAY_FAULT="$(FAULT)" $(ON_CLUSTER) --ignore tests/faults/on_cluster tests/faults $(if $(FLOW),-k "$(FLOW)")
faults-cluster: $(SYNCED) ## Disturb an operator before the cluster that runs while real pods answer: no prediction fails (4 minutes).
	@PYTHONPATH=hack python3 -m tools ensure git kubectl >/dev/null
	@$(ON_CLUSTER) tests/faults/on_cluster
bench-operator: $(SYNCED) ## Measure the operator with 250, 500 and 1,000 ModelDeployments on a control plane of its own.
	@PYTHONPATH=hack python3 -m tools ensure helm kubectl etcd >/dev/null
	@PYTHONPATH=hack:. $(RUN) python tests/bench/bench_operator.py
.PHONY: bench-image
bench-image: $(SYNCED) ## Measure an environment image from nothing to pushed, beside buildah.
	@PYTHONPATH=hack $(RUN) python tests/bench/bench_buildah.py
.PHONY: bench-cli
bench-cli: $(SYNCED) ## Measure how long the command line takes to start.
	@$(RUN) python tests/bench/bench_cli.py
.PHONY: bench-runtime
bench-runtime: $(SYNCED) ## Measure the runtime beside its peers (30 minutes; QUICK=1: whether it works; FULL=1: the whole matrix, 40; PARTS=, PEERS=, INTO=).
	@PYTHONPATH=hack python3 -m tools ensure wrk h2load >/dev/null
	@PYTHONPATH=. UV=$(UV) $(RUN) python -m tests.bench.bench_runtime $(if $(QUICK),--quick) $(if $(FULL),--full) \
		$(if $(PARTS),--parts $(PARTS)) $(if $(INTO),--into $(INTO)) $(if $(PEERS),--peers $(PEERS))
.PHONY: bench-runtime-docs bench-observing
bench-runtime-docs: $(SYNCED) ## Write a run's tables into docs/benchmarks.md, and draw its plot (INTO=<the run's JSON>).
	@PYTHONPATH=. UV=$(UV) $(RUN) python -m tests.bench.bench_runtime --docs --into $(INTO)
bench-observing: $(SYNCED) ## Measure what it costs to count, log, record, trace, encrypt and ask for keys (3 minutes).
	@PYTHONPATH=hack python3 -m tools ensure wrk >/dev/null
	@PYTHONPATH=. $(RUN) python -m tests.bench.bench_observing
.PHONY: bench-native
bench-native: $(SYNCED) ## Measure a model that answers by itself beside ONNX of it and MLServer.
	@PYTHONPATH=hack python3 -m tools ensure wrk >/dev/null
	@PYTHONPATH=. UV=$(UV) $(RUN) python -m tests.bench.bench_native
.PHONY: bench-rollback
bench-rollback: $(SYNCED) ## Roll back and out 50 times under load; count what fails, and time the way to the first answer.
	@PYTHONPATH=hack:. $(RUN) python tests/bench/bench_rollback.py
