# Everything one does with a clone. `make` alone lists it.

PYTHON ?= python3
PORT ?= 8000
TESTS ?= tests

PY := .venv/bin/python
# The pinned requirements are installed again when their file or the Python changes.
READY := .venv/ready
READY_DEV := .venv/ready-dev
READY_BENCH := .venv/ready-bench

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run stop clean test soak coverage lint bench demo-grow able

help: ## list these
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile
	@echo '  Variables: PORT=8000 (run), TESTS=tests.config (test), SOAK_MINUTES=30 (soak),'
	@echo '    PYTHON=python3 (the first time)'

run: $(READY) ## set everything up, then serve on http://127.0.0.1:8000 until Ctrl-C
	@embedded=$$($(PY) -c 'from config import settings; print(settings.EMBEDDED)') || exit; \
	if [ $$embedded = True ]; then $(PY) -m config.embedded start || exit; fi; \
	summary=$$($(PY) manage.py migrate --no-color) || exit; \
	printf '%s\n' "$$summary" | sed -n 's/^Summary:/Migrations:/; /^Migrations:/,$$p'; \
	if [ $$embedded = True ]; then $(PY) manage.py load_sample || exit; fi; \
	printf 'Analytics: '; $(PY) manage.py sync_analytics --no-progress || exit; \
	if [ $$embedded = True ]; then \
		echo 'The servers go on after Ctrl-C, until "make stop". From here on, the log of the site.'; \
	fi; \
	echo 'Open http://127.0.0.1:$(PORT)/'; \
	exec env DJANGO_RUNSERVER_HIDE_WARNING=true $(PY) manage.py runserver 127.0.0.1:$(PORT)

stop: able ## stop the embedded servers; their data stay
	@[ ! -e var ] || $(PY) -m config.embedded stop

clean: able ## stop the embedded servers and delete them, var/ and .venv
	@for folder in var/*; do \
		[ ! -d "$$folder" ] || $(PY) -m config.embedded --folder "$$folder" destroy || exit; \
	done
	rm -rf var .venv

test: $(READY_DEV) ## run the tests, on servers of their own
	$(PY) manage.py test --parallel 3 $(TESTS)

soak: $(READY_DEV) ## run the tests at length: minutes to hours
	SOAK=1 $(PY) manage.py test --parallel 2 $(TESTS)

coverage: $(READY_DEV) ## run the tests, and show what they do not reach
	@$(PY) -m coverage erase
	$(PY) -m coverage run manage.py test --parallel 3 $(TESTS)
	@$(PY) -m coverage combine --quiet
	$(PY) -m coverage report --skip-covered

lint: $(READY_BENCH) ## check style, types, imports and migrations; needs no server
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	$(PY) -m mypy .
	$(PY) manage.py check
	$(PY) -W 'ignore:Got an error checking a consistent migration history:RuntimeWarning' \
		manage.py makemigrations --check --dry-run

bench: $(READY_BENCH) ## run every benchmark
	@for program in $$(grep -l '^if __name__ ==' benchmarks/*.py | sed 's,.*/\(.*\).py,\1,'); do \
		echo "$$program:"; $(PY) -m benchmarks.$$program || exit; \
	done

demo-grow: $(READY_BENCH) ## three shards become four under load, on servers of its own
	@$(PY) -m benchmarks.grow

# To end servers takes a .venv that works, even when it was broken or deleted while they ran.
able:
	@if [ -e var ] && ! $(PY) -c 'import config.embedded' 2>/dev/null; then \
		rm -rf .venv && $(MAKE) --no-print-directory $(READY); \
	fi

$(READY): requirements.txt $(PY)
	@echo 'Installing requirements.txt ...'
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(READY_DEV): requirements-dev.txt $(READY)
	@echo 'Installing requirements-dev.txt ...'
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(READY_BENCH): requirements-bench.txt $(READY_DEV)
	@echo 'Installing requirements-bench.txt ...'
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	@touch $@

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'This needs Python 3.11 or newer, and $(PYTHON) is not. Name one: make PYTHON=python3.13 ...' >&2; \
		exit 1; }
	@$(PYTHON) -m venv --clear .venv
