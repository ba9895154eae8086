# `make` lists the targets. The work is in .ci/setup and the tools' settings in pyproject.toml.

ARGS =
MINUTES = 1
BACKEND =
QUICK = $(addprefix tests/, spec plans models optimizers schedules state training/test_history.py training/test_recipes.py training/test_callbacks.py test_api.py)

# In the environment of the target's name. OneFlow is not there, and what needs it skips; what needs torch has to run.
TEST_TORCH = LAYERED_LR_REQUIRE_BACKENDS=torch-eager,torch-compile .venv-$(@:test-%=%)/bin/python -m pytest -n 2 --dist worksteal --max-worker-restart 50 $(ARGS)

# They would mix another Python's packages into .venv.
unexport PYTHONPATH PYTHONHOME
# The tests start hundreds of processes: with bytecode each saves the quarter of a second in which it compiles the library.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup run test test-exhaustive fuzz quick lint docs bench bench-peers bench-translation certificate test-integrations \
	test-versions test-torch-oldest test-torch-newest clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile
	@echo '  ARGS="..." goes on to layered-lr (run) or to pytest (test) or to the benchmarks; PYTHON=... names the Python 3.10 to set up with.'

setup: ## make .venv, where it is not ready (PYTHON=/path/to/python3.10 to choose)
	@bash .ci/setup

run: setup ## train the default recipe in OneFlow's Graph mode
	.venv/bin/layered-lr run --backend oneflow-graph $(ARGS)

test: lint ## lint, then all tests
	# In two processes: should a framework abort one, the other tests go on. An idle one takes tests from the other.
	.venv/bin/pytest -n 2 --dist worksteal --max-worker-restart 50 $(ARGS)

test-exhaustive: setup ## what `make test` leaves out: the widest cases of matrices, of which it has others, and benchmarks of many processes
	.venv/bin/pytest -n 2 --dist worksteal --max-worker-restart 50 -m exhaustive $(ARGS)

test-integrations: setup ## specs in Lightning, transformers, accelerate, timm, … themselves, in .venv-integrations: two minutes, once it is made
	@bash .ci/setup-apart .venv-integrations tests/integrations/requirements.txt torch,test --no-deps
	OMP_NUM_THREADS=1 .venv-integrations/bin/python -m pytest -W default --require-trainers tests/integrations $(ARGS)

test-versions: test-torch-oldest test-torch-newest ## the tests of torch with the oldest torch that is declared (Python 3.10) and with the newest (3.13), in .venv-torch-oldest and .venv-torch-newest; make -k runs both whatever comes

test-torch-oldest: setup
	@APART_CONSTRAINTS=tests/versions/torch-oldest.txt bash .ci/setup-apart .venv-torch-oldest tests/versions/torch-oldest.txt torch,test
	$(TEST_TORCH)

test-torch-newest: setup
	@APART_PYTHON=3.13 APART_CONSTRAINTS=tests/versions/torch-newest.txt bash .ci/setup-apart .venv-torch-newest tests/versions/torch-newest.txt torch,test
	$(TEST_TORCH)

fuzz: setup ## random arguments, specs and recipes for so many minutes a target (MINUTES=1): a result or a clear error, nothing else (BACKEND=oneflow-graph for one)
	FUZZ_MINUTES=$(MINUTES) $(if $(BACKEND),LAYERED_LR_REQUIRE_BACKENDS=$(BACKEND) ).venv/bin/pytest -n 2 --dist worksteal --timeout 0 $(if $(BACKEND),tests/fuzz/test_backends.py -k $(BACKEND),tests/fuzz) $(ARGS)

quick: setup ## the tests of a minute: specs, plans, models, data, schedules, state, options, callbacks
	.venv/bin/pytest -n 2 --dist worksteal -m "not slow and not exhaustive" -k "not torch-compile and not oneflow" $(QUICK) $(ARGS)

lint: setup ## ruff, mypy, and the floors of the house (import-linter)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

docs: setup ## build the site of docs/ into site/, strictly and without the network (the tests build it too)
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet

bench: setup ## measure everything, renew RESULTS.md and the tables in docs/measured.md and README.md: half an hour on a quiet machine
	.venv/bin/python -m compileall -q layered_lr backends benchmarks
	.venv/bin/layered-lr bench $(ARGS)
	.venv/bin/python -m benchmarks.documents

bench-translation: setup ## how far torch models that are translated to OneFlow are from torch
	.venv/bin/python -m benchmarks.translation $(ARGS)

bench-peers: setup ## the same beside Lightning, Keras, timm, fastai in .venv-peers
	@bash .ci/setup-apart .venv-peers benchmarks/peers/requirements.txt torch,bench
	.venv-peers/bin/python -m benchmarks.peers $(ARGS)
	.venv/bin/python -m benchmarks.documents

certificate: setup ## measure how often the certificate is wrong, and renew docs/certificate.md: hours (ARGS="--seeds 4" for one)
	OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.certificate $(ARGS)

clean: ## remove .venv, caches and build outputs; runs/ stays
	rm -f .venv/setup-stamp
	rm -rf .venv .venv-peers .venv-integrations .venv-torch-oldest .venv-torch-newest .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
