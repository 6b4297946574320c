#include "shortcuts.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace popcloud {
namespace {

constexpr size_t kFewRows = 64;         // below this, looking for equal rows costs what it saves
constexpr size_t kSampleRows = 256;     // after so many rows, go on only if enough of them were equal
constexpr size_t kWorthGathering = 75;  // percent: gathering pays where no more channels than these are left
constexpr uint32_t kEmpty = UINT32_MAX;

uint64_t hash_row(const uint64_t* row, size_t words) {
  uint64_t hash = 0;
  for (size_t w = 0; w < words; ++w) {
    hash = (hash ^ row[w]) * 0x9E3779B97F4A7C15u;  // Fibonacci hashing (Knuth, TAOCP 3, 6.4)
    hash ^= hash >> 32;
  }
  return hash * 0x9E3779B97F4A7C15u;
}

// `Words` is 1 for a row of one word, so that the compiler sees a number, or 0 for any width.
template <size_t Words>
size_t keep_first(uint64_t* x, size_t rows, size_t width, uint32_t* table, int bits) {
  const size_t words = Words ? Words : width, mask = (size_t{1} << bits) - 1;
  size_t kept = 0;
  for (size_t r = 0; r < rows; ++r) {
    if (r == kSampleRows && kept > kSampleRows * 7 / 8) {
      std::memmove(x + kept * words, x + r * words, 8 * words * (rows - r));
      return kept + rows - r;
    }
    const uint64_t* row = x + r * words;
    size_t at = hash_row(row, words) >> (64 - bits);
    while (table[at] != kEmpty && !std::equal(row, row + words, x + table[at] * words)) at = (at + 1) & mask;
    if (table[at] != kEmpty) continue;
    table[at] = static_cast<uint32_t>(kept);
    std::copy(row, row + words, x + kept * words);
    ++kept;
  }
  return kept;
}

}  // namespace

size_t unique_rows(uint64_t* x, size_t rows, size_t words, Scratch& scratch) {
  if (rows < kFewRows) return rows;
  int bits = 1;
  while (size_t{1} << bits < 2 * rows) ++bits;
  auto table = scratch.table.take<uint32_t>(size_t{1} << bits);
  std::fill(table, table + (size_t{1} << bits), kEmpty);
  return words == 1 ? keep_first<1>(x, rows, words, table, bits) : keep_first<0>(x, rows, words, table, bits);
}

namespace {

// The weights of some columns as a matrix of their own.
PackedMatrix gather(const PackedMatrix& w, const KernelTable& table, const uint32_t* columns, size_t count,
                    Scratch& scratch) {
  auto bits = scratch.columns.take<uint64_t>(w.words * count);
  for (size_t word = 0; word < w.words; ++word)
    for (size_t i = 0; i < count; ++i) bits[word * count + i] = w.bits[word * w.channels + columns[i]];
  PackedMatrix part{bits, w.words, count, nullptr};
  if (size_t size = table.prepared_bytes(w.words, count)) {
    void* prepared = scratch.prepared.take<uint8_t>(size);
    table.prepare(bits, w.words, count, prepared);
    part.prepared = prepared;
  }
  return part;
}

}  // namespace

void pool_max_bits_early(const Layer& layer, const KernelTable& table, const uint64_t* x, size_t rows,
                         Channels at, uint64_t* out, Scratch& scratch) {
  const PackedMatrix& w = layer.weight;
  auto least = scratch.least.take<int32_t>(w.channels);
  auto open = scratch.open.take<uint32_t>(w.channels);  // undecided channels
  size_t first = at.first, last = at.last, done = 0;
  std::iota(open + first, open + last, static_cast<uint32_t>(first));
  std::fill(out + first / 64, out + words_of(last), ~uint64_t{0});
  if (at.last % 64) out[at.last / 64] >>= 64 - at.last % 64;
  PackedMatrix part = w;  // its column i is channel open[i]
  for (size_t border : {rows / 8, rows * 3 / 8, rows}) {
    if (border == done) continue;
    table.minimum(x + done * w.words, border - done, part, {first, last}, least, nullptr);
    done = border;
    for (size_t i = first; i < last; ++i)
      out[open[i] / 64] &= ~(uint64_t{least[i] <= layer.limit[open[i]]} << open[i] % 64);
    auto decided = [&](uint32_t c) { return (out[c / 64] >> c % 64 & 1) == 0; };
    size_t still = (last - first) - static_cast<size_t>(std::count_if(open + first, open + last, decided));
    if (still == 0) break;
    if (done == rows || still > (last - first) * kWorthGathering / 100) continue;
    std::remove_copy_if(open + first, open + last, open, decided);
    first = 0, last = still;
    part = gather(w, table, open, still, scratch);
  }
}

}  // namespace popcloud
