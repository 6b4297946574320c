// Floats on AVX2 and FMA, in the order of operations that kernels.h prescribes: lanes are output channels, so
// each number keeps its own chain of fused multiply-adds whatever the tile.
#include "kernels/avx2_float.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/target.h"

POPCLOUD_TARGET_BEGIN("avx2,fma")

namespace popcloud::avx2 {
namespace {

constexpr size_t kLanes = 8;

// The first `live` of 8 lanes.
inline __m256i first_lanes(size_t live) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(int32_t(live)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// `max` and `min` give their second operand for NaN and for two zeros: as in the contract, both pass through.
template <Activation kAct>
POPCLOUD_INLINE __m256 activate(__m256 x) {
  if (kAct == Activation::kRelu) return _mm256_max_ps(_mm256_setzero_ps(), x);
  if (kAct == Activation::kHardtanh)
    return _mm256_min_ps(_mm256_set1_ps(1), _mm256_max_ps(_mm256_set1_ps(-1), x));
  return x;
}

// The arguments of `linear`, as every tile needs them.
struct Linear {
  const float *x, *w, *bias;
  size_t inputs, channels;
  float* out;
};

// Output channels of a tile: vectors of 8 from `first` on, but the last vector starts at `last`. Where it
// overlaps the one before, the same number is computed twice. No mask, which is slow on some processors.
struct Span {
  size_t first, last;
};

// With kTail there is one vector, of which the first `live` lanes count.
template <int kVectors, bool kTail>
POPCLOUD_INLINE void load_row(const float* row, Span at, size_t live, __m256 (&out)[kVectors]) {
  POPCLOUD_UNROLL
  for (int v = 0; v < kVectors - 1; ++v) out[v] = _mm256_loadu_ps(row + at.first + size_t(v) * kLanes);
  out[kVectors - 1] =
      kTail ? _mm256_maskload_ps(row + at.last, first_lanes(live)) : _mm256_loadu_ps(row + at.last);
}

// kRows rows from r on.
template <Activation kAct, int kRows, int kVectors, bool kTail>
POPCLOUD_INLINE void linear_tile(const Linear& p, size_t r, Span at, size_t live) {
  __m256 sum[kRows][kVectors], start[kVectors] = {};
  if (p.bias) load_row<kVectors, kTail>(p.bias, at, live, start);
  POPCLOUD_UNROLL
  for (int i = 0; i < kRows; ++i) POPCLOUD_UNROLL
  for (int v = 0; v < kVectors; ++v) sum[i][v] = start[v];
  // Every sum takes the inputs in their order; the tile only says which sums are in registers meanwhile. A
  // load of weights serves all rows, a broadcast all vectors.
  for (size_t k = 0; k < p.inputs; ++k) {
    __m256 weight[kVectors];
    load_row<kVectors, kTail>(p.w + k * p.channels, at, live, weight);
    POPCLOUD_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const __m256 x = _mm256_broadcast_ss(p.x + (r + size_t(i)) * p.inputs + k);
      POPCLOUD_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[i][v] = _mm256_fmadd_ps(x, weight[v], sum[i][v]);
    }
  }
  POPCLOUD_UNROLL
  for (int i = 0; i < kRows; ++i) {
    float* out = p.out + (r + size_t(i)) * p.channels;
    POPCLOUD_UNROLL
    for (int v = 0; v < kVectors - 1; ++v)
      _mm256_storeu_ps(out + at.first + size_t(v) * kLanes, activate<kAct>(sum[i][v]));
    const __m256 y = activate<kAct>(sum[i][kVectors - 1]);
    if (kTail)
      _mm256_maskstore_ps(out + at.last, first_lanes(live), y);
    else
      _mm256_storeu_ps(out + at.last, y);
  }
}

// kRows rows in tiles of kHeight rows and kVectors vectors.
template <Activation kAct, int kRows, int kHeight, int kVectors>
inline void linear_tiles(const Linear& p, size_t r, Span at) {
  for (size_t i = 0; i < kRows; i += kHeight) linear_tile<kAct, kHeight, kVectors, false>(p, r + i, at, 0);
}

// All channels for kRows rows. 12 sums hide the latency of a fused multiply-add, 4 cycles twice per cycle,
// and leave room for the operands: 6 rows x 2 vectors, or 4 x 3, or 12 x 1, where there are so many rows.
template <Activation kAct, int kRows>
inline void linear_rows(const Linear& p, size_t r) {
  constexpr int kTwo = kRows == 12 ? 6 : kRows, kThree = kRows == 12 ? 4 : kRows == 6 ? 3 : kRows;
  if (p.channels < kLanes) return linear_tile<kAct, kRows, 1, true>(p, r, {0, 0}, p.channels);
  const size_t end = p.channels - kLanes;  // where the last vector starts
  size_t c = 0, left = p.channels;
  for (; left > 24 || left == 16; c += 16, left -= 16)
    linear_tiles<kAct, kRows, kTwo, 2>(p, r, {c, c + kLanes});
  if (left > 16)
    linear_tiles<kAct, kRows, kThree, 3>(p, r, {c, end});
  else if (left > 8)
    linear_tiles<kAct, kRows, kTwo, 2>(p, r, {c, end});
  else if (left)
    linear_tiles<kAct, kRows, kRows, 1>(p, r, {c, end});
}

// A single row reads each weight once, so it is as fast as memory is, which likes one stream: all channels
// for a few inputs at a time, and the sums wait in `out` meanwhile.
// The tail, at most 7 channels, goes as a tile.
template <Activation kAct>
inline void linear_row(const Linear& p, size_t r) {
  constexpr size_t kFew = 4;
  const size_t whole = p.channels / kLanes * kLanes, first = p.inputs % kFew;
  const float* x = p.x + r * p.inputs;
  float* out = p.out + r * p.channels;
  // Start with as many inputs as leave whole fours.
  for (size_t c = 0; c < whole; c += kLanes) {
    __m256 sum = p.bias ? _mm256_loadu_ps(p.bias + c) : _mm256_setzero_ps();
    for (size_t k = 0; k < first; ++k)
      sum = _mm256_fmadd_ps(_mm256_broadcast_ss(x + k), _mm256_loadu_ps(p.w + k * p.channels + c), sum);
    _mm256_storeu_ps(out + c, sum);
  }
  for (size_t k = first; k < p.inputs; k += kFew)
    for (size_t c = 0; c < whole; c += kLanes) {
      __m256 sum = _mm256_loadu_ps(out + c);
      POPCLOUD_UNROLL
      for (size_t i = 0; i < kFew; ++i)
        sum = _mm256_fmadd_ps(_mm256_broadcast_ss(x + k + i), _mm256_loadu_ps(p.w + (k + i) * p.channels + c),
                              sum);
      _mm256_storeu_ps(out + c, sum);
    }
  for (size_t c = 0; c < whole; c += kLanes)
    _mm256_storeu_ps(out + c, activate<kAct>(_mm256_loadu_ps(out + c)));
  if (whole < p.channels) linear_tile<kAct, 1, 1, true>(p, r, {whole, whole}, p.channels - whole);
}

// The activation is a template argument, so that no tile asks for it.
template <Activation kAct>
void linear_all(const Linear& p, size_t rows) {
  size_t r = 0;
  for (; r + 12 <= rows; r += 12) linear_rows<kAct, 12>(p, r);
  for (; r + 6 <= rows; r += 6) linear_rows<kAct, 6>(p, r);
  for (; r + 2 <= rows; r += 2) linear_rows<kAct, 2>(p, r);
  if (r < rows) linear_row<kAct>(p, r);
}

}  // namespace

void linear(const float* x, size_t rows, size_t inputs, const float* w, const float* bias, size_t channels,
            Activation act, float* out) {
  const Linear p{x, w, bias, inputs, channels, out};
  if (act == Activation::kRelu)
    linear_all<Activation::kRelu>(p, rows);
  else if (act == Activation::kHardtanh)
    linear_all<Activation::kHardtanh>(p, rows);
  else
    linear_all<Activation::kNone>(p, rows);
}

namespace {

// _CMP_LT_OQ: ordered, so that NaN is not below anything.
inline uint64_t below(__m256 value, __m256 limit) {
  return uint64_t(uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(value, limit, _CMP_LT_OQ))));
}

