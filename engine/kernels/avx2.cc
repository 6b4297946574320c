// Signs on AVX2, where there is no vector popcount: mismatches by table look-up, two rows at once.
//
// The plain way (Mula, Kurz, Lemire 2018: xor, then count both nibbles of each byte by vpshufb) looks up what
// depends on row and weights. Here the table itself depends on the rows: for four inputs, nibble a of one row
// and b of the next, byte w of the table is popcount(a ^ w) + 16 popcount(b ^ w), and the weights of 32
// output channels are the indices. So one vpshufb gives 32 channels x 2 rows x 4 inputs. Three such look-ups
// add up to at most 12 per half byte; then the halves are gathered without ever masking, all modulo 256:
//     whole += byte,  upper += (16-bit lane) >> 4
// In the odd bytes `upper` is then the second row's count. In the even bytes the odd neighbour's lower half
// has been shifted in as well, and is taken off once at the end, see `separate`.
//
// That is 8 vector operations for 768 binary multiply-adds, where a table of one row takes 12, and xor and
// popcount, by bytes or by carry-save adders (Harley-Seal), more than 18. The inner loops alone, on one core
// of an EPYC (Zen 3): 997 GMAC/s, against 590, 383 and 379.
#include "kernels/sparse.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/avx2_float.h"
#include "kernels/sum_by_columns.h"
#include "kernels/target.h"

