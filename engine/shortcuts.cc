#include "shortcuts.h"

#include <algorithm>
#include <cstring>

namespace popcloud {
namespace {

constexpr size_t kFewRows = 64;      // below this, looking for equal rows costs what it saves
constexpr size_t kSampleRows = 256;  // after so many rows, go on only if enough of them were equal
// Gathering pays where at most so many percent of the channels are still open (measured: PointNet, AVX2).
constexpr size_t kMostOpen = 70;
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

// The rest of the rows for the channels that `least` leaves open; the others' bits are 0.
void finish_open(const Layer& layer, const KernelTable& table, const uint64_t* x, size_t rows, Channels at,
                 int32_t* least, uint64_t* out, Scratch& scratch) {
  auto open = scratch.open.take<uint32_t>(layer.channels);
  size_t count = 0;
  for (size_t c = at.first; c < at.last; ++c) {
    open[count] = static_cast<uint32_t>(c);
    count += least[c] > layer.limit[c];
  }
  std::fill(out + at.first / 64, out + words_of(at.last), uint64_t{0});
  if (count == 0) return;
  table.minimum(x, rows, gather(layer.weight, table, open, count, scratch), {0, count}, least, nullptr);
  for (size_t i = 0; i < count; ++i)
    out[open[i] / 64] |= uint64_t{least[i] > layer.limit[open[i]]} << open[i] % 64;
}

}  // namespace

void pool_max_bits_early(const Layer& layer, const KernelTable& table, const uint64_t* x, size_t rows,
                         Channels at, uint64_t* out, Scratch& scratch) {
  const size_t words = layer.weight.words, most_open = (at.last - at.first) * kMostOpen / 100;
  auto least = scratch.least.take<int32_t>(2 * layer.channels), now = least + layer.channels;
  size_t done = 0;
  std::fill(least + at.first, least + at.last, INT32_MAX);
  for (size_t border : {rows / 4, rows}) {
    if (border == done) continue;
    table.minimum(x + done * words, border - done, layer.weight, at, now, nullptr);
    done = border;
    size_t open = 0;
    for (size_t c = at.first; c < at.last; ++c) {
      least[c] = std::min(least[c], now[c]);
      open += least[c] > layer.limit[c];
    }
    if (done < rows && open <= most_open)
      return finish_open(layer, table, x + done * words, rows - done, at, least, out, scratch);
  }
  std::fill(out + at.first / 64, out + words_of(at.last), uint64_t{0});
  for (size_t c = at.first; c < at.last; ++c) out[c / 64] |= uint64_t{least[c] > layer.limit[c]} << c % 64;
}

}  // namespace popcloud
