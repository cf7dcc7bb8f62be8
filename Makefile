# Everything from a bare clone: `make demo`, `make test`.
PYTHON ?= python3
export PYTHON
BIN = .venv/bin

.PHONY: env demo test lint test-openmmlab

env:
	@tools/make_env.sh onedl .venv

demo: env
	$(BIN)/python -W ignore demo/run.py

test: env
	$(BIN)/python -m pytest -n 2

lint: env
	$(BIN)/ruff check .
	$(BIN)/codespell

# The same tests on the classic stack.
test-openmmlab:
	@tools/make_env.sh openmmlab .venv-openmmlab
	.venv-openmmlab/bin/python -m pytest -n 2
