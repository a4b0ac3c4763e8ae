# Needs python3 >= 3.11 with venv, and make. Everything that is installed goes to .venv.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
ARGS ?=
SEEDS ?=

.PHONY: venv test lint bench demo simulate completions clean

venv: $(VENV)/dev

# The package and what it needs. compileall, because without .pyc files the first start takes 150 ms more.
$(VENV)/package: pyproject.toml singleton_run/data/singleton-run
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo 'make: needs Python 3.11 or later: name one by `make PYTHON=/path/to/python3.11`' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo 'make: this Python has no venv: on Debian and Ubuntu `apt-get install python3-venv`' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --compile --editable '.[all]'
	$(PY) -m compileall -q singleton_run backends
	@touch $@

# The group `dev` of pyproject.toml, read here because pip knows --group only from 25.1 on.
$(VENV)/dev: $(VENV)/package
	$(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"], sep="\n")' > $(VENV)/dev.txt
	$(PIP) install --requirement $(VENV)/dev.txt
	@touch $@

test: $(VENV)/dev
	$(PY) -m pytest $(ARGS)

lint: $(VENV)/dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# Compiled again, or what was edited since would be measured with its compilation: twice the time.
bench: $(VENV)/package
	@$(PY) -m compileall -q singleton_run backends
	$(PY) -m bench $(ARGS)

demo: $(VENV)/package
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" sh docs/demo.sh

simulate: $(VENV)/dev
	$(PY) -m tests.simulation $(SEEDS)

completions: $(VENV)/package
	$(VENV)/bin/singleton-run completion bash > $(VENV)/completion && mv $(VENV)/completion completions/singleton-run.bash
	$(VENV)/bin/singleton-run completion zsh > $(VENV)/completion && mv $(VENV)/completion completions/_singleton-run
	$(VENV)/bin/singleton-run completion fish > $(VENV)/completion && mv $(VENV)/completion completions/singleton-run.fish

clean:
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
