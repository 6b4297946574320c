# The words of the house. Needs python3 (>= 3.10), a C++17 compiler, git and make; sets up the rest in .venv and build/.
# Stamps in .venv keep a second run from setting up again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PACKAGES := $(VENV)/.packages
ENGINE := $(VENV)/.engine
ENGINE_SOURCES := CMakeLists.txt $(wildcard $(addprefix engine/,*.cc *.h grid/*.cc grid/*.h scene/*.cc scene/*.h points/*.cc points/*.h points/*.inc kernels/*.cc kernels/*.h kernels/*.inc))
JOBS ?= 2
SANITIZE ?= address,undefined
ARM_CXX := $(shell command -v aarch64-linux-gnu-g++ 2>/dev/null)
ARM_RUN := $(shell command -v qemu-aarch64-static 2>/dev/null)

.PHONY: help demo test build laws bench lint size docs engine-test arm-test avx512-test sanitize clean

help:
	@echo "make demo         train, pack, verify and run binary networks on made-up shapes and rooms"
	@echo "make test         all tests: Python, engine, with sanitizers too, and ARM under emulation where it can be"
	@echo "make build        set up: virtual environment, packages, compiled engine"
	@echo "make laws         only the tests of what holds for every member of a family"
	@echo "make bench        the measurements; CASE=gemm|pointnet|training for one of them"
	@echo "make lint         ruff, mypy, clang-format"
	@echo "make size         lines per room"
	@echo "make docs         check that links between the documents lead somewhere"
	@echo "make engine-test  only the tests of the engine in C++"
	@echo "make arm-test     the same for 64-bit ARM, under qemu"
	@echo "make avx512-test  the AVX-512 kernels under emulation, where the processor has none"
	@echo "make sanitize     the same with SANITIZE=$(SANITIZE)"
	@echo "make clean        remove build/, .venv and caches"

# torch goes first and alone: as a CPU build in this spelling, while an open range brings gigabytes of CUDA.
$(PACKAGES): constraints.txt pyproject.toml
	@test -x $(BIN)/python || { echo "setting up $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing packages"
	@$(PIP) $$(sed -n 's/#.*//; /^torch==/p' constraints.txt) -c constraints.txt
	@$(PIP) $$(sed 's/#.*//; /^torch==/d' constraints.txt) -c constraints.txt
	@touch $@

$(ENGINE): $(PACKAGES) $(ENGINE_SOURCES)
	@echo "compiling the engine"
	@PATH="$(abspath $(BIN)):$$PATH" CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(PIP) --no-build-isolation --no-deps -e .
	@touch $@

build: $(ENGINE)

demo: $(ENGINE)
	$(BIN)/python examples/demo.py

test: $(ENGINE)
	@$(MAKE) --no-print-directory engine-test sanitize
	$(BIN)/python -m pytest -q
	@$(MAKE) --no-print-directory arm-test avx512-test

laws: $(ENGINE)
	$(BIN)/python -m pytest -q tests/laws

CASE ?= gemm pointnet training
bench: $(ENGINE)
	@for case in $(CASE); do $(BIN)/python benchmarks/run.py $$case || exit 1; done

lint: $(PACKAGES)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $$(git ls-files 'engine/*.cc' 'engine/*.h')

size:
	@for room in src/popcloud src/popcloud/geometry src/popcloud/data src/popcloud/packed src/popcloud/runtime \
	  src/popcloud/learn src/popcloud/learn/backbones src/popcloud/learn/scenes src/popcloud/cli engine engine/grid engine/scene \
	  engine/kernels engine/tests benchmarks benchmarks/cases examples; do \
	  printf '%7d  %s\n' "$$(cat $$room/*.py $$room/*.cc $$room/*.h 2>/dev/null | wc -l)" $$room; done
	@printf '%7d  %s\n' "$$(find tests -name '*.py' -exec cat {} + | wc -l)" tests
	@echo "longest files:"
	@git ls-files '*.py' '*.cc' '*.h' | xargs wc -l | sort -rn | sed -n '2,6p'

docs:
	@$(PYTHON) docs/check_links.py

engine-test: $(PACKAGES)
	@$(call build_and_test,build/engine)

sanitize: $(PACKAGES)
	@$(call build_and_test,build/sanitize,-DPOPCLOUD_SANITIZE=$(SANITIZE))

arm-test: $(PACKAGES)
ifeq ($(and $(ARM_CXX),$(ARM_RUN)),)
	@echo "arm-test skipped: it needs aarch64-linux-gnu-g++ (found: $(or $(ARM_CXX),none))" \
	  "and qemu-aarch64-static (found: $(or $(ARM_RUN),none))"
else
	@$(call build_and_test,build/arm,-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
	  -DCMAKE_CXX_COMPILER=$(ARM_CXX) -DCMAKE_EXE_LINKER_FLAGS=-static -DCMAKE_CROSSCOMPILING_EMULATOR=$(ARM_RUN))
endif

# A processor that has the instructions runs these tests natively, in engine-test. 77: the script said why it can't run.
avx512-test:
	@if grep -qs avx512_vpopcntdq /proc/cpuinfo; then echo "avx512-test: this processor has AVX-512, engine-test covers it"; \
	else engine/tests/emulate_avx512.sh build/avx512 || test $$? = 77; fi

# $(1): build folder, $(2): settings
define build_and_test
PATH="$(abspath $(BIN)):$$PATH"; echo "building $(1)"; \
mkdir -p build; \
cmake -S . -B $(1) -G Ninja $(2) > $(1).log 2>&1 || { cat $(1).log; exit 1; }; \
cmake --build $(1) -j $(JOBS) >> $(1).log 2>&1 || { cat $(1).log; exit 1; }; \
ctest --test-dir $(1) --output-on-failure
endef

clean:
	rm -rf build dist .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
