# Everything runs in an environment that is made on first use. Choose the interpreter with PYTHON=python3.12, the folder
# with VENV=…; VENV_READY=1 says that the environment holds everything already, so nothing is installed. JOBS=… is how
# many processes tests and shown commands run in, each of them with one thread: three on two cores, since tests often wait
# for a process or a server. What is installed has the versions of pins.txt, which `make lock` renews.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 3
PY := $(VENV)/bin/python
PINNED := PIP_CONSTRAINT=pins.txt PIP_BUILD_CONSTRAINT=pins.txt

ifdef VENV_READY
TRAIN :=
DEV :=
else
TRAIN := $(VENV)/.installed-train
DEV := $(VENV)/.installed-dev
endif

# Where it is set, each of the hundreds of processes that tests start would compile the packages anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo demo-page test test-fast check check-nightly durations docs docs-serve surface format format-check lint weight types imports readme readme-shop readme-others wheel wheel-test resolve image lock audit bench clean

help: ## this list
	@echo "make TARGET, where TARGET is"
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(TRAIN) ## all commands, in $(VENV)
	@echo "Installed:" $(VENV)/bin/sar-*

demo: $(TRAIN) ## a shop: six garments from photos, four more by name and photos, then photos without names (two minutes)
	PATH="$(abspath $(VENV))/bin:$$PATH" $(PY) scripts/demo.py

demo-page: $(DEV) ## a static folder below 25 MB, build/page, to try it in a browser without installing (needs npm once)
	mkdir -p build && rm -f build/shop.safetensors build/shop.onnx
	$(VENV)/bin/sar-bank create build/shop.safetensors --photos examples/clothes/train
	$(VENV)/bin/sar-bundle onnx --bank build/shop.safetensors --out build/shop.onnx
	$(PY) examples/browser/prepare.py build/shop.onnx build/page

# ------------------------------------------------------------------------------------------------------------- checks
check: format-check lint weight types imports readme test ## all checks, as CI runs them

format: $(DEV) ## rewrite in the one format
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix-only --quiet .

format-check: $(DEV) ## is everything in the one format?
	$(PY) -m ruff format --check --quiet .

lint: $(DEV) ## ruff's rules
	$(PY) -m ruff check --quiet .

weight: $(DEV) ## is a package above its budget ([tool.weight] in pyproject.toml)?
	$(PY) scripts/layout.py --check

types: $(DEV) ## mypy, strict
	$(PY) -m mypy

imports: $(DEV) ## who may import whom
	$(VENV)/bin/lint-imports --no-logo

readme: $(DEV) ## every command that README, CONTRIBUTING and the docs show
	$(MAKE) --no-print-directory --jobs $(JOBS) readme-shop readme-others

readme-shop: $(DEV)
	OMP_NUM_THREADS=1 $(PY) scripts/readme_commands.py README.md docs/tutorial.md

readme-others: $(DEV)
	OMP_NUM_THREADS=1 $(PY) scripts/readme_commands.py CONTRIBUTING.md docs/banks.md docs/bulk.md docs/compare.md docs/customers.md docs/encoders.md docs/evaluate.md docs/extend.md docs/handover.md docs/index.md docs/one_file.md docs/python.md

PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

test: $(DEV) ## all tests but those for the night
	$(PYTEST)

test-fast: $(DEV) ## the tests that take seconds
	$(PYTEST) -m "not slow and not nightly"

check-nightly: $(DEV) ## the rest: clusters, other programs, more architectures, every example of each property
	SAR_NIGHTLY=1 $(PYTEST) -m "nightly or hypothesis"

durations: $(DEV) ## tests/durations.json, by which the longest files go first
	$(PYTEST) --junitxml build/tests.xml
	$(PY) -m scripts.durations build/tests.xml

# ------------------------------------------------------------------------------------------------------ documentation
# Material says on every run that a version 2 of MkDocs will not have it.
docs: $(DEV) ## the documentation site, into site/
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build

docs-serve: $(DEV) ## the same on localhost:8000, renewed with every change
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs serve

surface: $(DEV) ## docs/surface.txt, after a change of what users can hold on to
	$(PY) -m scripts.surface

# ---------------------------------------------------------------------------------------------- packages, measurements
wheel: $(DEV) ## source archive and wheel, into dist/
	$(PY) -m build --no-isolation --outdir dist

wheel-test: $(DEV) ## the wheel alone, without torch, in a fresh environment of each Python claimed
	$(PY) scripts/wheel_test.py

resolve: $(DEV) ## each extra without pins, by pip alone: the seconds, and the releases that it tried in vain
	$(PY) scripts/resolve.py

image: ## build the container image and test it (docker, podman or, as root, buildah)
	.ci/image

lock: | $(PY) ## the newest versions that fit together on Python 3.11 to 3.13, into pins.txt
	$(PINNED) $(PY) -m pip install --quiet uv
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(VENV)/bin/uv pip compile pyproject.toml --extra dev --group audit \
	  --quiet --upgrade --universal --python-version 3.11 --no-annotate --output-file pins.txt

audit: $(TRAIN) ## known vulnerabilities of the packages in $(VENV) (asks a database on the network)
	$(PY) -m venv build/audit
	$(PINNED) build/audit/bin/python -m pip install --quiet pip-audit
	build/audit/bin/pip-audit --skip-editable --progress-spinner off \
	  --path "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

bench: $(DEV) ## the measurements behind docs/experiments.md (needs an idle machine)
	for script in $$(grep -l __main__ benchmarks/*.py); do \
		$(PY) -m "benchmarks.$$(basename "$$script" .py)" || exit 1; \
	done
	$(PY) -m benchmarks.throughput
	$(PY) -m benchmarks.serving

clean: ## remove what was built, not the environment
	rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# -------------------------------------------------------------------------------------------------------- environment
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "sar-clip needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-train: pyproject.toml pins.txt | $(PY)
	@echo "Installing the commands into $(VENV). On Linux PyTorch brings CUDA, 3 GB to download: minutes on a first run."
	$(PINNED) $(PY) -m pip install --editable '.[bulk,client,experiment,serve]' scikit-image
	touch $@

$(VENV)/.installed-dev: pyproject.toml pins.txt | $(PY)
	@echo "Installing all of pins.txt into $(VENV). On Linux PyTorch brings CUDA, 3 GB to download: minutes on a first run."
	$(PINNED) $(PY) -m pip install --editable '.[dev]'
	touch $@ $(VENV)/.installed-train
