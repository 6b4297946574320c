// Keys in order: the m smallest of distances, of equal ones those of smaller rows.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

namespace popcloud {

// A distance and a row as one double that compares as the pair does, so that one comparison orders both: the
// distance in the upper half, the row in the lower one, flipped where the sign turns the order around. The
// offset keeps denormals, infinities and NaN of doubles out; NaN distances come last, all alike.
constexpr uint32_t kOffset = 0x00100000u, kNan = 0x7fc00000u;

inline double pair_of(float key, uint32_t row) {
  key += 0.0f;  // -0 is 0
  uint32_t bits;
  std::memcpy(&bits, &key, sizeof bits);
  if (key != key) bits = kNan;
  const uint32_t sign = bits & 0x80000000u;
  const uint64_t whole = uint64_t{bits + kOffset} << 32 | (sign ? ~row : row);
  double made;
  std::memcpy(&made, &whole, sizeof made);
  return made;
}

inline uint32_t row_of(double pair) {
  uint64_t whole;
  std::memcpy(&whole, &pair, sizeof whole);
  return static_cast<uint32_t>(whole >> 63 ? ~whole : whole);
}

inline float key_of(double pair) {
  uint64_t whole;
  std::memcpy(&whole, &pair, sizeof whole);
  const uint32_t bits = static_cast<uint32_t>(whole >> 32) - kOffset;
  float key;
  std::memcpy(&key, &bits, sizeof key);
  return key;
}

// Larger than any pair; its key is NaN, so that `key > key_of(kNobody)` never holds.
inline double nobody() { return pair_of(std::numeric_limits<float>::quiet_NaN(), UINT32_MAX); }

}  // namespace popcloud
