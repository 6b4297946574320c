// Signs on AVX2, where there is no vector popcount: mismatches by table look-up, two rows at once.
//
// The plain way (Mula, Kurz, Lemire 2018: xor, then count both nibbles of each byte by vpshufb) looks up what depends
// on row and weights. Here the table itself depends on the rows: for four inputs, nibble a of one row and b of the
// next, byte w of the table is popcount(a ^ w) + 16 popcount(b ^ w), and the weights of 32 output channels are the
// indices. So one vpshufb gives 32 channels x 2 rows x 4 inputs. Three such look-ups add up to at most 12 per half
// byte; then the halves are gathered without ever masking, all modulo 256:
//     whole += byte,  upper += (16-bit lane) >> 4
// In the odd bytes `upper` is then the second row's count. In the even bytes the odd neighbour's lower half has been
// shifted in as well, and is taken off once at the end, see `separate`. That is 8 vector operations for 3 nibbles of
// 64 counts, 96 binary multiply-adds each, where xor and popcount need 4 operations for 128 multiply-adds.
#include "kernels/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/avx2_float.h"
#include "kernels/sum.h"
#include "kernels/target.h"

namespace popcloud {
namespace {

constexpr size_t kGroup = 64;         // output channels of one tile of weights, one word of the answer
constexpr size_t kNibbles = 16;       // per word
constexpr size_t kChunk = 3;          // words whose mismatches fit a byte; 48 nibbles are 16 whole triples
constexpr size_t kMaxWords = 511;     // mismatches fit a signed 16-bit lane; longer rows take the portable way
constexpr size_t kPanel = 1024;       // output channels whose limits or minima are kept on the stack
constexpr size_t kBlockWords = 512;   // words of row pairs that are prepared at a time: 16 KiB of table offsets
constexpr size_t kBlockPairs = 16;

// Entry 16 b + a: the 16 bytes described above.
struct Tables {
  alignas(64) uint8_t bytes[256][16];
};

constexpr int ones(int nibble) { return (nibble & 1) + (nibble >> 1 & 1) + (nibble >> 2 & 1) + (nibble >> 3 & 1); }

constexpr Tables make_tables() {
  Tables t{};
  for (int code = 0; code < 256; ++code)
    for (int w = 0; w < 16; ++w) t.bytes[code][w] = uint8_t(ones((code & 15) ^ w) + 16 * ones((code >> 4) ^ w));
  return t;
}

constexpr Tables kTables = make_tables();

size_t groups_of(size_t channels) { return (channels + kGroup - 1) / kGroup; }

// [group][nibble][channel of the group], a byte per nibble. Within a word the lower nibbles of its 8 bytes come
// first, then the upper ones: the order in which `encode` can take a row apart without shuffling.
size_t prepared_bytes(size_t words, size_t channels) { return groups_of(channels) * words * kNibbles * kGroup; }

void prepare(const uint64_t* bits, size_t words, size_t channels, void* prepared) {
  uint8_t* out = static_cast<uint8_t*>(prepared);
  for (size_t c = 0; c < groups_of(channels) * kGroup; ++c)
    for (size_t k = 0; k < words; ++k) {
      uint8_t* nibbles = out + ((c / kGroup * words + k) * kNibbles) * kGroup + c % kGroup;
      const uint64_t word = c < channels ? bits[k * channels + c] : 0;  // padding: never read as an answer
      for (size_t i = 0; i < kNibbles; ++i)
        nibbles[i * kGroup] = uint8_t(word >> (i % 8 * 8 + i / 8 * 4) & 15);
    }
}

POPCLOUD_TARGET_BEGIN("avx2,fma,popcnt")

// Offsets into kTables of a pair of rows, 16 per word.
void encode(const uint64_t* a, const uint64_t* b, size_t words, uint16_t* offset) {
  constexpr uint64_t kLow = 0x0f0f0f0f0f0f0f0f;
  for (size_t k = 0; k < words; ++k) {
    const uint64_t low = (a[k] & kLow) | (b[k] & kLow) << 4;
    const uint64_t high = (a[k] >> 4 & kLow) | (b[k] & ~kLow);
    const __m128i codes = _mm_set_epi64x(int64_t(high), int64_t(low));
    const __m256i scaled = _mm256_slli_epi16(_mm256_cvtepu8_epi16(codes), 4);  // a table is 16 bytes
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(offset + k * kNibbles), scaled);
  }
}

POPCLOUD_INLINE __m256i load(const void* p) { return _mm256_load_si256(static_cast<const __m256i*>(p)); }
inline void store(void* p, __m256i v) { _mm256_store_si256(static_cast<__m256i*>(p), v); }

inline __m256i table(uint16_t offset) {
  return _mm256_broadcastsi128_si256(
      _mm_load_si128(reinterpret_cast<const __m128i*>(kTables.bytes[0] + offset)));
}

// Mismatches of 32 channels (a block) with a pair of rows, as bytes.
struct Pair {
  __m256i a, b;
};

// whole = a + 16 b and, in 16-bit lanes of an even and an odd byte, upper = (b.even + 16 a.odd, b.odd), modulo 256.
// 16 a.odd modulo 256 needs but the lowest 4 bits of a.odd, and those are the lowest of whole.odd.
POPCLOUD_INLINE Pair separate(__m256i whole, __m256i upper) {
  const __m256i a_odd = _mm256_and_si256(_mm256_srli_epi16(whole, 4), _mm256_set1_epi16(0x00f0));
  const __m256i b = _mm256_sub_epi8(upper, a_odd);
  const __m256i b_upper = _mm256_and_si256(_mm256_slli_epi16(b, 4), _mm256_set1_epi8(int8_t(0xf0)));
  return {_mm256_sub_epi8(whole, b_upper), b};
}

// `whole` and `upper` of kBlocks blocks take the look-ups of kCount nibbles: of 3, as more would overflow a half
// byte, or of what is left at the end. The blocks are 2 in one group, or 4 in two groups `stride` bytes apart.
template <int kCount, int kBlocks>
POPCLOUD_INLINE void look_up(const uint8_t* weights, size_t stride, const uint16_t* offset,
                             __m256i (&whole)[kBlocks], __m256i (&upper)[kBlocks]) {
  const __m256i t0 = table(offset[0]), t1 = table(offset[kCount > 1]), t2 = table(offset[kCount - 1]);
  POPCLOUD_UNROLL
  for (int i = 0; i < kBlocks; ++i) {
    const uint8_t* w = weights + size_t(i / 2) * stride + size_t(i % 2) * 32;
    __m256i sum = _mm256_shuffle_epi8(t0, load(w));
    if (kCount > 1) sum = _mm256_add_epi8(sum, _mm256_shuffle_epi8(t1, load(w + kGroup)));
    if (kCount > 2) sum = _mm256_add_epi8(sum, _mm256_shuffle_epi8(t2, load(w + 2 * kGroup)));
    whole[i] = _mm256_add_epi8(whole[i], sum);
    upper[i] = _mm256_add_epi8(upper[i], _mm256_srli_epi16(sum, 4));
  }
}

template <int kBlocks>
POPCLOUD_INLINE void count_bytes(const uint8_t* weights, size_t stride, const uint16_t* offset, size_t nibbles,
                                 Pair (&out)[kBlocks]) {
  __m256i whole[kBlocks], upper[kBlocks];
  POPCLOUD_UNROLL
  for (int i = 0; i < kBlocks; ++i) whole[i] = upper[i] = _mm256_setzero_si256();
  size_t k = 0;
  for (; k + 3 <= nibbles; k += 3) look_up<3>(weights + k * kGroup, stride, offset + k, whole, upper);
  if (nibbles - k == 2) look_up<2>(weights + k * kGroup, stride, offset + k, whole, upper);
  if (nibbles - k == 1) look_up<1>(weights + k * kGroup, stride, offset + k, whole, upper);
  POPCLOUD_UNROLL
  for (int i = 0; i < kBlocks; ++i) out[i] = separate(whole[i], upper[i]);
}

// The counts of a block in one row: bytes where they fit, else 16-bit lanes of the even and of the odd channels.
struct Bytes {
  __m256i all;
};
struct Shorts {
  __m256i even, odd;
};

// A block in memory. Bytes use the first half of it.
struct alignas(64) Block {
  int16_t lanes[32];
};

inline Bytes get(const Block& m, Bytes) { return {load(m.lanes)}; }
inline Shorts get(const Block& m, Shorts) { return {load(m.lanes), load(m.lanes + 16)}; }
inline void put(Block& m, Bytes x) { store(m.lanes, x.all); }
inline void put(Block& m, Shorts x) { store(m.lanes, x.even), store(m.lanes + 16, x.odd); }

// One channel of a block in memory.
inline int32_t get_one(const Block& m, size_t c, Bytes) { return reinterpret_cast<const uint8_t*>(m.lanes)[c]; }
inline int32_t get_one(const Block& m, size_t c, Shorts) { return m.lanes[c / 2 + c % 2 * 16]; }
inline void put_one(Block& m, size_t c, int32_t v, Bytes) { reinterpret_cast<uint8_t*>(m.lanes)[c] = uint8_t(v); }
inline void put_one(Block& m, size_t c, int32_t v, Shorts) { m.lanes[c / 2 + c % 2 * 16] = int16_t(v); }

// More than any count: 3 words are 192 mismatches, kMaxWords 32704.
inline int32_t beyond(Bytes) { return 255; }
inline int32_t beyond(Shorts) { return 32767; }

inline Bytes smaller(Bytes x, Bytes y) { return {_mm256_min_epu8(x.all, y.all)}; }
inline Shorts smaller(Shorts x, Shorts y) {
  return {_mm256_min_epi16(x.even, y.even), _mm256_min_epi16(x.odd, y.odd)};
}

// Bit c = x[c] >= y[c].
inline uint32_t reaches(Bytes x, Bytes y) {
  return uint32_t(_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(x.all, y.all), x.all)));
}
inline uint32_t reaches(Shorts x, Shorts y) {
  const __m256i even = _mm256_cmpgt_epi16(y.even, x.even), odd = _mm256_cmpgt_epi16(y.odd, x.odd);
  return ~uint32_t(_mm256_movemask_epi8(_mm256_blendv_epi8(even, odd, _mm256_set1_epi16(int16_t(0xff00)))));
}

