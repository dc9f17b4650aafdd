# `make demo` and `make test` do everything on a fresh machine with Python 3.11 or newer.
# Another build of torch, e.g. for CUDA:
#   make demo TORCH=torch==2.13.0 TORCH_PIP='--index-url <where that build is>'

PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_PIP ?=
PYTEST ?=
JOBS ?= 2
DEMO_HOME ?= .l2dm

BIN := .venv/bin
READY := .venv/.ready
PACKAGES := l2dm components pipelines

.PHONY: demo test test-slow test-integration test-containers servers lint check chaos pocket bench-core compile format image up down clean

demo: $(READY)
	$(BIN)/l2dm demo --home $(DEMO_HOME)
	@echo 'from here on the program is $(BIN)/l2dm; $(BIN)/l2dm --help lists its commands'

# Side by side on one thread each: on two cores that is faster than one after the other on two.
SUITE := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

test: $(READY)
	$(SUITE) -m "not slow" $(PYTEST)

# What takes over ten seconds each: whole runs, an installed wheel, several processes.
test-slow: $(READY)
	$(SUITE) -m slow $(PYTEST)

# Against real servers: radosgw, PostgreSQL and MLflow from apt and pip, on loopback.
INTEGRATION := tests/integration tests/pipelines/commands/test_presign.py \
	$(addprefix tests/components/services/,store/test_objects.py store/test_s3.py store/test_presigned.py line/test_uploads.py wakeups/test_webhook.py)

servers: $(READY)
	sh tests/integration/install.sh
	$(BIN)/python -c 'import psycopg2' 2> /dev/null || $(BIN)/python -m pip install --quiet \
		-c .venv/constraints.txt -c .venv/torch.txt -e '.[dev,server]'

test-integration: servers
	$(BIN)/python -m tests.integration.servers $(BIN)/python -m pytest $(INTEGRATION) $(PYTEST)

# Everything dies at random, on the same servers; exits non-zero when an upload or a version is lost.
SEED ?= 1
chaos: servers
	$(BIN)/python -m benchmarks.chaos --seed $(SEED)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

# In containers: a Docker engine of its own (Debian or Ubuntu, root), both images, one concept;
# then a team's servers, as `make up` starts them.
CONTAINERS := $(addprefix tests/infra/test_,containers.py team_stack.py)

test-containers: $(READY)
	sh tests/infra/install.sh
	$(BIN)/python -m tests.worlds.image_engine $(BIN)/python -m pytest $(CONTAINERS) $(PYTEST)

# The images l2dm and l2dm-service; settings: infra/image/build.sh
image:
	sh infra/image/build.sh

# A team's servers on one machine; settings: infra/local/README.md
up:
	sh infra/local/up.sh

down:
	sh infra/local/down.sh

pocket: $(READY)
	$(BIN)/python -m l2dm.pocket.make

bench-core: $(READY)
	$(BIN)/python -m benchmarks.core

compile: $(READY)
	$(BIN)/l2dm compile --out build/pipelines

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# torch first and alone, so that its build can be chosen; the rest then finds it installed.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(TORCH_PIP) '$(TORCH)'
	$(BIN)/python -m pip freeze | grep -i '^torch==' > .venv/torch.txt
	grep -v -i '^torch==' constraints.txt > .venv/constraints.txt
	$(BIN)/python -m pip install --quiet -c .venv/constraints.txt -c .venv/torch.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
