# Everything from a bare clone: `make demo`, `make test`.
PYTHON ?= python3
export PYTHON
BIN = .venv/bin

.PHONY: env demo test test-pretrain lint docs wheel test-openmmlab soak gpu \
	gpu-wheels

env:
	@.dev/make_env.sh onedl .venv

demo: env
	$(BIN)/python -W ignore demo/run.py

test: env
	$(BIN)/python -m pytest -n 2 --dist worksteal

# These tests need torchvision, which .venv does not have.
test-pretrain:
	@.dev/make_env.sh pretrain .venv-pretrain
	.venv-pretrain/bin/python -m pytest -n 2 tests/configs/test_imagenet.py \
	    tests/data_checks/test_classification.py tests/engine/test_classifiers.py \
	    tests/commands/test_classifier.py tests/docs/test_pretrain.py \
	    tests/test_timm.py tests/docs/test_plain_pytorch.py \
	    tests/gpu/test_miniature.py tests/gpu/test_without_mmcv_ops.py \
	    tests/backbones/test_fusing.py

lint: env
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/lint-imports

docs: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Build the wheel, and test it alone in an environment of one family.
FAMILY ?= onedl
wheel: env
	.ci/wheel $(FAMILY)

# The same tests with OpenMMLab's libraries.
test-openmmlab:
	@.dev/make_env.sh openmmlab .venv-openmmlab
	.venv-openmmlab/bin/python -m pytest -n 2 --dist worksteal

# The tests with random input at full length. DATA=DIR adds those on real
# data.
soak: env
	$(BIN)/python -m pytest -n 2 --soak -m soak \
	    $(if $(DATA),--real-data $(DATA))

# Measure on a GPU, in eight minutes. CONTRIBUTING lists what the machine
# needs. JSON=PATH is the file of the figures.
gpu:
	$(PYTHON) -W ignore -m tests.gpu --json $(or $(JSON),gpu.json)

# Collect the wheels that such a machine lacks for whole models.
gpu-wheels:
	tests/gpu/collect_wheels.sh $(PYTHON)
