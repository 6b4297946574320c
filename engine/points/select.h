// Keys in order: the smallest of distances, of equal ones those of smaller rows.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "memory.h"

namespace popcloud {

// A distance and a row as one double that compares as the pair does, so that one comparison orders both: the
// distance in the upper half, the row in the lower one, flipped where the sign turns the order around. The
// offset keeps denormals, infinities and NaN of doubles out; NaN distances come last, all alike.
constexpr uint32_t kPairOffset = 0x00100000u, kPairNan = 0x7fc00000u;

static inline double pair_of(float key, uint32_t row) {
  key += 0.0f;  // -0 is 0
  uint32_t bits;
  std::memcpy(&bits, &key, sizeof bits);
  if (key != key) bits = kPairNan;
  const uint64_t whole = uint64_t{bits + kPairOffset} << 32 | (bits >> 31 ? ~row : row);
  double made;
  std::memcpy(&made, &whole, sizeof made);
  return made;
}

static inline uint32_t row_of(double pair) {
  uint64_t whole;
  std::memcpy(&whole, &pair, sizeof whole);
  return static_cast<uint32_t>(whole >> 63 ? ~whole : whole);
}

static inline float key_of(double pair) {
  uint64_t whole;
  std::memcpy(&whole, &pair, sizeof whole);
  const uint32_t bits = static_cast<uint32_t>(whole >> 32) - kPairOffset;
  float key;
  std::memcpy(&key, &bits, sizeof key);
  return key;
}

// The `count` smallest pairs so far, in order. Behind them as many as make whole vectors of four, before them
// one that is smaller than all.
class Smallest {
 public:
  explicit Smallest(size_t wanted) : count(wanted), padded((wanted + 3) / 4 * 4), kept_(padded + 4) {
    pairs = kept_.data() + 4;
  }
  // Fills it with a bound: pairs above it stay out. NaN with the last row is above all.
  void start(float bound) {
    pairs[-1] = -1e308;
    for (size_t i = 0; i < padded; ++i) pairs[i] = pair_of(bound, UINT32_MAX);
  }
  // Is there less than count below the bound?
  bool short_of() const { return row_of(pairs[count - 1]) == UINT32_MAX; }

  const size_t count, padded;
  double* pairs;

 private:
  Array<double> kept_;
};

// The farthest point of each child of a block, pairs of distance and flipped row: the largest is the first of
// equal ones; and the distances.
struct Farthest {
  double pairs[8];
  float distances[8];
};

}  // namespace popcloud