template <int kBlocks>
POPCLOUD_INLINE void count(const uint8_t* weights, size_t stride, const uint16_t* offset, size_t words, Bytes (&a)[kBlocks],
                  Bytes (&b)[kBlocks]) {
  Pair part[kBlocks];
  count_bytes<kBlocks>(weights, stride, offset, words * kNibbles, part);
  POPCLOUD_UNROLL
  for (int i = 0; i < kBlocks; ++i) a[i].all = part[i].a, b[i].all = part[i].b;
}

inline void add(Shorts& sum, __m256i bytes) {
  sum.even = _mm256_add_epi16(sum.even, _mm256_and_si256(bytes, _mm256_set1_epi16(0x00ff)));
  sum.odd = _mm256_add_epi16(sum.odd, _mm256_srli_epi16(bytes, 8));
}

template <int kBlocks>
POPCLOUD_INLINE void count(const uint8_t* weights, size_t stride, const uint16_t* offset, size_t words, Shorts (&a)[kBlocks],
                  Shorts (&b)[kBlocks]) {
  POPCLOUD_UNROLL
  for (int i = 0; i < kBlocks; ++i) a[i].even = a[i].odd = b[i].even = b[i].odd = _mm256_setzero_si256();
  for (size_t k = 0; k < words; k += kChunk) {
    Pair part[kBlocks];
    count_bytes<kBlocks>(weights + k * kNibbles * kGroup, stride, offset + k * kNibbles,
                         (words - k < kChunk ? words - k : kChunk) * kNibbles, part);
    POPCLOUD_UNROLL
    for (int i = 0; i < kBlocks; ++i) add(a[i], part[i].a), add(b[i], part[i].b);
  }
}