namespace popcloud {
namespace {

constexpr size_t kNibbles = 16;  // per word

// Rows are taken apart a block at a time: enough pairs that every group's weights are used often while they
// are in the first cache, few enough that the block's table offsets (16 KiB) stay there too.
constexpr size_t kBlockWords = 512;
constexpr size_t kBlockPairs = 16;

// Entry 16 b + a: the 16 bytes described above. All 256 take 4 KiB of the first cache.
struct Tables {
  alignas(64) uint8_t bytes[256][16];
};

// C++17 has no constexpr popcount.
constexpr int ones(int nibble) {
  return (nibble & 1) + (nibble >> 1 & 1) + (nibble >> 2 & 1) + (nibble >> 3 & 1);
}

constexpr Tables make_tables() {
  Tables t{};
  for (int code = 0; code < 256; ++code)
    for (int w = 0; w < 16; ++w)
      t.bytes[code][w] = uint8_t(ones((code & 15) ^ w) + 16 * ones((code >> 4) ^ w));
  return t;
}

constexpr Tables kTables = make_tables();

size_t prepared_bytes(size_t words, size_t channels) { return (channels + 63) / 64 * 64 * words * kNibbles; }

// [group of 64 channels][nibble][channel of the group], a byte per nibble. Within a word the lower nibbles of
// its 8 bytes come first, then the upper ones: the order in which
// `encode` can take a row apart without shuffling.
void prepare(const uint64_t* bits, size_t words, size_t channels, void* prepared) {
  uint8_t* out = static_cast<uint8_t*>(prepared);
  for (size_t c = 0; c < (channels + 63) / 64 * 64; ++c)
    for (size_t k = 0; k < words; ++k) {
      uint8_t* nibbles = out + (c / 64 * words + k) * kNibbles * 64 + c % 64;
      const uint64_t word = c < channels ? bits[k * channels + c] : 0;  // padding: never read as an answer
      for (size_t i = 0; i < kNibbles; ++i) nibbles[i * 64] = uint8_t(word >> (i % 8 * 8 + i / 8 * 4) & 15);
    }
}

POPCLOUD_TARGET_BEGIN("avx2,fma,popcnt")

#include "kernels/groups.inc"

// Offsets into kTables of a pair of rows, 16 per word. Done once for all output channels.
POPCLOUD_INLINE void encode(const uint64_t* a, const uint64_t* b, size_t words, uint16_t* offset) {
  constexpr uint64_t kLow = 0x0f0f0f0f0f0f0f0f;
  for (size_t k = 0; k < words; ++k) {
    const uint64_t low = (a[k] & kLow) | (b[k] & kLow) << 4;
    const uint64_t high = (a[k] >> 4 & kLow) | (b[k] & ~kLow);
    const __m128i codes = _mm_set_epi64x(int64_t(high), int64_t(low));
    const __m256i scaled = _mm256_slli_epi16(_mm256_cvtepu8_epi16(codes), 4);  // a table is 16 bytes
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(offset + k * kNibbles), scaled);
  }
}

// Prepared weights and Blocks are aligned, so that a load can be part of the shuffle.
POPCLOUD_INLINE __m256i load(const void* p) { return _mm256_load_si256(static_cast<const __m256i*>(p)); }
POPCLOUD_INLINE void store(void* p, __m256i v) { _mm256_store_si256(static_cast<__m256i*>(p), v); }

// vpshufb looks up in each half of 16 bytes: the table goes to both.
// A broadcast from memory costs a load and no more.
POPCLOUD_INLINE __m256i table(uint16_t offset) {
  return _mm256_broadcastsi128_si256(
      _mm_load_si128(reinterpret_cast<const __m128i*>(kTables.bytes[0] + offset)));
}

// Mismatches of a pair of rows with 32 channels, half a group, as bytes.
struct Pair {
  __m256i a, b;
};

// whole = a + 16 b and, in 16-bit lanes of an even and an odd byte, upper = (b.even + 16 a.odd, b.odd),
// modulo 256. 16 a.odd modulo 256 needs but the lowest 4 bits of
// a.odd, and those are the lowest of whole.odd.
POPCLOUD_INLINE Pair separate(__m256i whole, __m256i upper) {
  const __m256i a_odd = _mm256_and_si256(_mm256_srli_epi16(whole, 4), _mm256_set1_epi16(0x00f0));
  const __m256i b = _mm256_sub_epi8(upper, a_odd);
  const __m256i b_upper = _mm256_and_si256(_mm256_slli_epi16(b, 4), _mm256_set1_epi8(int8_t(0xf0)));
  return {_mm256_sub_epi8(whole, b_upper), b};
}

// `whole` and `upper` of kGroups groups, `stride` bytes apart, take the look-ups of kCount nibbles: of 3, as
// more would overflow a half byte, or of what is left at the end.
template <int kCount, int kGroups>
POPCLOUD_INLINE void look_up(const uint8_t* weights, size_t stride, const uint16_t* offset,
                             __m256i (&whole)[2 * kGroups], __m256i (&upper)[2 * kGroups]) {
  const __m256i t0 = table(offset[0]), t1 = table(offset[kCount > 1]), t2 = table(offset[kCount - 1]);
  POPCLOUD_UNROLL
  for (int i = 0; i < 2 * kGroups; ++i) {
    const uint8_t* w = weights + size_t(i / 2) * stride + size_t(i % 2) * 32;
    __m256i sum = _mm256_shuffle_epi8(t0, load(w));
    if (kCount > 1) sum = _mm256_add_epi8(sum, _mm256_shuffle_epi8(t1, load(w + kGroup)));
    if (kCount > 2) sum = _mm256_add_epi8(sum, _mm256_shuffle_epi8(t2, load(w + 2 * kGroup)));
    whole[i] = _mm256_add_epi8(whole[i], sum);
    upper[i] = _mm256_add_epi8(upper[i], _mm256_srli_epi16(sum, 4));
    POPCLOUD_NOW(whole[i]);
    POPCLOUD_NOW(upper[i]);
  }
}

// Up to 48 nibbles, so that counts stay below 193 and their bytes never wrap.
template <int kGroups>
POPCLOUD_INLINE void count_bytes(const uint8_t* weights, size_t stride, const uint16_t* offset,
                                 size_t nibbles, Pair (&out)[2 * kGroups]) {
  __m256i whole[2 * kGroups], upper[2 * kGroups];
  POPCLOUD_UNROLL
  for (int i = 0; i < 2 * kGroups; ++i) whole[i] = upper[i] = _mm256_setzero_si256();
  size_t k = 0;
  for (; k + 3 <= nibbles; k += 3)
    look_up<3, kGroups>(weights + k * kGroup, stride, offset + k, whole, upper);
  if (nibbles - k == 2) look_up<2, kGroups>(weights + k * kGroup, stride, offset + k, whole, upper);
  if (nibbles - k == 1) look_up<1, kGroups>(weights + k * kGroup, stride, offset + k, whole, upper);
  POPCLOUD_UNROLL
  for (int i = 0; i < 2 * kGroups; ++i) out[i] = separate(whole[i], upper[i]);
}

// A row's counts with a group, the lower and the upper 32 channels.
struct Bytes {
  __m256i half[2];
};
struct Shorts {
  __m256i even[2],
      odd[2];  // widening bytes where they are parts even and odd channels; sorting them can wait
};

POPCLOUD_INLINE void get(const Block& m, Bytes& x) { x = {{load(m.lanes), load(m.lanes + 16)}}; }
POPCLOUD_INLINE void get(const Block& m, Shorts& x) {
  x = {{load(m.lanes), load(m.lanes + 32)}, {load(m.lanes + 16), load(m.lanes + 48)}};
}
POPCLOUD_INLINE void put(Block& m, const Bytes& x) {
  store(m.lanes, x.half[0]), store(m.lanes + 16, x.half[1]);
}
POPCLOUD_INLINE void put(Block& m, const Shorts& x) {
  store(m.lanes, x.even[0]), store(m.lanes + 16, x.odd[0]);
  store(m.lanes + 32, x.even[1]), store(m.lanes + 48, x.odd[1]);
}

// Where Shorts keep channel c: of each half, 16 even ones, then 16 odd ones.
inline size_t lane_of(size_t c) { return c / 32 * 32 + c % 2 * 16 + c % 32 / 2; }

inline int32_t get_one(const Block& m, size_t c, const Bytes*) {
  return reinterpret_cast<const uint8_t*>(m.lanes)[c];
}
inline int32_t get_one(const Block& m, size_t c, const Shorts*) { return m.lanes[lane_of(c)]; }
inline void put_one(Block& m, size_t c, int32_t v, const Bytes*) {
  reinterpret_cast<uint8_t*>(m.lanes)[c] = uint8_t(v);
}
inline void put_one(Block& m, size_t c, int32_t v, const Shorts*) { m.lanes[lane_of(c)] = int16_t(v); }

POPCLOUD_INLINE Bytes smaller(const Bytes& x, const Bytes& y) {
  return {{_mm256_min_epu8(x.half[0], y.half[0]), _mm256_min_epu8(x.half[1], y.half[1])}};
}
POPCLOUD_INLINE Shorts smaller(const Shorts& x, const Shorts& y) {
  return {{_mm256_min_epi16(x.even[0], y.even[0]), _mm256_min_epi16(x.even[1], y.even[1])},
          {_mm256_min_epi16(x.odd[0], y.odd[0]), _mm256_min_epi16(x.odd[1], y.odd[1])}};
}

POPCLOUD_INLINE uint32_t top_bits(__m256i bytes) { return uint32_t(_mm256_movemask_epi8(bytes)); }

// There is no unsigned comparison of bytes, but x >= y where max(x, y) = x.
POPCLOUD_INLINE uint64_t reaches(const Bytes& x, const Bytes& y) {
  const uint32_t low = top_bits(_mm256_cmpeq_epi8(_mm256_max_epu8(x.half[0], y.half[0]), x.half[0]));
  const uint32_t high = top_bits(_mm256_cmpeq_epi8(_mm256_max_epu8(x.half[1], y.half[1]), x.half[1]));
  return low | uint64_t{high} << 32;
}
// A comparison fills both bytes of a lane, so even lanes give the
// even bytes and odd lanes the odd ones: in order again.
POPCLOUD_INLINE uint64_t reaches(const Shorts& x, const Shorts& y) {
  uint32_t below[2];
  POPCLOUD_UNROLL
  for (int i = 0; i < 2; ++i) {
    const __m256i even = _mm256_cmpgt_epi16(y.even[i], x.even[i]),
                  odd = _mm256_cmpgt_epi16(y.odd[i], x.odd[i]);
    below[i] = top_bits(_mm256_blendv_epi8(even, odd, _mm256_set1_epi16(int16_t(0xff00))));
  }
  return ~(below[0] | uint64_t{below[1]} << 32);
}

// Eight counts to 32 bits each.
POPCLOUD_INLINE void store_wide(int32_t* out, __m256i eight) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), eight);
}

