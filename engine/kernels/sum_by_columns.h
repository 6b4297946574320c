// The sum of mismatches over rows, without counting any row's mismatches: the sum asks of each input only how
// many rows have the bit, so it takes rows * inputs + inputs * channels steps instead of their product.
#pragma once
#include "kernels/kernels.h"

namespace popcloud {

// set[i] = rows whose word `k` has bit i.
inline void count_bits(const uint64_t* x, size_t rows, size_t words, size_t k, int64_t (&set)[64]) {
  constexpr uint64_t kEachByte = 0x0101010101010101;
  for (int64_t& s : set) s = 0;
  for (size_t first = 0; first < rows;
       first += 255) {  // 64 counters of a byte each: bit 8 b + j in byte b of [j]
    uint64_t counters[8] = {};
    const size_t last = rows - first < 255 ? rows : first + 255;
    for (size_t r = first; r < last; ++r)
      for (size_t j = 0; j < 8; ++j) counters[j] += x[r * words + k] >> j & kEachByte;
    for (size_t i = 0; i < 64; ++i) set[i] += int64_t(counters[i % 8] >> (i / 8 * 8) & 255);
  }
}

// KernelTable::sum. An input adds `set` where the weight's bit is 0 and rows - set where it is 1; the 8
// inputs of a byte of weights add up to one entry of a table.
inline void sum_by_columns(const uint64_t* x, size_t rows, const PackedMatrix& w, Channels at,
                           int64_t* total) {
  for (size_t c = at.first; c < at.last; ++c) total[c] = 0;
  for (size_t k = 0; k < w.words; ++k) {
    int64_t set[64], part[8][256];
    count_bits(x, rows, w.words, k, set);
    for (size_t b = 0; b < 8; ++b) {
      part[b][0] = 0;
      for (size_t i = 0; i < 8; ++i) part[b][0] += set[8 * b + i];
      for (unsigned v = 1; v < 256; ++v)  // one bit more than an entry before it
        part[b][v] = part[b][v & (v - 1)] + int64_t(rows) - 2 * set[8 * b + unsigned(__builtin_ctz(v))];
    }
    for (size_t c = at.first; c < at.last; ++c)
      for (size_t b = 0; b < 8; ++b) total[c] += part[b][w.bits[k * w.channels + c] >> (8 * b) & 255];
  }
}

}  // namespace popcloud
