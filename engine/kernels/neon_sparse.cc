// Sparse convolution on 64-bit ARM.
#include "kernels/sparse.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include "kernels/target.h"

namespace popcloud::neon {
namespace {

using Vec = float32x4_t;
constexpr size_t kLanes = 4, kWide = 4;

// Of 32 registers: 6 x 4 sums, 4 weights and a broadcast; or 8 x 2, or 8 of one.
constexpr int most_sums(int vectors) { return vectors > 2 ? 6 : 8; }

POPCLOUD_INLINE Vec zero() { return vdupq_n_f32(0); }
POPCLOUD_INLINE Vec load(const float* from) { return vld1q_f32(from); }
POPCLOUD_INLINE void store(float* to, Vec v) { vst1q_f32(to, v); }
// NEON has no masked loads, and memory beyond may not be there.
POPCLOUD_INLINE Vec load_some(const float* from, size_t live) {
  if (live == kLanes) return load(from);
  float lanes[kLanes] = {};
  for (size_t i = 0; i < live; ++i) lanes[i] = from[i];
  return load(lanes);
}
POPCLOUD_INLINE void store_some(float* to, size_t live, Vec v) {
  if (live == kLanes) return store(to, v);
  float lanes[kLanes];
  store(lanes, v);
  for (size_t i = 0; i < live; ++i) to[i] = lanes[i];
}
POPCLOUD_INLINE Vec spread(const float* one) { return vld1q_dup_f32(one); }
POPCLOUD_INLINE Vec fma(Vec a, Vec b, Vec sum) { return vfmaq_f32(sum, a, b); }

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

}  // namespace popcloud::neon

#endif
