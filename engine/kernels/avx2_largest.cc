// The class with the largest answer, on AVX2.
#include "kernels/sparse.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/target.h"

POPCLOUD_TARGET_BEGIN("avx2")

namespace popcloud::avx2 {
namespace {

constexpr size_t kLanes = 8, kMostVectors = 8;  // whose masks fit a word

POPCLOUD_INLINE __m256 most_of(__m256 v) {
  v = _mm256_max_ps(v, _mm256_permute2f128_ps(v, v, 1));
  v = _mm256_max_ps(v, _mm256_permute_ps(v, 0x4e));
  return _mm256_max_ps(v, _mm256_permute_ps(v, 0xb1));
}

POPCLOUD_INLINE uint64_t bits(__m256 mask) { return uint32_t(_mm256_movemask_ps(mask)); }

// Lane i of vector v is class 8 v + i, but the last vector ends with the row: it starts at class `last`.
template <int kVectors>
POPCLOUD_NOINLINE void largest_rows(const float* rows, size_t count, size_t classes, int32_t* out) {
  const size_t last = classes - kLanes;
  for (size_t r = 0; r < count; ++r, rows += classes) {
    __m256 x[kVectors];
    POPCLOUD_UNROLL
    for (int v = 0; v < kVectors - 1; ++v) x[v] = _mm256_loadu_ps(rows + size_t(v) * kLanes);
    x[kVectors - 1] = _mm256_loadu_ps(rows + last);
    __m256 most = x[0], nan = _mm256_cmp_ps(x[0], x[0], _CMP_UNORD_Q);
    POPCLOUD_UNROLL
    for (int v = 1; v < kVectors; ++v) {
      most = _mm256_max_ps(most, x[v]);
      nan = _mm256_or_ps(nan, _mm256_cmp_ps(x[v], x[v], _CMP_UNORD_Q));
    }
    most = most_of(most);
    if (_mm256_movemask_ps(nan)) {  // hardly ever
      portable::largest(rows, 1, classes, out + r);
      continue;
    }
    uint64_t equal = 0;
    POPCLOUD_UNROLL
    for (int v = 0; v < kVectors; ++v)
      equal |= bits(_mm256_cmp_ps(x[v], most, _CMP_EQ_OQ)) << (v < kVectors - 1 ? size_t(v) * kLanes : last);
    out[r] = int32_t(__builtin_ctzll(equal));
  }
}

// `vectors` is 1 to kVectors.
template <int kVectors>
void largest_vectors(const float* rows, size_t count, size_t classes, int32_t* out, size_t vectors) {
  if constexpr (kVectors > 1)
    if (vectors < size_t(kVectors)) return largest_vectors<kVectors - 1>(rows, count, classes, out, vectors);
  largest_rows<kVectors>(rows, count, classes, out);
}

}  // namespace

void largest(const float* rows, size_t count, size_t classes, int32_t* out) {
  if (classes < kLanes || classes > kMostVectors * kLanes)
    return portable::largest(rows, count, classes, out);
  largest_vectors<kMostVectors>(rows, count, classes, out, (classes + kLanes - 1) / kLanes);
}

}  // namespace popcloud::avx2

POPCLOUD_TARGET_END

#endif
