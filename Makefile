# Everything a user or a contributor types. `make` alone lists it.
PYTHON ?= python3
TORCH ?= torch==2.13.0
SEED ?=
BIN := .venv/bin
# Several processes share few cores: waiting OpenMP threads must sleep, not spin.
export OMP_WAIT_POLICY = PASSIVE
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM = false

.PHONY: help quickstart test test-all lint types fast short tiny-agent clean

help:
	@echo "make quickstart [SEED=7]  train a retriever for the tiny agent and show the gain"
	@echo "make test                 lint, types, fast tests and a shortened quickstart"
	@echo "make test-all             the same and the slow, server and browser tests"
	@echo "make tiny-agent           train the packaged agent anew (about 40 minutes)"

quickstart: .venv/ready
	$(BIN)/agentic-r loop configs/quickstart.toml $(if $(SEED),--seed $(SEED) --name quickstart-$(SEED))

test: lint types fast short

test-all: lint types
	$(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy

fast: .venv/ready
	$(BIN)/python -m pytest -m "not short and not slow and not server and not browser and not gpu"

short: .venv/ready
	$(BIN)/python -m pytest -s -m short tests/test_quickstart.py

tiny-agent: .venv/ready
	$(BIN)/python -m agentic_r.agent.tiny --out build/tiny-agent

# A torch that the interpreter already has is used as it is; otherwise $(TORCH) is installed with
# the user's own pip settings.
.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "agentic-r needs Python 3.11 or later, got $$($(PYTHON) --version 2>&1)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv \
		$$($(PYTHON) -c 'import torch' 2>/dev/null && echo --system-site-packages) .venv
	@# --system-site-packages does not reach a virtual environment's own packages; a .pth file does.
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(PYTHON) -c \
		'import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])' 2>/dev/null > \
		$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch.pth || true
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install --quiet $(TORCH)
	grep -v '^torch==' constraints.txt > .venv/constraints.txt
	$(BIN)/python -m pip install --quiet -c .venv/constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv runs build
