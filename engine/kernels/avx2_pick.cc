// Picking the entries that a layer sees, on AVX2.
#include "kernels/sparse.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/target.h"

namespace popcloud::avx2 {
namespace {

constexpr size_t kChunk = 32;  // entries whose offsets fill a vector of bytes

// Row m: the places of the bits of m, in order, as a shuffle wants them.
struct Places {
  alignas(64) uint8_t of[256][8];
};
constexpr Places make_places() {
  Places places{};
  for (int m = 0; m < 256; ++m)
    for (int bit = 0, n = 0; bit < 8; ++bit)
      if (m >> bit & 1) places.of[m][n++] = uint8_t(bit);
  return places;
}
constexpr Places kPlaces = make_places();

}  // namespace
}  // namespace popcloud::avx2

POPCLOUD_TARGET_BEGIN("avx2,popcnt")

namespace popcloud::avx2 {
namespace {

using Vec = __m256i;

POPCLOUD_INLINE Vec load(const uint32_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const Vec*>(from));
}

// Offsets of 32 entries as bytes, in order.
POPCLOUD_INLINE Vec offsets_of(const Vec (&entries)[4]) {
  const Vec mask = _mm256_set1_epi32(int(kOffsetMask));
  const Vec low = _mm256_packus_epi32(_mm256_and_si256(entries[0], mask), _mm256_and_si256(entries[1], mask));
  const Vec high =
      _mm256_packus_epi32(_mm256_and_si256(entries[2], mask), _mm256_and_si256(entries[3], mask));
  // Packing works in halves of a vector: the fours come out as 0 2 4 6 1 3 5 7.
  return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high),
                                     _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

// A look-up in 128 bytes, 16 by 16: an index in another sixteen gets its highest bit set, and so finds 0.
POPCLOUD_INLINE Vec slots_of(Vec offsets, const Vec (&slots)[8]) {
  Vec found = _mm256_setzero_si256();
  POPCLOUD_UNROLL
  for (int t = 0; t < 8; ++t) {
    const Vec index =
        _mm256_adds_epu8(_mm256_xor_si256(offsets, _mm256_set1_epi8(char(16 * t))), _mm256_set1_epi8(0x70));
    found = _mm256_or_si256(found, _mm256_shuffle_epi8(slots[t], index));
  }
  return found;
}

// Writes those of eight entries that have a slot, and whatever comes behind them.
POPCLOUD_INLINE size_t write_eight(Vec entries, __m128i slots, unsigned seen, uint32_t* out) {
  const Vec numbered = _mm256_or_si256(_mm256_andnot_si256(_mm256_set1_epi32(int(kOffsetMask)), entries),
                                       _mm256_cvtepu8_epi32(slots));
  const Vec order = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kPlaces.of[seen])));
  _mm256_storeu_si256(reinterpret_cast<Vec*>(out), _mm256_permutevar8x32_epi32(numbered, order));
  return size_t(__builtin_popcount(seen));
}

// Returns which of 32 entries are seen, bit by bit.
POPCLOUD_INLINE uint32_t pick_chunk(const uint32_t* from, const Vec (&table)[8], uint32_t* out) {
  const Vec entries[4] = {load(from), load(from + 8), load(from + 16), load(from + 24)};
  const Vec slots = slots_of(offsets_of(entries), table);
  const uint32_t seen = ~uint32_t(_mm256_movemask_epi8(slots));
  const __m128i low = _mm256_castsi256_si128(slots), high = _mm256_extracti128_si256(slots, 1);
  out += write_eight(entries[0], low, seen & 255, out);
  out += write_eight(entries[1], _mm_srli_si128(low, 8), seen >> 8 & 255, out);
  out += write_eight(entries[2], high, seen >> 16 & 255, out);
  write_eight(entries[3], _mm_srli_si128(high, 8), seen >> 24, out);
  return seen;
}

}  // namespace

void pick(const Gather& rows, const uint8_t* slots, uint32_t* begin, uint32_t* entries) {
  Vec table[8];
  for (int t = 0; t < 8; ++t)
    table[t] = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(slots + 16 * t)));
  const uint32_t first = rows.begin[0], last = rows.begin[rows.rows];
  uint32_t n = 0, at = first;
  size_t row = 0;
  for (; at + kChunk <= last; at += kChunk) {
    const uint32_t seen = pick_chunk(rows.entries + at, table, entries + n);
    for (; rows.begin[row] < at + kChunk && row < rows.rows; ++row)
      begin[row] = n + uint32_t(__builtin_popcount(seen & ((1u << (rows.begin[row] - at)) - 1)));
    n += uint32_t(__builtin_popcount(seen));
  }
  for (; at < last; ++at) {
    for (; row < rows.rows && rows.begin[row] <= at; ++row) begin[row] = n;
    const uint32_t entry = rows.entries[at], slot = slots[entry & kOffsetMask];
    entries[n] = (entry & ~kOffsetMask) | (slot & kOffsetMask);
    n += slot <= kOffsetMask;
  }
  for (; row <= rows.rows; ++row) begin[row] = n;
}

}  // namespace popcloud::avx2

POPCLOUD_TARGET_END

#endif
