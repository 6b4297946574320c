// Binary sparse layers on AVX-512. What follows the sums goes at the pace of memory: AVX2's is as fast.
#include "kernels/sparse.h"

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)  // GCC 12 warns of its own _mm512_undefined_* (its bug 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include "kernels/target.h"

POPCLOUD_TARGET_BEGIN("avx512f,avx512bw")

namespace popcloud::avx512 {
namespace {

using Bytes = __m512i;
using Wide = __m512i;
using Table = __m512i;
constexpr size_t kSets = 2;

POPCLOUD_INLINE Bytes none() { return _mm512_setzero_si512(); }
POPCLOUD_INLINE Wide nothing() { return _mm512_setzero_si512(); }
POPCLOUD_INLINE Table table(const int8_t* code) {
  return _mm512_broadcast_i64x4(_mm256_load_si256(reinterpret_cast<const __m256i*>(code)));
}
// Weights are aligned, so that their load is part of the shuffle.
POPCLOUD_INLINE void look_up(Table t, const uint8_t* weights, Bytes& sum) {
  sum = _mm512_add_epi8(sum, _mm512_shuffle_epi8(t, _mm512_load_si512(weights)));
}
POPCLOUD_INLINE Bytes minus(Bytes a, Bytes b) { return _mm512_sub_epi8(a, b); }
// Quarters are the lower and the upper nibbles of one set of channels, then of the other.
POPCLOUD_INLINE Wide add_wide(Wide sum, Bytes bytes) {
  const __m512i sorted = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 1, 4, 5, 2, 3, 6, 7), bytes);
  const __m512i lower = _mm512_cvtepi8_epi16(_mm512_castsi512_si256(sorted));
  const __m512i upper = _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(sorted, 1));
  return _mm512_add_epi16(sum, _mm512_add_epi16(lower, upper));
}

POPCLOUD_INLINE __mmask16 first_lanes(size_t live) {
  return live < 16 ? __mmask16((1u << live) - 1) : __mmask16(0xffff);
}
POPCLOUD_INLINE __m512 doubled(__m256i sums) {
  const __m512 wide = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(sums));
  return _mm512_add_ps(wide, wide);
}
POPCLOUD_INLINE void write(Wide sums, size_t live, float* out) {
  _mm512_mask_storeu_ps(out, first_lanes(live), doubled(_mm512_castsi512_si256(sums)));
  if (live > 16)
    _mm512_mask_storeu_ps(out + 16, first_lanes(live - 16), doubled(_mm512_extracti64x4_epi64(sums, 1)));
}

#include "kernels/lookup.inc"

}  // namespace

size_t sign_kernel_bytes(const SignKernel& w) { return lookup_bytes(w); }

void prepare_sign_kernel(const SignKernel& w, void* prepared) { prepare_lookup(w, prepared); }

void sum_signs(const uint64_t* x, const SignKernel& w, const Gather& rows, float* sums, size_t stride) {
  sum_by_lookup(x, w, rows, sums, stride);
}

void finish(const float* sums, size_t rows, const Finish& what) { avx2::finish(sums, rows, what); }

}  // namespace popcloud::avx512

POPCLOUD_TARGET_END

#endif
