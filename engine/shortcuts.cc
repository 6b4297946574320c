#include "shortcuts.h"

#include <algorithm>
#include <cstring>

namespace popcloud {
namespace {

constexpr size_t kFewRows = 64;      // below this, looking for equal rows costs what it saves
constexpr size_t kSampleRows = 256;  // after so many rows, go on only if enough of them were equal
constexpr uint32_t kEmpty = UINT32_MAX;

uint64_t hash_row(const uint64_t* row, size_t words) {
  uint64_t hash = 0;
  for (size_t w = 0; w < words; ++w) {
    hash = (hash ^ row[w]) * 0x9E3779B97F4A7C15u;  // Fibonacci hashing (Knuth, TAOCP 3, 6.4)
    hash ^= hash >> 32;
  }
  return hash * 0x9E3779B97F4A7C15u;
}

}  // namespace

size_t unique_rows(uint64_t* x, size_t rows, size_t words, Scratch& scratch) {
  if (rows < kFewRows) return rows;
  int bits = 1;
  while (size_t{1} << bits < 2 * rows) ++bits;
  size_t mask = (size_t{1} << bits) - 1, bytes = 8 * words, kept = 0;
  auto table = scratch.table.take<uint32_t>(mask + 1);
  std::fill(table, table + mask + 1, kEmpty);
  for (size_t r = 0; r < rows; ++r) {
    if (r == kSampleRows && kept > kSampleRows * 7 / 8) {
      std::memmove(x + kept * words, x + r * words, (rows - r) * bytes);
      return kept + rows - r;
    }
    const uint64_t* row = x + r * words;
    size_t at = hash_row(row, words) >> (64 - bits);
    while (table[at] != kEmpty && std::memcmp(x + table[at] * words, row, bytes) != 0) at = (at + 1) & mask;
    if (table[at] != kEmpty) continue;
    table[at] = static_cast<uint32_t>(kept);
    if (kept != r) std::memcpy(x + kept * words, row, bytes);
    ++kept;
  }
  return kept;
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
  size_t count = at.last - at.first, done = 0;
  for (size_t i = 0; i < count; ++i) open[i] = static_cast<uint32_t>(at.first + i);
  PackedMatrix part = w;
  Channels range = at;
  for (size_t border : {rows / 16, rows / 4, rows}) {
    if (border == done) continue;
    table.minimum(x + done * w.words, border - done, part, range, least, nullptr);
    size_t kept = 0;
    for (size_t i = 0; i < count; ++i)
      if (least[range.first + i] > layer.limit[open[i]]) open[kept++] = open[i];
    count = kept;
    done = border;
    if (count == 0 || done == rows) break;
    part = gather(w, table, open, count, scratch);
    range = {0, count};
  }
  std::fill(out + at.first / 64, out + words_of(at.last), uint64_t{0});
  for (size_t i = 0; i < count; ++i) out[open[i] / 64] |= uint64_t{1} << open[i] % 64;
}

}  // namespace popcloud
