// Stands in for <immintrin.h> so that avx512*.cc, unchanged, run on a processor with AVX2 only: SIMDe gives
// each AVX-512 intrinsic a meaning in narrower vectors, the functions at the end are those that SIMDe 0.7.4
// lacks. For the tests only, see engine/tests/emulate_avx512.sh.
#pragma once
#include_next <immintrin.h>

#include "kernels/target.h"
#undef POPCLOUD_TARGET_BEGIN  // no AVX-512 instruction may be made by the compiler either
#undef POPCLOUD_TARGET_END
#define POPCLOUD_TARGET_BEGIN(isa)
#define POPCLOUD_TARGET_END
#define __builtin_cpu_supports(feature) true

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#include <cstddef>
#include <cstdint>

namespace emulated {

template <class Vector, class T>
Vector load(uint32_t live, const T* from) {
  T lanes[sizeof(Vector) / sizeof(T)];
  for (size_t i = 0; i < sizeof(Vector) / sizeof(T); ++i) lanes[i] = live >> i & 1 ? from[i] : T(0);
  Vector v;
  __builtin_memcpy(&v, lanes, sizeof(v));
  return v;
}

template <class T, class Vector>
void store(T* to, uint32_t live, Vector v) {
  T lanes[sizeof(Vector) / sizeof(T)];
  __builtin_memcpy(lanes, &v, sizeof(v));
  for (size_t i = 0; i < sizeof(Vector) / sizeof(T); ++i)
    if (live >> i & 1) to[i] = lanes[i];
}

// Lane by lane, from In to Out.
template <class To, class Out, class In, class From>
To convert(From v) {
  constexpr size_t kLanes = sizeof(To) / sizeof(Out);
  static_assert(kLanes * sizeof(In) == sizeof(From), "as many lanes on both sides");
  In in[kLanes];
  Out out[kLanes];
  __builtin_memcpy(in, &v, sizeof(v));
  for (size_t i = 0; i < kLanes; ++i) out[i] = Out(in[i]);
  To converted;
  __builtin_memcpy(&converted, out, sizeof(converted));
  return converted;
}

}  // namespace emulated

#define _mm512_maskz_loadu_epi64(live, from) emulated::load<simde__m512i, uint64_t>(live, from)
#define _mm512_maskz_loadu_ps(live, from) emulated::load<simde__m512, float>(live, from)
#define _mm256_maskz_loadu_epi32(live, from) emulated::load<__m256i, int32_t>(live, from)
#define _mm512_mask_storeu_epi64(to, live, v) emulated::store<int64_t>(to, live, v)
#define _mm512_mask_storeu_ps(to, live, v) emulated::store<float>(to, live, v)
#define _mm256_mask_storeu_epi32(to, live, v) emulated::store<int32_t>(to, live, v)
#define _mm512_cvtepi32_epi64(v) emulated::convert<simde__m512i, int64_t, int32_t>(v)
#define _mm512_cvtepi16_epi32(v) emulated::convert<simde__m512i, int32_t, int16_t>(v)
#define _mm512_cvtepi32_ps(v) emulated::convert<simde__m512, float, int32_t>(v)