POPCLOUD_INLINE void spread(const Bytes& x, int32_t* out) {
  POPCLOUD_UNROLL
  for (int i = 0; i < 4; ++i) {
    const __m128i part =
        i % 2 ? _mm256_extracti128_si256(x.half[i / 2], 1) : _mm256_castsi256_si128(x.half[i / 2]);
    store_wide(out + 16 * i, _mm256_cvtepu8_epi32(part));
    store_wide(out + 16 * i + 8, _mm256_cvtepu8_epi32(_mm_srli_si128(part, 8)));
  }
}
POPCLOUD_INLINE void spread(const Shorts& x, int32_t* out) {
  POPCLOUD_UNROLL
  for (int i = 0; i < 2; ++i) {
    const __m256i low =
        _mm256_unpacklo_epi16(x.even[i], x.odd[i]);  // channels 0 to 7 and 16 to 23 of the half
    const __m256i high = _mm256_unpackhi_epi16(x.even[i], x.odd[i]);  // 8 to 15 and 24 to 31
    store_wide(out + 32 * i, _mm256_cvtepu16_epi32(_mm256_castsi256_si128(low)));
    store_wide(out + 32 * i + 8, _mm256_cvtepu16_epi32(_mm256_castsi256_si128(high)));
    store_wide(out + 32 * i + 16, _mm256_cvtepu16_epi32(_mm256_extracti128_si256(low, 1)));
    store_wide(out + 32 * i + 24, _mm256_cvtepu16_epi32(_mm256_extracti128_si256(high, 1)));
  }
}

// Rows of at most kByteWords words: the bytes are the counts.
template <int kGroups>
POPCLOUD_INLINE void count(const uint8_t* weights, size_t stride, const uint16_t* offset, size_t words,
                           Bytes (&a)[kGroups], Bytes (&b)[kGroups]) {
  Pair part[2 * kGroups];
  count_bytes<kGroups>(weights, stride, offset, words * kNibbles, part);
  POPCLOUD_UNROLL
  for (int i = 0; i < 2 * kGroups; ++i) a[i / 2].half[i % 2] = part[i].a, b[i / 2].half[i % 2] = part[i].b;
}

