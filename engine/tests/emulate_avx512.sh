#!/bin/sh
# Test the AVX-512 kernels on a processor without AVX-512: the same source, its intrinsics taken from SIMDe.
#
# Usage: engine/tests/emulate_avx512.sh BUILD_FOLDER
# Needs a C++ compiler (CXX, default g++), SIMDe's headers (Debian: libsimde-dev) and a processor with AVX2.
# Exit status: that of the tests, or 77 with the reason where it can't run.
set -eu
build=${1:?usage: $0 BUILD_FOLDER}
engine=$(cd "$(dirname "$0")/.." && pwd)
compile="${CXX:-g++} -std=c++17 -O1 -ffp-contract=off -Wno-psabi -I$engine"

if ! echo '#include <simde/x86/avx512.h>' | $compile -E -x c++ - >/dev/null 2>&1; then
  echo "avx512 not tested: SIMDe's headers are not installed (Debian: apt-get install libsimde-dev)"
  exit 77
fi
if ! grep -q avx2 /proc/cpuinfo; then
  echo "avx512 not tested: the emulation needs a processor with AVX2"
  exit 77
fi
mkdir -p "$build"
objects=
for source in "$engine"/kernels/*.cc; do
  name=$(basename "$source" .cc)
  case $name in
    avx512*) $compile -mavx2 -mfma -I"$engine/tests/simde" -c "$source" -o "$build/$name.o" ;;
    *) $compile -c "$source" -o "$build/$name.o" ;;
  esac
  objects="$objects $build/$name.o"
done
for test in test_kernels test_lists; do
  $compile "$engine/tests/$test.cc" $objects -o "$build/$test"
  "$build/$test" avx512
done
