#include "points/order.h"

#include <algorithm>
#include <utility>

namespace popcloud {
namespace {

constexpr uint32_t kCells = 1024;        // along an axis
constexpr int kDigit = 10, kDigits = 3;  // of keys, in bits, and how many
constexpr size_t kFew = 32;              // not worth the sorting

// Two zeros between each of ten bits.
uint32_t apart(uint32_t x) {
  x = (x | x << 16) & 0x030000ffu;
  x = (x | x << 8) & 0x0300f00fu;
  x = (x | x << 4) & 0x030c30c3u;
  return (x | x << 2) & 0x09249249u;
}

struct Keyed {
  uint32_t key, row;
};

void take_keys(const float* xyz, size_t first, Array<Keyed>& keyed) {
  for (size_t i = 0; i < keyed.size(); ++i) keyed[i] = {0, static_cast<uint32_t>(first + i)};
  for (size_t axis = 0; axis < 3; ++axis) {
    const float* at = xyz + 3 * first + axis;
    float low = at[0], high = at[0];
    for (size_t i = 0; i < keyed.size(); ++i)
      low = std::min(low, at[3 * i]), high = std::max(high, at[3 * i]);
    const float scale = static_cast<float>(kCells) / (high - low);
    for (size_t i = 0; i < keyed.size(); ++i) {
      const float cell = (at[3 * i] - low) * scale;  // NaN goes to the first, as it must go somewhere
      const float inside = cell > 0 ? std::min(cell, static_cast<float>(kCells - 1)) : 0.0f;
      keyed[i].key |= apart(static_cast<uint32_t>(inside)) << axis;
    }
  }
}

// One pass of a radix sort.
void sort_by(int digit, const Array<Keyed>& from, Array<Keyed>& to) {
  size_t at[kCells] = {};
  const int shift = digit * kDigit;
  for (const Keyed& one : from) ++at[one.key >> shift & (kCells - 1)];
  for (size_t sum = 0, i = 0; i < kCells; ++i) sum += std::exchange(at[i], sum);
  for (const Keyed& one : from) to[at[one.key >> shift & (kCells - 1)]++] = one;
}

}  // namespace

Array<uint32_t> in_space(const float* xyz, size_t first, size_t last) {
  Array<uint32_t> rows(last - first);
  if (rows.size() <= kFew) {
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<uint32_t>(first + i);
    return rows;
  }
  Array<Keyed> keyed(rows.size()), other(rows.size());
  take_keys(xyz, first, keyed);
  for (int digit = 0; digit < kDigits; ++digit) {
    sort_by(digit, keyed, other);
    std::swap(keyed, other);
  }
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = keyed[i].row;
  return rows;
}

}  // namespace popcloud