POPCLOUD_INLINE void add(Shorts& sum, int half, __m256i bytes) {
  sum.even[half] = _mm256_add_epi16(sum.even[half], _mm256_and_si256(bytes, _mm256_set1_epi16(0x00ff)));
  sum.odd[half] = _mm256_add_epi16(sum.odd[half], _mm256_srli_epi16(bytes, 8));
}

// Longer rows: bytes for kByteWords words at a time, then added up in 16 bits.
template <int kGroups>
POPCLOUD_INLINE void count(const uint8_t* weights, size_t stride, const uint16_t* offset, size_t words,
                           Shorts (&a)[kGroups], Shorts (&b)[kGroups]) {
  const __m256i zero = _mm256_setzero_si256();
  POPCLOUD_UNROLL
  for (int i = 0; i < kGroups; ++i) a[i] = b[i] = {{zero, zero}, {zero, zero}};
  for (size_t k = 0; k < words; k += kByteWords) {
    Pair part[2 * kGroups];
    count_bytes<kGroups>(weights + k * kNibbles * kGroup, stride, offset + k * kNibbles,
                         (words - k < kByteWords ? words - k : kByteWords) * kNibbles, part);
    POPCLOUD_UNROLL
    for (int i = 0; i < 2 * kGroups; ++i) add(a[i / 2], i % 2, part[i].a), add(b[i / 2], i % 2, part[i].b);
  }
}

// A block of rows against kGroups groups. With two, the tables of a pair serve 128 channels, and the sums of
// both still fit the registers: by itself, as otherwise GCC puts some of them into memory for the sake of
// loops around it.
template <int kGroups, class Answer>
POPCLOUD_NOINLINE void tile(const uint8_t* weights, const uint16_t* offset, size_t first_row, size_t rows,
                            size_t group, size_t words, Answer& answer) {
  const size_t stride = words * kNibbles * kGroup;
  for (size_t r = 0; r < rows; r += 2) {
    typename Answer::Counts a[kGroups], b[kGroups];
    count<kGroups>(weights + group * stride, stride, offset + r / 2 * words * kNibbles, words, a, b);
    POPCLOUD_UNROLL
    for (int i = 0; i < kGroups; ++i) answer.take(first_row + r, group + size_t(i), a[i]);
    if (r + 1 == rows) break;  // an odd row is paired with itself
    POPCLOUD_UNROLL
    for (int i = 0; i < kGroups; ++i) answer.take(first_row + r + 1, group + size_t(i), b[i]);
  }
}

// All rows against `groups` groups of weights, a block of rows at a
// time: its table offsets stay in the first cache.
template <class Answer>
void walk(const uint64_t* x, size_t rows, size_t words, const uint8_t* weights, size_t groups,
          Answer& answer) {
  alignas(64) uint16_t offset[kBlockWords * kNibbles];
  const size_t pairs = kBlockWords / words < kBlockPairs ? kBlockWords / words : kBlockPairs;
  for (size_t r = 0; r < rows; r += 2 * pairs) {
    const size_t here = rows - r < 2 * pairs ? rows - r : 2 * pairs;
    for (size_t i = 0; i < here; i += 2) {
      const uint64_t* a = x + (r + i) * words;
      encode(a, i + 1 < here ? a + words : a, words, offset + i / 2 * words * kNibbles);
    }
    size_t g = 0;
    for (; g + 2 <= groups; g += 2) tile<2>(weights, offset, r, here, g, words, answer);
    if (g < groups) tile<1>(weights, offset, r, here, g, words, answer);
  }
}

POPCLOUD_TARGET_END

// These also ask whether the operating system saves the wide registers.
bool supported() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt");
}

}  // namespace

const KernelTable kAvx2{"avx2",
                        supported,
                        prepared_bytes,
                        prepare,
                        mismatches,
                        threshold,
                        minimum,
                        sum_by_columns,
                        avx2::linear,
                        avx2::binarize,
                        avx2::affine,
                        avx2::sparse_conv,
                        avx2::sparse_weight_grad,
                        avx2::sum_floats,
                        avx2::pick,
                        avx2::sign_kernel_bytes,
                        avx2::prepare_sign_kernel,
                        avx2::sum_signs,
                        avx2::finish,
                        avx2::largest};

}  // namespace popcloud

#else  // another processor's file: present, never chosen

namespace popcloud {
const KernelTable kAvx2{"avx2",  never,   nullptr, nullptr, nullptr, nullptr, nullptr,
                        nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                        nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
}  // namespace popcloud

#endif
