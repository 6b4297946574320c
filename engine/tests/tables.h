// What the tests of kernel tables share: random rows, and the comparison of a table's answers with the
// portable one's, bit for bit.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace popcloud {

inline int comparisons = 0, differences = 0, shapes = 0, every = 1;
inline bool left_out() { return shapes++ % every != 0; }  // one in `every` shapes is tested

template <class T>
void compare(const char* table, const char* kernel, const std::string& shape, const std::vector<T>& got,
             const std::vector<T>& want) {
  ++comparisons;
  if (got.empty() || std::memcmp(got.data(), want.data(), got.size() * sizeof(T)) == 0) return;
  size_t i = 0;
  while (std::memcmp(&got[i], &want[i], sizeof(T)) == 0) ++i;
  ++differences;
  std::printf("DIFFERENT %s %s %s: element %zu of %zu is %.9g, portable says %.9g\n", table, kernel,
              shape.c_str(), i, got.size(), double(got[i]), double(want[i]));
}

// Which bits a NaN has is nobody's promise.
inline void forgive_nan(std::vector<float>& got, const std::vector<float>& want) {
  for (size_t i = 0; i < got.size(); ++i)
    if (got[i] != got[i] && want[i] != want[i]) got[i] = want[i];
}

// Mostly ordinary numbers, some that are special: zeros of both signs, infinities, the smallest, the largest.
inline std::vector<float> floats(std::mt19937_64& rng, size_t count, bool with_nan) {
  using Limits = std::numeric_limits<float>;
  const float special[] = {0.0f,
                           -0.0f,
                           1.0f,
                           -1.0f,
                           Limits::denorm_min(),
                           Limits::max(),
                           Limits::infinity(),
                           -Limits::infinity(),
                           Limits::quiet_NaN()};
  std::vector<float> x(count);
  for (float& v : x)
    v = rng() % 4 ? float(int32_t(rng())) / float(1 << 30) : special[rng() % (with_nan ? 9 : 6)];
  return x;
}

// No special ones: a long sum of the others soon is infinite, and then equal whatever its order.
inline std::vector<float> ordinary(std::mt19937_64& rng, size_t count) {
  std::vector<float> x(count);
  for (float& v : x) v = float(int32_t(rng())) / float(1 << 30);
  return x;
}

// 64-byte aligned memory of the size a table asks for.
struct Prepared {
  std::vector<uint8_t> memory;
  void* data = nullptr;
  Prepared(Prepared&&) = default;  // a copy would point into the original
  explicit Prepared(size_t bytes) : memory(bytes + 64) {
    if (bytes) data = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  }
};

// Of a test program: every table that this CPU supports, or each one named; after --some one in 16 shapes.
// Returns its exit code: 1 on a difference, 2 if a named table can't run here.
inline int test_tables(int count, char** names, void (*test)(const KernelTable&)) {
  if (count > 1 && std::strcmp(names[1], "--some") == 0) every = 16, ++names, --count;
  for (int i = 1; i < count; ++i)
    if (!find_kernels(names[i])) return std::printf("%s: not supported here\n", names[i]), 2;
  for (auto table = all_kernels(); *table; ++table) {
    bool wanted = count == 1;
    for (int i = 1; i < count; ++i) wanted = wanted || std::strcmp(names[i], (*table)->name) == 0;
    if (!wanted) continue;
    if (!(*table)->supported()) {
      std::printf("%s: not supported here, skipped\n", (*table)->name);
      continue;
    }
    const int before = comparisons;
    test(**table);
    std::printf("%s: %d comparisons\n", (*table)->name, comparisons - before);
  }
  std::printf("%d differences\n", differences);
  return differences != 0;
}

}  // namespace popcloud