// Whole words of signs: their 64 thresholds stay in registers over all rows.
void binarize_word(const float* x, size_t rows, size_t channels, const float* threshold, uint64_t* out,
                   size_t words) {
  __m256 limit[8];
  for (int i = 0; i < 8; ++i) limit[i] = _mm256_loadu_ps(threshold + 8 * i);
  for (size_t r = 0; r < rows; ++r, x += channels) {
    uint64_t low = 0, high = 0;  // two chains, so that one or does not wait for the last
    for (int i = 0; i < 4; ++i) {
      low |= below(_mm256_loadu_ps(x + 8 * i), limit[i]) << (8 * i);
      high |= below(_mm256_loadu_ps(x + 32 + 8 * i), limit[i + 4]) << (8 * i);
    }
    out[r * words] = low | high << 32;
  }
}

// The last word, if it is not whole.
void binarize_tail(const float* x, size_t rows, size_t channels, size_t live, const float* threshold,
                   uint64_t* out, size_t words) {
  for (size_t r = 0; r < rows; ++r, x += channels) {
    uint64_t bits = 0;
    for (size_t c = 0; c < live; c += kLanes) {
      const __m256i mask = first_lanes(live - c < kLanes ? live - c : kLanes);
      // Outside the mask 0 < 0: tail bits are 0.
      bits |= below(_mm256_maskload_ps(x + c, mask), _mm256_maskload_ps(threshold + c, mask)) << c;
    }
    out[r * words] = bits;
  }
}

}  // namespace

