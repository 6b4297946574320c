// Searches on AVX2.
#include "points/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/kernels.h"
#include "kernels/target.h"

POPCLOUD_TARGET_BEGIN("avx2,fma,bmi")

namespace popcloud {
namespace {

using Eight = __m256;

POPCLOUD_INLINE Eight load(const float* from) { return _mm256_loadu_ps(from); }
POPCLOUD_INLINE void store(float* to, Eight v) { _mm256_storeu_ps(to, v); }
POPCLOUD_INLINE Eight load_whole(const int32_t* from) {
  return _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
POPCLOUD_INLINE Eight spread(float one) { return _mm256_set1_ps(one); }
POPCLOUD_INLINE Eight plus(Eight a, Eight b) { return _mm256_add_ps(a, b); }
POPCLOUD_INLINE Eight minus(Eight a, Eight b) { return _mm256_sub_ps(a, b); }
POPCLOUD_INLINE Eight times(Eight a, Eight b) { return _mm256_mul_ps(a, b); }
POPCLOUD_INLINE Eight over(Eight a, Eight b) { return _mm256_div_ps(a, b); }
POPCLOUD_INLINE Eight fused(Eight a, Eight b, Eight c) { return _mm256_fmadd_ps(a, b, c); }
// The second where either is NaN.
POPCLOUD_INLINE Eight larger(Eight a, Eight b) { return _mm256_max_ps(a, b); }
POPCLOUD_INLINE Eight smaller(Eight a, Eight b) { return _mm256_min_ps(a, b); }
// A bit per lane; never of NaN.
POPCLOUD_INLINE unsigned above(Eight a, Eight b) {
  return unsigned(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)));
}
POPCLOUD_INLINE unsigned below(Eight a, Eight b) { return above(b, a); }
POPCLOUD_INLINE unsigned at_least(Eight a, Eight b) {
  return unsigned(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ)));
}
POPCLOUD_INLINE unsigned at_most(Eight a, Eight b) { return at_least(b, a); }
POPCLOUD_INLINE float highest(Eight v) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

// Everything above x moves on by one: in order, each is the smaller of itself and the larger of x and the one
// before it. From the end, so that no vector reads what was written.
POPCLOUD_INLINE void insert_pair(double* pairs, size_t padded, double x) {
  const __m256d all = _mm256_set1_pd(x);
  for (size_t i = padded; i; i -= 4) {
    double* at = pairs + i - 4;
    _mm256_storeu_pd(at, _mm256_min_pd(_mm256_loadu_pd(at), _mm256_max_pd(_mm256_loadu_pd(at - 1), all)));
  }
}
POPCLOUD_INLINE void insert_row(uint32_t* rows, size_t padded, uint32_t x) {
  const __m256i all = _mm256_set1_epi32(int32_t(x));
  for (size_t i = padded; i; i -= kWidth) {
    auto at = reinterpret_cast<__m256i*>(rows + i - kWidth);
    auto before = reinterpret_cast<const __m256i*>(rows + i - kWidth - 1);
    _mm256_storeu_si256(
        at, _mm256_min_epu32(_mm256_loadu_si256(at), _mm256_max_epu32(_mm256_loadu_si256(before), all)));
  }
}

// The wanted-th smallest of kPanel numbers; of equal ones each counts.
POPCLOUD_INLINE float number(const float* own, size_t wanted) {
  const Eight v[4] = {load(own), load(own + 8), load(own + 16), load(own + 24)};
  __m256i before[4] = {};
  for (size_t j = 0; j < kPanel; ++j) {
    const Eight one = _mm256_broadcast_ss(own + j);
    POPCLOUD_UNROLL
    for (int i = 0; i < 4; ++i)  // a true comparison is -1
      before[i] = _mm256_sub_epi32(before[i], _mm256_castps_si256(_mm256_cmp_ps(one, v[i], _CMP_LT_OQ)));
  }
  const __m256i most = _mm256_set1_epi32(int32_t(wanted));
  Eight top = spread(-__builtin_inff());
  POPCLOUD_UNROLL
  for (int i = 0; i < 4; ++i)
    top = larger(top, _mm256_blendv_ps(top, v[i], _mm256_castsi256_ps(_mm256_cmpgt_epi32(most, before[i]))));
  return highest(top);
}
// ranks[i] = how many of the pairs are smaller than pair i; both have room for whole eights.
POPCLOUD_INLINE void rank(const double* pairs, size_t count, int64_t* ranks) {
  for (size_t i = 0; i < count; i += 8) {
    const __m256d low = _mm256_loadu_pd(pairs + i), high = _mm256_loadu_pd(pairs + i + 4);
    __m256i before[2] = {};
    for (size_t j = 0; j < count; ++j) {
      const __m256d one = _mm256_broadcast_sd(pairs + j);
      before[0] = _mm256_sub_epi64(before[0], _mm256_castpd_si256(_mm256_cmp_pd(one, low, _CMP_LT_OQ)));
      before[1] = _mm256_sub_epi64(before[1], _mm256_castpd_si256(_mm256_cmp_pd(one, high, _CMP_LT_OQ)));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(ranks + i), before[0]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(ranks + i + 4), before[1]);
  }
}

#include "points/search.inc"
// it uses what the other has
#include "points/sample.inc"

}  // namespace

POPCLOUD_TARGET_END

namespace {
bool supported() { return kAvx2.supported(); }
}  // namespace

const PointKernels kPointsAvx2 = {
    supported, nearest, ball, smallest, fewest, half_norms, density, farthest_of_all, farthest_by_tree};

}  // namespace popcloud
#endif