// What becomes of the counts of a row: `take` gets those of one group, the lower and the upper 32 channels.

template <class Counts>
struct Threshold {
  const Block* floor;  // limit + 1, of the panel's channels
  uint64_t* out;       // the panel's first word in row 0
  size_t out_words;

  void take(size_t row, size_t group, Counts low, Counts high) {
    const uint64_t bits = reaches(low, get(floor[2 * group], low));
    out[row * out_words + group] = bits | uint64_t{reaches(high, get(floor[2 * group + 1], high))} << 32;
  }
};

template <class Counts>
struct Minimum {
  Block* least;

  void take(size_t, size_t group, Counts low, Counts high) {
    put(least[2 * group], smaller(low, get(least[2 * group], low)));
    put(least[2 * group + 1], smaller(high, get(least[2 * group + 1], high)));
  }
};

template <class Counts>
struct Mismatches {
  int32_t* out;  // the panel's first channel in row 0
  size_t channels, panel;

  void take(size_t row, size_t group, Counts low, Counts high) {
    Block block[2];
    put(block[0], low), put(block[1], high);
    const size_t first = group * kGroup, last = first + kGroup < panel ? first + kGroup : panel;
    for (size_t c = first; c < last; ++c)
      out[row * channels + c] = get_one(block[c % kGroup / 32], c % 32, low);
  }
};

