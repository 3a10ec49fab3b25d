# `make demo` and `make test` do all set-up themselves on a machine with Python 3.11+.

PYTHON ?= python3
VENV ?= .venv
comma := ,
BIN := $(VENV)/bin
allow_none = $(if $(ARGS),|| [ $$? -eq 5 ])
SOURCES := $(shell find om_plugins -type f -not -name '*.pyc') pyproject.toml README.md LICENSE

.PHONY: demo test lint bench docs proof compliance foreign soak format clean system-packages

demo: $(VENV)/.demo
	$(BIN)/python -m gunicorn -c example_app/gunicorn.conf.py "example_app:create_app()"

# Tests of browsers run side by side, those of servers alone: some of them measure. With ARGS, one of
# the three parts may have nothing to run, which pytest ends with 5.
test: $(VENV)/.test system-packages
	$(BIN)/pytest -n 2 --dist loadfile --durations=25 -m "not proof and not browser and not server" $(ARGS) $(allow_none)
	$(BIN)/pytest -n 2 --dist loadfile --durations=25 -m "not proof and browser" $(ARGS) $(allow_none)
	$(BIN)/pytest --durations=25 -m "not proof and server and not browser" $(ARGS) $(allow_none)

# What runs longer than `make test` may: mutants, soak, the suite of HTTP caches, lowest versions.
proof: $(VENV)/.test system-packages
	$(BIN)/pytest --durations=25 -m proof $(ARGS)
	PYTHON=$(PYTHON) sh tests/lowest/run.sh

# The public suite of HTTP cache tests (npm http-cache-tests), or a checkout of it: SUITE=path.
compliance: $(VENV)/.test
	$(BIN)/python tests/proof/compliance/run.py $(if $(SUITE),--suite $(SUITE)) $(ARGS)

# The test suites of other packages, with the line in each of their apps; ARGS: names of packages.
foreign: $(VENV)/.wheel
	$(BIN)/python tests/foreign/run.py $(ARGS)

# 100,000 calls while upstreams fail, hang and are killed.
soak: $(VENV)/.test
	OM_SOAK_CALLS=100000 $(BIN)/pytest -m proof tests/proof/test_soak.py $(ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

docs: $(VENV)/.lint
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/run.py $(ARGS)

format: $(VENV)/.lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Debian packages that tests need: a browser, Redis, memcached; without root they are left out and the tests say so.
system-packages:
	@sh tests/system-packages.sh

clean:
	rm -rf $(VENV) build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

# Everything runs against the built wheel, so that a file missing from it is found.
$(VENV)/.wheel: $(BIN)/python $(SOURCES)
	$(BIN)/pip install --quiet build hatchling
	rm -rf build/wheel
	$(BIN)/python -m build --quiet --wheel --no-isolation --outdir build/wheel .
	$(BIN)/pip install --quiet --force-reinstall --no-deps build/wheel/*.whl
	@touch $@

define extra
$(VENV)/.$(1): $(VENV)/.wheel
	$(BIN)/pip install --quiet "om-plugins[$(2)] @ file://$$$$(ls $(CURDIR)/build/wheel/*.whl)"
	@touch $$@
endef

$(eval $(call extra,demo,demo))
$(eval $(call extra,test,test))
$(eval $(call extra,lint,lint$(comma)docs))
$(eval $(call extra,bench,bench))

