// Binary sparse layers on AVX2.
#include "kernels/sparse.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/target.h"

POPCLOUD_TARGET_BEGIN("avx2")

namespace popcloud::avx2 {
namespace {

using Bytes = __m256i;
using Wide = __m256i;
using Table = __m256i;
constexpr size_t kSets = 1;

POPCLOUD_INLINE Bytes none() { return _mm256_setzero_si256(); }
POPCLOUD_INLINE Wide nothing() { return _mm256_setzero_si256(); }
POPCLOUD_INLINE Table table(const int8_t* code) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(code));
}
// Weights are aligned, so that their load is part of the shuffle.
POPCLOUD_INLINE void look_up(Table t, const uint8_t* weights, Bytes& sum) {
  sum = _mm256_add_epi8(sum,
                        _mm256_shuffle_epi8(t, _mm256_load_si256(reinterpret_cast<const __m256i*>(weights))));
  POPCLOUD_NOW(sum);
}
POPCLOUD_INLINE Bytes minus(Bytes a, Bytes b) { return _mm256_sub_epi8(a, b); }
POPCLOUD_INLINE Wide add_wide(Wide sum, Bytes bytes) {
  const __m256i lower = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(bytes));
  const __m256i upper = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(bytes, 1));
  return _mm256_add_epi16(sum, _mm256_add_epi16(lower, upper));
}

POPCLOUD_INLINE __m256i first_lanes(size_t live) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(int32_t(live)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
POPCLOUD_INLINE __m256 doubled(__m128i eight) {
  const __m256 sums = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(eight));
  return _mm256_add_ps(sums, sums);
}
POPCLOUD_INLINE void write(Wide sums, size_t live, float* out) {
  const __m256 low = doubled(_mm256_castsi256_si128(sums)), high = doubled(_mm256_extracti128_si256(sums, 1));
  if (live < 8) return _mm256_maskstore_ps(out, first_lanes(live), low);
  _mm256_storeu_ps(out, low);
  if (live == 16)
    _mm256_storeu_ps(out + 8, high);
  else if (live > 8)
    _mm256_maskstore_ps(out + 8, first_lanes(live - 8), high);
}

#include "kernels/lookup.inc"

using Eight = __m256;
using Mask = __m256;

POPCLOUD_INLINE Eight load(const float* from) { return _mm256_loadu_ps(from); }
POPCLOUD_INLINE void store(float* to, Eight v) { _mm256_storeu_ps(to, v); }
POPCLOUD_INLINE Eight load_some(const float* from, size_t live) {
  return _mm256_maskload_ps(from, first_lanes(live));
}
POPCLOUD_INLINE void store_some(float* to, size_t live, Eight v) {
  _mm256_maskstore_ps(to, first_lanes(live), v);
}
POPCLOUD_INLINE Eight spread(float one) { return _mm256_set1_ps(one); }
POPCLOUD_INLINE Eight times(Eight a, Eight b) { return _mm256_mul_ps(a, b); }
POPCLOUD_INLINE Eight plus(Eight a, Eight b) { return _mm256_add_ps(a, b); }
POPCLOUD_INLINE Eight minus(Eight a, Eight b) { return _mm256_sub_ps(a, b); }
POPCLOUD_INLINE Mask less(Eight a, Eight b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
POPCLOUD_INLINE Eight pick(Mask mask, Eight a, Eight b) { return _mm256_blendv_ps(b, a, mask); }
POPCLOUD_INLINE unsigned bits(Mask mask) { return unsigned(_mm256_movemask_ps(mask)); }

#include "kernels/finish.inc"

}  // namespace

size_t sign_kernel_bytes(const SignKernel& w) { return lookup_bytes(w); }

void prepare_sign_kernel(const SignKernel& w, void* prepared) { prepare_lookup(w, prepared); }

void sum_signs(const uint64_t* x, const SignKernel& w, const Gather& rows, float* sums, size_t stride) {
  sum_by_lookup(x, w, rows, sums, stride);
}

void finish(const float* sums, size_t rows, const Finish& what) { finish_any(sums, rows, what); }

}  // namespace popcloud::avx2

POPCLOUD_TARGET_END

#endif
