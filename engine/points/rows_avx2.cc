// The inner loops of ops on points, on AVX2.
#include "points/rows.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/target.h"

namespace popcloud {
namespace {

POPCLOUD_TARGET_BEGIN("avx2,fma,popcnt")

constexpr size_t kLanes = 8, kLine = 16;  // floats of a vector, and of a line of the cache

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

// Fewer than eight columns of m: lanes of `mask`, the sums of a channel at a time.
POPCLOUD_INLINE void product_narrow(const float* x, const float* m, size_t rows, size_t channels, size_t wide,
                                    __m256i mask, float* out) {
  for (size_t c = 0; c < channels; ++c) {
    __m256 sum = _mm256_setzero_ps();
    for (size_t i = 0; i < rows; ++i)
      sum = _mm256_fmadd_ps(_mm256_broadcast_ss(x + i * channels + c), _mm256_maskload_ps(m + i * wide, mask),
                            sum);
    _mm256_maskstore_ps(out + c * wide, mask, sum);
  }
}

// kRows more rows of x and m, added to out, or to 0 if they are the first: those of m stay in registers,
// those of x, which come from afar, are read as they lie. The second vector of columns may overlap the first
// one, and then holds the same.
template <int kRows, int kVectors>
POPCLOUD_INLINE void product_rows(const float* x, const float* m, size_t channels, size_t wide, size_t second,
                                  bool first, float* out) {
  const size_t at[2] = {0, second};
  __m256 factor[kRows][kVectors];
  POPCLOUD_UNROLL
  for (int i = 0; i < kRows; ++i) {
    POPCLOUD_UNROLL
    for (int v = 0; v < kVectors; ++v) factor[i][v] = _mm256_loadu_ps(m + size_t(i) * wide + at[v]);
  }
  for (size_t from = 0; from < channels; from += kLine) {
    POPCLOUD_UNROLL
    for (int i = 0; i < kRows; ++i)  // of the rows that come next: meanwhile they arrive
      _mm_prefetch(reinterpret_cast<const char*>(x + size_t(i + kRows) * channels + from), _MM_HINT_T0);
    const size_t to = channels - from < kLine ? channels : from + kLine;
    for (size_t c = from; c < to; ++c, out += wide) {
      __m256 sum[kVectors];
      POPCLOUD_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[v] = first ? _mm256_setzero_ps() : _mm256_loadu_ps(out + at[v]);
      POPCLOUD_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const __m256 one = _mm256_broadcast_ss(x + size_t(i) * channels + c);
        POPCLOUD_UNROLL
        for (int v = 0; v < kVectors; ++v) sum[v] = _mm256_fmadd_ps(one, factor[i][v], sum[v]);
      }
      POPCLOUD_UNROLL
      for (int v = 0; v < kVectors; ++v) _mm256_storeu_ps(out + at[v], sum[v]);
    }
  }
}

// One or two vectors of columns.
template <int kVectors>
POPCLOUD_NOINLINE void product_panel(const float* x, const float* m, size_t rows, size_t channels,
                                     size_t wide, size_t second, float* out) {
  size_t i = 0;
  for (; i + 4 <= rows; i += 4)
    product_rows<4, kVectors>(x + i * channels, m + i * wide, channels, wide, second, i == 0, out);
  for (; i < rows; ++i)
    product_rows<1, kVectors>(x + i * channels, m + i * wide, channels, wide, second, i == 0, out);
}

void product(const float* x, const float* m, size_t rows, size_t channels, size_t wide, float* out) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  if (wide < kLanes || rows == 0) {
    for (size_t j = 0; j < wide; j += kLanes)
      product_narrow(x, m + j, rows, channels, wide,
                     _mm256_cmpgt_epi32(_mm256_set1_epi32(int32_t(wide - j)), lanes), out + j);
    return;
  }
  size_t j = 0;
  for (; wide - j > kLanes; j += 2 * kLanes) {
    const size_t second = wide - j < 2 * kLanes ? wide - j - kLanes : kLanes;
    product_panel<2>(x, m + j, rows, channels, wide, second, out + j);
    if (wide - j <= 2 * kLanes) return;
  }
  product_panel<1>(x, m + (wide - kLanes), rows, channels, wide, 0, out + (wide - kLanes));
}

POPCLOUD_TARGET_END

}  // namespace

const RowKernels kRowsAvx2{finish, product, edges, groups, above, subtract, multiply};

}  // namespace popcloud
#endif
