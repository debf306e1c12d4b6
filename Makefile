# Daily work on vmctl. `./check` is the whole of it and needs no make; these are its parts.

VENV ?= .venv
export VMCTL_VENV := $(abspath $(VENV))
BIN := $(VMCTL_VENV)/bin
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup fmt lint unit golden libvirt vm test bench docs clean

help: ## show this
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

setup: ## install what ./check needs
	./check --setup

fmt: ## format the Python code and repair what ruff can
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

lint: ## every lint: ruff, mypy, imports, spelling, YAML, shell
	./check --lint

unit: ## the tests without processes, libvirt and network
	$(PYTEST) tests/unit

golden: ## write the expected texts anew; read the difference before committing it
	VMCTL_REGENERATE=1 $(PYTEST) tests/golden tests/unit/test_spec_corpus.py tests/libvirt/test_foreign_domains.py

libvirt: ## the tests on libvirt's own test driver
	$(PYTEST) tests/libvirt

vm: ## the tests that boot guests
	$(PYTEST) -m "vm and not long and not soak"

test: ## everything, the long tests too
	./check --all

bench: ## measure against virsh and plain QEMU
	$(BIN)/python -m bench

docs: ## write the generated pages of docs/ anew
	$(BIN)/python -m vmctl.spec.reference

clean: ## remove the virtualenv and every cache; guests and images stay
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf build dist tests/artifacts .vagrant
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
