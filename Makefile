# Two commands set everything up on a fresh machine with Python 3.11 or newer:
#   make demo    install, fetch the embedded model, answer a prompt with and without drafting
#   make test    run the default test suite

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The CPU build of torch; other pins pull gigabytes of CUDA libraries.
TORCH ?= torch==2.13.0
PROMPT ?=

.PHONY: demo test test-long lint format docs clean

demo: $(STAMP)
	@$(BIN)/python -m ventris.demo $(if $(PROMPT),"$(PROMPT)")

test: $(STAMP)
	@echo "==> linting"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/mypy
	@echo "==> testing"
	@$(BIN)/python -m pytest -m "not long and not cuda"

test-long: $(STAMP)
	@$(BIN)/python -m pytest -m "long or cuda"

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(STAMP)
	@$(BIN)/python -m ventris.cli.help_pages
	@VENTRIS_UPDATE_MATRIX=1 $(BIN)/python -m pytest -q tests/composition

$(STAMP): pyproject.toml
	@echo "==> creating $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Ventris needs Python 3.11 or newer; run make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "cannot create $(VENV); on Debian install the package python3-venv"; exit 1; }
	@echo "==> installing (about a minute; torch is the large one)"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on "$(TORCH)"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on --editable ".[dev]"
	@touch $(STAMP)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
