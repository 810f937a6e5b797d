# Every target makes what it needs; nothing but Python >= 3.11 with venv, make and a C/C++ compiler is assumed.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
KERNELS := $(wildcard penstock/_native/*.pyx penstock/_native/*.pxd penstock/_native/*.hpp)

.DEFAULT_GOAL := help
.PHONY: help install demo test statistics crash check lint types bench bench-quick kafka clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED)  ## create .venv with everything pinned, and build the kernels

$(INSTALLED): pyproject.toml constraints.txt setup.py $(KERNELS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Penstock needs Python 3.11 or newer; set PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (a minute or two, once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install  ## the main job on bundled real data: race, drift, shadow, promotion, swap
	@$(BIN)/penstock demo

test: install  ## the test suite
	@$(BIN)/python -m pytest -n auto --dist loadgroup

statistics: install  ## the simulations behind the gate's guarantee, at full size
	@$(BIN)/python -m pytest -n auto -s -m statistics tests

crash: install  ## every shipped configuration killed twenty times, and compared with a run that was not
	@$(BIN)/python -m pytest -s -m crash tests

lint: install
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: install
	@$(BIN)/mypy

check: lint types test  ## ruff, mypy and the tests

bench: .venv/peers  ## speed and memory, as ratios against the peers measured in the same run; a quarter of an hour
	@$(BIN)/python -m benchmarks

bench-quick: .venv/peers  ## the same in less than two minutes, rougher, and printed only
	@$(BIN)/python -m benchmarks --quick

# One of the peers is compiled where it is installed: without it there is a row less.
.venv/peers: $(INSTALLED)
	@echo "installing the peers ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench]' || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt mabwiser scikit-learn
	@touch $@

kafka: install  ## a Kafka broker on localhost:9092 (needs Java >= 17 and Maven); Ctrl-C stops it
	@$(BIN)/python tests/kafka/broker.py serve

clean:  ## remove everything that was built
	rm -rf .venv build dist *.egg-info penstock-demo .mypy_cache .ruff_cache .pytest_cache
	find penstock -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