// The rows of a block against kBlocks / 2 groups.
template <class Counts, int kBlocks, class Answer>
POPCLOUD_INLINE void tile(const uint8_t* weights, const uint16_t* offset, size_t first_row, size_t rows, size_t group,
                 size_t words, Answer& answer) {
  const size_t stride = words * kNibbles * kGroup;
  for (size_t r = 0; r < rows; r += 2) {
    Counts a[kBlocks], b[kBlocks];
    count<kBlocks>(weights + group * stride, stride, offset + r / 2 * words * kNibbles, words, a, b);
    POPCLOUD_UNROLL
    for (int i = 0; i < kBlocks; i += 2) answer.take(first_row + r, group + size_t(i / 2), a[i], a[i + 1]);
    if (r + 1 == rows) break;
    POPCLOUD_UNROLL
    for (int i = 0; i < kBlocks; i += 2) answer.take(first_row + r + 1, group + size_t(i / 2), b[i], b[i + 1]);
  }
}

// All rows against `groups` groups of weights, a block of rows at a time: its table offsets stay in the first cache.
template <class Counts, class Answer>
void walk(const uint64_t* x, size_t rows, size_t words, const uint8_t* weights, size_t groups, Answer& answer) {
  alignas(64) uint16_t offset[kBlockWords * kNibbles];
  const size_t pairs = kBlockWords / words < kBlockPairs ? kBlockWords / words : kBlockPairs;
  for (size_t r = 0; r < rows; r += 2 * pairs) {
    const size_t here = rows - r < 2 * pairs ? rows - r : 2 * pairs;
    for (size_t i = 0; i < here; i += 2) {
      const uint64_t* a = x + (r + i) * words;
      encode(a, i + 1 < here ? a + words : a, words, offset + i / 2 * words * kNibbles);
    }
    size_t g = 0;
    for (; g + 2 <= groups; g += 2) tile<Counts, 4>(weights, offset, r, here, g, words, answer);
    if (g < groups) tile<Counts, 2>(weights, offset, r, here, g, words, answer);
  }
}

// A stretch of at most kPanel output channels, so that what an answer keeps per channel fits the stack.
struct Panel {
  size_t first, channels;
  const uint8_t* weights;
};

inline Panel panel_at(const PackedMatrix& w, Channels at, size_t first) {
  const uint8_t* weights = static_cast<const uint8_t*>(w.prepared);
  return {first, at.last - first < kPanel ? at.last - first : kPanel, weights + first * w.words * kNibbles};
}

template <class Counts>
void threshold_of(const uint64_t* x, size_t rows, const PackedMatrix& w, Channels at, const int32_t* limit,
                  uint64_t* out) {
  for (size_t first = at.first; first < at.last; first += kPanel) {
    const Panel panel = panel_at(w, at, first);
    const size_t groups = groups_of(panel.channels);
    Block floor[kPanel / 32];
    for (size_t c = 0; c < groups * kGroup; ++c)  // padding never reaches its floor, so tail bits are 0
      put_one(floor[c / 32], c % 32, c < panel.channels ? limit[first + c] + 1 : beyond(Counts{}), Counts{});
    Threshold<Counts> answer{floor, out + first / 64, groups_of(w.channels)};
    walk<Counts>(x, rows, w.words, panel.weights, groups, answer);
  }
}

template <class Counts>
void fill(Block* m, size_t blocks, int32_t value) {
  for (size_t c = 0; c < blocks * 32; ++c) put_one(m[c / 32], c % 32, value, Counts{});
}

