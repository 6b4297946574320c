// Sparse convolution on AVX2 and FMA.
#include "kernels/sparse.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/target.h"

POPCLOUD_TARGET_BEGIN("avx2,fma")

namespace popcloud::avx2 {
namespace {

using Vec = __m256;
constexpr size_t kLanes = 8, kWide = 2;

// Of 16 registers: 6 x 2 sums, 2 weights and a broadcast; 12 sums hide the latency of a fused multiply-add, 4
// cycles twice per cycle. With one vector of weights, 10 sums need 11 loads, and there are two per cycle.
constexpr int most_sums(int vectors) { return vectors == 1 ? 10 : 6; }

POPCLOUD_INLINE __m256i first_lanes(size_t live) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(int32_t(live)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
POPCLOUD_INLINE Vec zero() { return _mm256_setzero_ps(); }
POPCLOUD_INLINE Vec load(const float* from) { return _mm256_loadu_ps(from); }
POPCLOUD_INLINE void store(float* to, Vec v) { _mm256_storeu_ps(to, v); }
// Half a vector is common (4 or 12 channels), and a mask is slow on some processors.
POPCLOUD_INLINE Vec load_some(const float* from, size_t live) {
  if (live == kLanes) return load(from);
  if (live == kLanes / 2) return _mm256_zextps128_ps256(_mm_loadu_ps(from));
  return _mm256_maskload_ps(from, first_lanes(live));
}
POPCLOUD_INLINE void store_some(float* to, size_t live, Vec v) {
  if (live == kLanes) return store(to, v);
  if (live == kLanes / 2) return _mm_storeu_ps(to, _mm256_castps256_ps128(v));
  _mm256_maskstore_ps(to, first_lanes(live), v);
}
POPCLOUD_INLINE Vec spread(const float* one) { return _mm256_broadcast_ss(one); }
POPCLOUD_INLINE Vec fma(Vec a, Vec b, Vec sum) { return _mm256_fmadd_ps(a, b, sum); }

#include "kernels/sparse.inc"

}  // namespace

void sparse_conv(FloatRows x, const float* w, size_t channels, Pairs pairs, float* y, size_t y_stride) {
  conv(x, w, channels, pairs, y, y_stride);
}

void sum_floats(const float* x, size_t inputs, const float* w, size_t channels, const Gather& rows,
                float* sums, size_t stride) {
  sum_by_rows(x, inputs, w, channels, rows, sums, stride);
}

void sparse_weight_grad(FloatRows x, FloatRows dy, Pairs pairs, float* dw) { weight_grad(x, dy, pairs, dw); }

}  // namespace popcloud::avx2

POPCLOUD_TARGET_END

#endif
