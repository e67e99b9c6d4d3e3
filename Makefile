# Two commands do everything: `make demo` and `make test`. Both build .venv when it is missing or
# pyproject.toml changed.
PYTHON ?= python3.11
VENV := .venv
HARNESS := $(VENV)/bin/harness
STAMP := $(VENV)/.installed

.PHONY: demo test lint unit end-to-end clean

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
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV)
