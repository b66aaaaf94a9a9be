# `make demo` and `make test` do everything on a fresh machine with Python >= 3.11 and make.
#
#   make demo PYTHON=python3.12
#   make test TORCH_INDEX=https://download.pytorch.org/whl/cpu   # torch without its CUDA libraries

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
WORKERS ?= 2

PY := $(VENV)/bin/python
PIP := $(PY) -m pip
STAMP := $(VENV)/.installed
# The search is compiled once for all workers; tests/conftest.py gives each one thread.
PYTEST := $(PY) -c 'from muzero_agent.search.kernels import compile_all; compile_all()' && $(PY) -m pytest -n $(WORKERS) --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint format types commit-checks oracle bench golden \
	constraints clean

help: ## Say what each target does
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

install: $(STAMP) ## Create the environment (all other targets do it by themselves)

demo: $(STAMP) ## Train CartPole, compare with PPO, draw the learning curve and a GIF
	$(PY) examples/demo.py

test: $(STAMP) ## Run the fast tests
	$(PYTEST) -m "not slow" --durations=15

test-slow: $(STAMP) ## Run the slow tests and write their result into tests/SLOW_RESULTS.md
	$(PYTEST) -m slow --timeout=3600 --durations=0 --record-results=tests/SLOW_RESULTS.md

lint: $(STAMP) ## Check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(STAMP) ## Repair what `make lint` can repair
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# The package is checked as it installs, since mypy cannot follow the mapping of adapters/ and zoo/.
types: $(STAMP) ## Check types, strictly
	rm -rf build/typed build/lib build/bdist.*
	$(PIP) install -qq --no-deps --no-build-isolation --target build/typed .
	@cd build/typed && for what in '-p muzero_agent' ../../tests ../../examples ../../benchmarks; do \
		echo "mypy $$what"; \
		$(abspath $(PY)) -m mypy --config-file ../../pyproject.toml $$what || failed=1; \
	done; test -z "$$failed"

commit-checks: test lint types ## Everything that has to pass before a commit

# mctx and JAX, which nothing else needs
oracle: $(STAMP)
	$(PIP) install -qq -c constraints.txt --group golden

bench: oracle ## Time the search beside mctx (benchmarks/ holds more)
	$(PY) benchmarks/search.py

golden: oracle ## Write the trees anew that the search is tested against, with mctx
	$(PY) benchmarks/golden_trees.py

# On a machine whose pip takes torch with CUDA, those libraries stay out: torch pins them itself.
constraints: ## Resolve the newest versions of everything but torch into constraints.txt
	$(PYTHON) -m venv --clear build/newest
	grep '^torch==' constraints.txt > build/newest/torch.txt
	build/newest/bin/python -m pip install -qq --upgrade pip setuptools
	build/newest/bin/python -m pip install -qq --no-build-isolation -c build/newest/torch.txt \
		--group dev --group golden -e '.[all]'
	{ echo '# What `make` installs: written by `make constraints`, never used by `pip install muzero-agent`.'; \
	  build/newest/bin/python -m pip list --format=freeze --exclude muzero-agent \
	  | grep -viE '^(nvidia|cuda|triton)' | sed 's/+[a-z0-9.]*$$//'; } > build/newest/constraints.txt
	mv build/newest/constraints.txt constraints.txt

clean: ## Remove the environment and everything built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip first, since the one that Python brings may not know dependency groups; then torch, alone, so
# that TORCH_INDEX serves nothing else.
$(STAMP): pyproject.toml constraints.txt | $(VENV)/bin/pip
	@echo 'Installing into $(VENV): a minute or more, most of it for torch.'
	$(PIP) install -qq --upgrade -c constraints.txt pip setuptools
	$(PIP) install -qq --no-deps -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) install -qq --no-build-isolation -c constraints.txt --group dev -e '.[atari,baselines,box2d,chess,hub,minatar,offline,pettingzoo,plots,rl-zoo]'
	@touch $@

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'Python >= 3.11 is needed: name one, as in `make $(or $(MAKECMDGOALS),test) PYTHON=python3.12`.' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo 'This Python cannot create an environment (ensurepip is missing).' >&2; \
		echo 'On Debian and Ubuntu: apt install python3-venv. Or name another: PYTHON=/path/to/python.' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