void binarize(const float* x, size_t rows, size_t channels, const float* threshold, uint64_t* out) {
  const size_t words = (channels + 63) / 64, whole = channels / 64;
  for (size_t word = 0; word < whole; ++word)
    binarize_word(x + 64 * word, rows, channels, threshold + 64 * word, out + word, words);
  if (whole < words)
    binarize_tail(x + 64 * whole, rows, channels, channels % 64, threshold + 64 * whole, out + whole, words);
}

namespace {

// Loads under a mask throughout: the lanes outside are 0 and are not stored.
template <Activation kAct>
void affine_all(const float* x, size_t rows, size_t channels, const float* scale, const float* bias,
                float* out) {
  for (size_t r = 0; r < rows; ++r)
    for (size_t c = 0; c < channels; c += kLanes) {
      const __m256i mask = first_lanes(channels - c < kLanes ? channels - c : kLanes);
      const __m256 value = _mm256_maskload_ps(x + r * channels + c, mask);
      const __m256 y = activate<kAct>(
          _mm256_fmadd_ps(_mm256_maskload_ps(scale + c, mask), value, _mm256_maskload_ps(bias + c, mask)));
      if (channels - c >= kLanes)
        _mm256_storeu_ps(out + r * channels + c, y);
      else
        _mm256_maskstore_ps(out + r * channels + c, mask, y);
    }
}

}  // namespace

void affine(const float* x, size_t rows, size_t channels, const float* scale, const float* bias,
            Activation act, float* out) {
  if (act == Activation::kRelu)
    affine_all<Activation::kRelu>(x, rows, channels, scale, bias, out);
  else if (act == Activation::kHardtanh)
    affine_all<Activation::kHardtanh>(x, rows, channels, scale, bias, out);
  else
    affine_all<Activation::kNone>(x, rows, channels, scale, bias, out);
}

}  // namespace popcloud::avx2

POPCLOUD_TARGET_END

#endif
