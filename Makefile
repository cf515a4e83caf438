# `make demo` or `make test` on a machine that has Python 3.11 does all the set-up, into .venv.

PYTHON ?= $(firstword $(foreach p,python3.11 python3 python,$(shell $(p) -c 'import sys; (3,11) <= sys.version_info < (3,15) and print("$(p)")' 2>/dev/null)))
UV     ?= uv==0.13.9

# One thread a process, as the notebooks are tested side by side; and tests never wait for a model hub.
RUN = PATH="$(CURDIR)/.venv/bin:$$PATH" OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1

# What is formatted and linted; and of the package, the modules whose types are checked, those of them that are there.
CODE  = nbs tests tools
TYPED = $(wildcard speak/paper speak/warp speak/supervision speak/baselines $(patsubst %,speak/%.py,config errors labels model weights tensors caches progress stopping demo doctor cli))

.PHONY: help demo test slow lint format readme lock weights clean

help:
	@echo 'make demo     a video from the four embedded inputs, and a grid of one change each, in demo/'
	@echo 'make test     format, lint and types, then every notebook, then tests/ (WORKERS=1 for one notebook at a time)'
	@echo 'make slow     the tests marked slow too; those in a browser need apt-get install chromium and pip install ".[browser]",'
	@echo '              those with PostgreSQL apt-get install postgresql and pip install ".[postgresql]"'
	@echo 'make lint     format, lint and types alone, in seconds'
	@echo 'make format   format the notebooks, tests and tools, and export speak/ from the notebooks'
	@echo 'make weights  train weights by the shipped recipe on the embedded corpus'
	@echo 'make readme   README.md from nbs/index.ipynb'
	@echo 'make lock     requirements.lock from pyproject.toml (LOCK_FLAGS=--upgrade for newer versions)'
	@echo 'make clean    remove what the above made, without runs/'

# The one package without a wheel, a few files of Python: pip builds it.
WHEELS = --only-binary :all: --no-binary python-speech-features

# --no-deps: the lock is whole, and has one cv2 for the two that packages ask for; see [tool.uv] in pyproject.toml.
.venv/.locked: requirements.lock
	@test -n '$(PYTHON)' || { echo 'speak needs Python 3.11 (3.12 to 3.14 will do) and found none as python3.11, python3 or python: install it, or name it with make PYTHON=/where/it/is.' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(not (3,11) <= sys.version_info < (3,15))' || { echo 'speak needs Python 3.11 (3.12 to 3.14 will do), and $(PYTHON) is not one.' >&2; exit 1; }
	@'$(PYTHON)' -m venv .venv || { echo '$(PYTHON) cannot make a virtual environment: on Debian and Ubuntu, install the package python3.11-venv.' >&2; exit 1; }
	.venv/bin/python -m pip install --require-hashes $(WHEELS) --no-deps -r requirements.lock
	@touch $@

.venv/.installed: .venv/.locked pyproject.toml
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: .venv/.installed
	.venv/bin/speak demo --out demo

# All parts run, so that one failure does not hide another.
test: .venv/.installed
	@status=0; \
	$(MAKE) --no-print-directory lint || status=1; \
	$(RUN) nbdev_test $(if $(WORKERS),--n_workers $(WORKERS)) || status=1; \
	$(RUN) python -m pytest || status=1; \
	exit $$status

slow: .venv/.installed
	@status=0; \
	$(RUN) nbdev_test --flags slow $(if $(WORKERS),--n_workers $(WORKERS)) || status=1; \
	$(RUN) python -m pytest -m slow || status=1; \
	exit $$status

lint: .venv/.installed
	@status=0; \
	$(RUN) ruff format --check $(CODE) || status=1; \
	$(RUN) ruff check $(CODE) || status=1; \
	$(RUN) mypy $(TYPED) || status=1; \
	exit $$status

format: .venv/.installed
	$(RUN) ruff format $(CODE)
	$(RUN) ruff check --fix $(CODE)
	$(RUN) nbdev_export
	$(RUN) nbdev_clean

readme: .venv/.installed
	.venv/bin/python tools/readme.py

# uv in an environment of its own: it resolves for every platform at once, which pip cannot.
lock:
	'$(PYTHON)' -m venv build/lock
	build/lock/bin/python -m pip install --quiet '$(UV)'
	build/lock/bin/uv pip compile pyproject.toml --extra dev --group lock --universal --python-version 3.11 \
		$(WHEELS) --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock' \
		$(LOCK_FLAGS) --quiet --output-file requirements.lock

weights: .venv/.installed
	mkdir -p runs/weights
	PATH="$(CURDIR)/.venv/bin:$$PATH" papermill --cwd nbs nbs/train.ipynb runs/weights/train.ipynb \
		-p preset tiny -p data synthetic -p run_dir "$(CURDIR)/runs/weights"
	mkdir -p speak/weights/tiny
	cp runs/weights/export/config.json runs/weights/export/model.safetensors speak/weights/tiny/

clean:
	rm -rf .venv build dist demo *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find speak tests tools nbs -name __pycache__ -prune -exec rm -rf {} +
