# make demo: an environment, kdbench in it, and a bare `kdbench run`.  make test: the same for the test suite.
# make bench BENCH=--benchmark-autosave, and later BENCH=--benchmark-compare: now and then.  make performance: docs/performance.md.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint docs bench performance gpu clean

demo: $(VENV)/.installed
	$(BIN)/kdbench run

# FULL=1 also runs long tests, tests of all methods for every one, and those on a SLURM cluster, which takes twice the time.
# COVERAGE=1 counts the lines of kdbench/ that the tests run, and fails below 90 %; the report is in htmlcov/index.html.
test: $(VENV)/.installed-dev
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadscope --no-loadscope-reorder \
		$(if $(FULL),,-m 'not exhaustive and not slurm') \
		$(if $(COVERAGE),--cov --cov-report=term:skip-covered --cov-report=html --cov-fail-under=90)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site of docs/, which opens from a file: site/index.html. tests/test_site.py builds it too.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -o addopts= --import-mode=importlib --benchmark-only $(BENCH) tests/benchmarks
	$(BIN)/python tests/benchmarks/costs.py

performance: $(VENV)/.installed-dev
	$(BIN)/python tests/benchmarks/performance.py

# What only a GPU can show, and a table of speed; exit status 2 without a GPU.
gpu: $(VENV)/.installed-dev
	@$(BIN)/python -c "import torch; raise SystemExit(not torch.cuda.is_available())" \
		|| { echo "make gpu needs a GPU that torch can use, and this machine has none" >&2; exit 2; }
	$(BIN)/python -m pytest -m gpu tests/gpu
	$(BIN)/python tests/benchmarks/on_gpu.py --methods ce kd corsd --blocks 3

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache dist site htmlcov .coverage