// The least of each channel goes on; channels that the rows from `row` on improve note `row`.
template <class Counts>
void improve(Block* best, const Block* now, size_t channels, size_t row, int32_t* where) {
  for (size_t i = 0; i * 32 < channels; ++i) {
    const Counts before = get(best[i], Counts{}), after = get(now[i], Counts{});
    for (uint32_t better = ~reaches(after, before); better; better &= better - 1) {
      const size_t c = i * 32 + size_t(__builtin_ctz(better));
      if (c < channels) where[c] = int32_t(row);
    }
    put(best[i], smaller(before, after));
  }
}

// From `row` on, the first row with exactly `least` mismatches; there is one.
inline int32_t find(const uint64_t* x, const PackedMatrix& w, size_t channel, int32_t row, int32_t least) {
  for (;; ++row) {
    int64_t count = 0;
    for (size_t k = 0; k < w.words; ++k)
      count += _mm_popcnt_u64(x[size_t(row) * w.words + k] ^ w.bits[k * w.channels + channel]);
    if (count == least) return row;
  }
}

template <class Counts>
void minimum_of(const uint64_t* x, size_t rows, const PackedMatrix& w, Channels at, int32_t* least, int32_t* where) {
  constexpr size_t kFew = 8;  // rows among which `find` has to look
  for (size_t first = at.first; first < at.last; first += kPanel) {
    const Panel panel = panel_at(w, at, first);
    const size_t groups = groups_of(panel.channels);
    Block best[kPanel / 32], now[kPanel / 32];
    fill<Counts>(best, 2 * groups, beyond(Counts{}));
    Minimum<Counts> answer{where ? now : best};
    for (size_t r = 0; r < rows; r += where ? kFew : rows) {
      const size_t here = where && rows - r > kFew ? kFew : rows - r;
      if (where) fill<Counts>(now, 2 * groups, beyond(Counts{}));
      walk<Counts>(x + r * w.words, here, w.words, panel.weights, groups, answer);
      if (where) improve<Counts>(best, now, panel.channels, r, where + first);
    }
    for (size_t c = 0; c < panel.channels; ++c) {
      least[first + c] = get_one(best[c / 32], c % 32, Counts{});
      if (where) where[first + c] = find(x, w, first + c, where[first + c], least[first + c]);
    }
  }
}

template <class Counts>
void mismatches_of(const uint64_t* x, size_t rows, const PackedMatrix& w, Channels at, int32_t* out) {
  const Panel all{at.first, at.last - at.first, panel_at(w, at, at.first).weights};
  Mismatches<Counts> answer{out + at.first, w.channels, all.channels};
  walk<Counts>(x, rows, w.words, all.weights, groups_of(all.channels), answer);
}

void mismatches(const uint64_t* x, size_t rows, const PackedMatrix& w, Channels at, int32_t* out) {
  if (w.words > kMaxWords) return kPortable.mismatches(x, rows, w, at, out);
  (w.words <= kChunk ? mismatches_of<Bytes> : mismatches_of<Shorts>)(x, rows, w, at, out);
}

void threshold(const uint64_t* x, size_t rows, const PackedMatrix& w, Channels at, const int32_t* limit,
               uint64_t* out) {
  if (w.words > kMaxWords) return kPortable.threshold(x, rows, w, at, limit, out);
  (w.words <= kChunk ? threshold_of<Bytes> : threshold_of<Shorts>)(x, rows, w, at, limit, out);
}

void minimum(const uint64_t* x, size_t rows, const PackedMatrix& w, Channels at, int32_t* least, int32_t* where) {
  if (w.words > kMaxWords) return kPortable.minimum(x, rows, w, at, least, where);
  (w.words <= kChunk ? minimum_of<Bytes> : minimum_of<Shorts>)(x, rows, w, at, least, where);
}

POPCLOUD_TARGET_END

bool supported() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt"); }

}  // namespace

const KernelTable kAvx2{"avx2",  supported, prepared_bytes, prepare,        mismatches, threshold, minimum,
                        kPortable.sum, avx2::linear, avx2::binarize, avx2::affine};

}  // namespace popcloud

#else

namespace popcloud {
const KernelTable kAvx2{"avx2",  never,   nullptr, nullptr, nullptr, nullptr,
                        nullptr, nullptr, nullptr, nullptr, nullptr};
}  // namespace popcloud

#endif
