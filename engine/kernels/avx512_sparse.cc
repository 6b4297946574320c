// Sparse convolution on AVX-512.
#include "kernels/sparse.h"

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)  // GCC 12 warns of its own _mm512_undefined_* (its bug 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "kernels/target.h"

POPCLOUD_TARGET_BEGIN("avx512f")

namespace popcloud::avx512 {
namespace {

using Vec = __m512;
constexpr size_t kLanes = 16, kWide = 2;

// Of 32 registers: 10 x 2 sums and 2 weights, or 12 sums; the broadcast is part of the multiply-add.
constexpr int most_sums(int vectors) { return vectors == 1 ? 12 : 10; }

POPCLOUD_INLINE __mmask16 first_lanes(size_t live) { return __mmask16((1u << live) - 1); }
POPCLOUD_INLINE Vec zero() { return _mm512_setzero_ps(); }
POPCLOUD_INLINE Vec load(const float* from) { return _mm512_loadu_ps(from); }
POPCLOUD_INLINE void store(float* to, Vec v) { _mm512_storeu_ps(to, v); }
POPCLOUD_INLINE Vec load_some(const float* from, size_t live) {
  return _mm512_maskz_loadu_ps(first_lanes(live), from);
}
POPCLOUD_INLINE void store_some(float* to, size_t live, Vec v) {
  _mm512_mask_storeu_ps(to, first_lanes(live), v);
}
POPCLOUD_INLINE Vec spread(const float* one) { return _mm512_set1_ps(*one); }
POPCLOUD_INLINE Vec fma(Vec a, Vec b, Vec sum) { return _mm512_fmadd_ps(a, b, sum); }

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

}  // namespace popcloud::avx512

POPCLOUD_TARGET_END

#endif
