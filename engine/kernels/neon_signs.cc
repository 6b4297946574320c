// Binary sparse layers on 64-bit ARM.
#include "kernels/sparse.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include "kernels/target.h"

namespace popcloud::neon {
namespace {

struct Bytes {
  int8x16_t lower, upper;
};
struct Wide {
  int16x8_t low, high;  // channels 0 to 7 and 8 to 15
};
using Table = Bytes;
constexpr size_t kSets = 1;

POPCLOUD_INLINE Bytes none() { return {vdupq_n_s8(0), vdupq_n_s8(0)}; }
POPCLOUD_INLINE Wide nothing() { return {vdupq_n_s16(0), vdupq_n_s16(0)}; }
POPCLOUD_INLINE Table table(const int8_t* code) { return {vld1q_s8(code), vld1q_s8(code + 16)}; }
POPCLOUD_INLINE void look_up(Table t, const uint8_t* weights, Bytes& sum) {
  sum.lower = vaddq_s8(sum.lower, vqtbl1q_s8(t.lower, vld1q_u8(weights)));
  sum.upper = vaddq_s8(sum.upper, vqtbl1q_s8(t.upper, vld1q_u8(weights + 16)));
}
POPCLOUD_INLINE Bytes minus(Bytes a, Bytes b) {
  return {vsubq_s8(a.lower, b.lower), vsubq_s8(a.upper, b.upper)};
}
POPCLOUD_INLINE Wide add_wide(Wide sum, Bytes bytes) {
  return {vaddq_s16(sum.low, vaddl_s8(vget_low_s8(bytes.lower), vget_low_s8(bytes.upper))),
          vaddq_s16(sum.high, vaddl_high_s8(bytes.lower, bytes.upper))};
}
POPCLOUD_INLINE void write(Wide sums, size_t live, float* out) {
  float lanes[16], *to = live == 16 ? out : lanes;
  vst1q_f32(to, vcvtq_f32_s32(vshll_n_s16(vget_low_s16(sums.low), 1)));
  vst1q_f32(to + 4, vcvtq_f32_s32(vshll_high_n_s16(sums.low, 1)));
  vst1q_f32(to + 8, vcvtq_f32_s32(vshll_n_s16(vget_low_s16(sums.high), 1)));
  vst1q_f32(to + 12, vcvtq_f32_s32(vshll_high_n_s16(sums.high, 1)));
  for (size_t i = 0; to == lanes && i < live; ++i) out[i] = lanes[i];
}

#include "kernels/lookup.inc"

struct Eight {
  float32x4_t low, high;
};
struct Mask {
  uint32x4_t low, high;
};

POPCLOUD_INLINE Eight load(const float* from) { return {vld1q_f32(from), vld1q_f32(from + 4)}; }
POPCLOUD_INLINE void store(float* to, Eight v) { vst1q_f32(to, v.low), vst1q_f32(to + 4, v.high); }
// NEON has no masked loads, and memory beyond may not be there.
POPCLOUD_INLINE Eight load_some(const float* from, size_t live) {
  float lanes[8] = {};
  for (size_t i = 0; i < live; ++i) lanes[i] = from[i];
  return load(lanes);
}
POPCLOUD_INLINE void store_some(float* to, size_t live, Eight v) {
  float lanes[8];
  store(lanes, v);
  for (size_t i = 0; i < live; ++i) to[i] = lanes[i];
}
POPCLOUD_INLINE Eight spread(float one) { return {vdupq_n_f32(one), vdupq_n_f32(one)}; }
POPCLOUD_INLINE Eight times(Eight a, Eight b) { return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)}; }
POPCLOUD_INLINE Eight plus(Eight a, Eight b) { return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)}; }
POPCLOUD_INLINE Eight minus(Eight a, Eight b) { return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)}; }
POPCLOUD_INLINE Mask less(Eight a, Eight b) { return {vcltq_f32(a.low, b.low), vcltq_f32(a.high, b.high)}; }
POPCLOUD_INLINE Eight pick(Mask mask, Eight a, Eight b) {
  return {vbslq_f32(mask.low, a.low, b.low), vbslq_f32(mask.high, a.high, b.high)};
}
POPCLOUD_INLINE unsigned bits(Mask mask) {
  const uint16x8_t lanes = vcombine_u16(vmovn_u32(mask.low), vmovn_u32(mask.high));
  const uint16_t place[8] = {1, 2, 4, 8, 16, 32, 64, 128};
  return vaddvq_u16(vandq_u16(lanes, vld1q_u16(place)));
}

#include "kernels/finish.inc"

}  // namespace

size_t sign_kernel_bytes(const SignKernel& w) { return lookup_bytes(w); }

void prepare_sign_kernel(const SignKernel& w, void* prepared) { prepare_lookup(w, prepared); }

void sum_signs(const uint64_t* x, const SignKernel& w, const Gather& rows, float* sums, size_t stride) {
  sum_by_lookup(x, w, rows, sums, stride);
}

void finish(const float* sums, size_t rows, const Finish& what) { finish_any(sums, rows, what); }

}  // namespace popcloud::neon

#endif
