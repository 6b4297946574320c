// The inner loops of ops on points, on AVX2.
#include "points/rows.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/target.h"

namespace popcloud {
namespace {

POPCLOUD_TARGET_BEGIN("avx2,fma,popcnt")

constexpr size_t kLanes = 8;

POPCLOUD_INLINE __m256 activate(__m256 y, Activation act) {  // as bent(); NaN passes
  const __m256 one = _mm256_set1_ps(1), minus = _mm256_set1_ps(-1);
  if (act == Activation::kRelu) return _mm256_andnot_ps(_mm256_cmp_ps(y, _mm256_setzero_ps(), _CMP_LT_OQ), y);
  if (act == Activation::kHardtanh) return _mm256_min_ps(one, _mm256_max_ps(minus, y));
  return y;
}

POPCLOUD_INLINE void finish_counts(__m256i mismatches, const Affine& a, size_t c, __m256 row, float* out) {
  const __m256i twice = _mm256_add_epi32(mismatches, mismatches);
  const __m256 dot = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_set1_epi32(int32_t(a.inputs)), twice));
  const __m256 y =
      _mm256_fmadd_ps(_mm256_loadu_ps(a.scale + c), _mm256_mul_ps(dot, row), _mm256_loadu_ps(a.bias + c));
  _mm256_storeu_ps(out, activate(y, a.act));
}

POPCLOUD_INLINE void finish_lanes(float* values, const Affine& affine, size_t c, float row) {
  finish_counts(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values)), affine, c, _mm256_set1_ps(row),
                values);
}

POPCLOUD_INLINE unsigned signs_of(const float* x, const float* own, const float* threshold) {
  __m256 y = _mm256_loadu_ps(x);
  if (own) y = _mm256_sub_ps(y, _mm256_loadu_ps(own));
  return unsigned(_mm256_movemask_ps(_mm256_cmp_ps(y, _mm256_loadu_ps(threshold), _CMP_LT_OQ)));
}

POPCLOUD_INLINE unsigned above_of(const int32_t* counts, const int32_t* limit) {
  const __m256i more = _mm256_cmpgt_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(counts)),
                                          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(limit)));
  return unsigned(_mm256_movemask_ps(_mm256_castsi256_ps(more)));
}

// Counts of each half byte by look-up, then added up to 32 bits (Mula, Kurz, Lemire 2018).
POPCLOUD_INLINE void groups_lanes(const uint32_t* fields, const uint32_t* weight, const Affine& affine,
                                  size_t c, float* out) {
  const __m256i counts =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
  const __m256i low = _mm256_set1_epi8(15);
  const __m256i v = _mm256_xor_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(fields)),
                                     _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weight)));
  const __m256i bytes =
      _mm256_add_epi8(_mm256_shuffle_epi8(counts, _mm256_and_si256(v, low)),
                      _mm256_shuffle_epi8(counts, _mm256_and_si256(_mm256_srli_epi16(v, 4), low)));
  const __m256i pairs = _mm256_maddubs_epi16(bytes, _mm256_set1_epi8(1));
  finish_counts(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)), affine, c, _mm256_set1_ps(1), out);
}

#include "points/rows.inc"

// kRows channels of x against kVectors vectors of m, of which the last one has the lanes of `mask`.
template <int kRows, int kVectors>
POPCLOUD_INLINE void product_tile(const float* x, const float* m, size_t rows, size_t channels, size_t wide,
                                  __m256i mask, float* out) {
  __m256 sum[kRows][kVectors];
  POPCLOUD_UNROLL
  for (int t = 0; t < kRows; ++t) {
    POPCLOUD_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[t][v] = _mm256_setzero_ps();
  }
  for (size_t i = 0; i < rows; ++i, x += channels, m += wide) {
    __m256 factor[kVectors];
    POPCLOUD_UNROLL
    for (int v = 0; v < kVectors; ++v)
      factor[v] = v + 1 == kVectors ? _mm256_maskload_ps(m + 8 * v, mask) : _mm256_loadu_ps(m + 8 * v);
    POPCLOUD_UNROLL
    for (int t = 0; t < kRows; ++t) {
      const __m256 one = _mm256_broadcast_ss(x + t);
      POPCLOUD_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[t][v] = _mm256_fmadd_ps(one, factor[v], sum[t][v]);
    }
  }
  POPCLOUD_UNROLL
  for (int t = 0; t < kRows; ++t) {
    POPCLOUD_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      float* to = out + size_t(t) * wide + 8 * v;
      if (v + 1 == kVectors)
        _mm256_maskstore_ps(to, mask, sum[t][v]);
      else
        _mm256_storeu_ps(to, sum[t][v]);
    }
  }
}

template <int kVectors>
POPCLOUD_NOINLINE void product_panel(const float* x, const float* m, size_t rows, size_t channels,
                                     size_t wide, __m256i mask, float* out) {
  size_t c = 0;
  for (; c + 4 <= channels; c += 4)
    product_tile<4, kVectors>(x + c, m, rows, channels, wide, mask, out + c * wide);
  for (; c < channels; ++c) product_tile<1, kVectors>(x + c, m, rows, channels, wide, mask, out + c * wide);
}

void product(const float* x, const float* m, size_t rows, size_t channels, size_t wide, float* out) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  for (size_t j = 0; j < wide; j += 16) {
    const size_t left = wide - j, last = left > 16 ? 8 : left > 8 ? left - 8 : left;
    const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(int32_t(last)), lanes);
    if (left > 8)
      product_panel<2>(x, m + j, rows, channels, wide, mask, out + j);
    else
      product_panel<1>(x, m + j, rows, channels, wide, mask, out + j);
  }
}

POPCLOUD_TARGET_END

}  // namespace

const RowKernels kRowsAvx2{finish, product, edges, groups, above, subtract, multiply};

}  // namespace popcloud
#endif
