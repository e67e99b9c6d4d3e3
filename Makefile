# Two commands do everything: `make demo` and `make test`. Both build .venv when it is missing or
# pyproject.toml changed.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name) 2>/dev/null)))
VENV := .venv
HARNESS := $(VENV)/bin/harness
STAMP := $(VENV)/.installed

.PHONY: demo test lint unit clean

demo: $(STAMP)
	$(HARNESS) prepare experiment=demo
	$(HARNESS) sweep experiment=demo
	$(HARNESS) fit experiment=demo
	$(HARNESS) forecast experiment=demo_frontier
	$(HARNESS) train experiment=demo_frontier
	$(HARNESS) score experiment=demo_frontier
	$(HARNESS) report experiment=demo_frontier

test: lint unit

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

unit: $(STAMP)
	$(VENV)/bin/pytest -n 2

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python found; install 3.11 or newer, or set PYTHON=" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11; set PYTHON=" >&2; exit 2; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV)
