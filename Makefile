# One word for everything that is done often. Every target that needs Python packages makes .venv first.
#
#   make run ARGS='seed=1 name=second'    make test ARGS='-k replay -x'    make run PYTHON=python3.12

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
# Written last, so that an interrupted install is done again from the start.
INSTALLED := $(VENV)/.installed
# XLA takes fresh memory for every update. In huge pages, where the system grants them to those who
# ask, an update of a larger model takes up to a third less time; other systems ignore this.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
BENCHMARKS := benchmarks/union_cost.py benchmarks/update_step.py benchmarks/replay.py \
  benchmarks/replay_share.py benchmarks/comparison_page.py

.PHONY: help run test check slow bench results wheel constraints clean

help:  ## say what can be made
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 20

run: $(INSTALLED)  ## live through DMC, then Crafter; leaves a report under runs/
	$(BIN)/python -m continual.run curricula/dmc_then_crafter.yaml $(ARGS)

test: $(INSTALLED)  ## the suite, without what takes minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: $(INSTALLED)  ## format, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# XLA_FLAGS, even empty, goes before those with which the suite compiles without optimising.
slow: $(INSTALLED)  ## what the suite leaves out: learning, whole runs
	XLA_FLAGS="$$XLA_FLAGS" $(BIN)/python -m pytest -m slow $(ARGS)

bench: $(INSTALLED)  ## what an update, a decision, the union of worlds and the replay cost
	@for script in $(BENCHMARKS); do echo "$$script"; $(BIN)/python "$$script" || exit 1; done

results: $(INSTALLED)  ## live what docs/results/ lacks, for 50 minutes at a time, and write its tables
	$(BIN)/python benchmarks/results.py $(ARGS)

wheel: $(INSTALLED)  ## build the wheel, and run the smoke curriculum from it, far from the sources
	PYTHON='$(PYTHON)' sh .ci/wheel

constraints: $(INSTALLED)  ## resolve constraints.txt anew; needs uv
	sh .ci/constraints

clean:  ## remove what was built and cached; runs/ and .venv stay
	rm -rf build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find agent benchmarks configs continual curricula eval storage tests \
	  -type d -name __pycache__ -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@test -e $@ || rm -rf $(VENV)
	@rm -f $@
	@PYTHON='$(PYTHON)' sh .ci/install $(VENV) --editable '.[dev]'
	@touch $@
