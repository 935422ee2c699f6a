# Every target does its own set-up: a virtual environment, the dependencies, the C core and the guest images.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

CORE := $(wildcard machine/core/*) $(wildcard traces/codec/*)
GUEST := $(shell find machine/guest -type f)

.PHONY: setup demo test soak lint fuzz-isa fuzz bench gallery linux clean
.DELETE_ON_ERROR:

setup: $(VENV)/.images

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	touch $@

# What racetape needs to run.
$(VENV)/.installed: $(VENV)/.created pyproject.toml setup.py $(CORE)
	$(PIP) install -e .
	touch $@

$(VENV)/.images: $(VENV)/.installed $(GUEST) machine/images.py
	$(BIN)/python -m machine.images
	touch $@

# What its tests and benchmarks need on top: the extra `dev`, without building the core once more.
$(VENV)/.developer: $(VENV)/.images pyproject.toml
	$(BIN)/python -c "import tomllib; \
	  print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['dev'], sep='\n')" \
	  > $(VENV)/developer.txt
	$(PIP) install -r $(VENV)/developer.txt
	touch $@

demo: setup
	$(BIN)/racetape demo

# Shared out among all processors: whoever runs out of tests takes the last half of what another has left.
test: lint
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal

# The same tests with their full counts.
soak: $(VENV)/.developer
	$(BIN)/python -m pytest -m soak

lint: $(VENV)/.developer
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A Linux kernel from Debian's source package, outside of this folder, and a tape of its boot: docs/linux.md.
LINUX_CACHE ?= $(HOME)/.cache/racetape/linux
export LINUX_CACHE
linux: setup
	tools/linux/build.sh up-2level
	$(BIN)/racetape linux record --kernel $(LINUX_CACHE)/build-up-2level/vmlinux \
	  --initrd $(LINUX_CACHE)/build-up-2level/initrd.cpio --append "console=ttyS0 reboot=k" \
	  --console -o $(LINUX_CACHE)/up-2level.tape
	$(BIN)/racetape verify $(LINUX_CACHE)/up-2level.tape
	$(BIN)/python -m pytest -m linux

# The tapes that come with racetape, made anew.
gallery: setup
	$(BIN)/python -m racetape.gallery_build

# Generated vectors on the real CPU and on the machine: make fuzz-isa SEED=7 COUNT=1000000
SEED ?= 0
COUNT ?= 1000000
fuzz-isa: $(VENV)/.developer
	$(BIN)/python tests/machine/fuzz_isa.py --seed $(SEED) --count $(COUNT)

# The fuzzer over the core, with sanitizers: make fuzz RUNS=10000000 CHECKS=full (docs/fuzzing.md)
RUNS ?= 10000000
CHECKS ?= fast
fuzz:
	tests/fuzz/build.sh build/fuzz/$(CHECKS) $(CHECKS)
	mkdir -p build/fuzz/corpus
	build/fuzz/$(CHECKS)/fuzz_core -runs=$(RUNS) -timeout=30 -max_len=600 -len_control=0 -entropic=0 \
	  -print_final_stats=1 -artifact_prefix=build/fuzz/ build/fuzz/corpus tests/fuzz/seeds

bench: $(VENV)/.developer
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.hunting
	$(BIN)/python -m benchmarks.tapes

clean:
	rm -rf $(VENV) build *.egg-info machine/*.so traces/*.so machine/built
