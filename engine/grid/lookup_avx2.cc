// Look-ups on AVX2: eight rows at a time; those that are there move to the front by a table of permutations.
#include "grid/lookup.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/target.h"

namespace popcloud {
namespace {

// For each set of lanes that are absent, the others in order.
struct Present {
  constexpr Present() : lanes() {
    for (int absent = 0; absent < 256; ++absent) {
      int count = 0;
      for (uint8_t lane = 0; lane < 8; ++lane)
        if (!(absent >> lane & 1)) lanes[absent][count++] = lane;
    }
  }
  uint8_t lanes[256][8];
};
constexpr Present kPresent;

}  // namespace

POPCLOUD_TARGET_BEGIN("avx2,popcnt")

size_t enter_avx2(const Around& around, const Steps& steps, size_t first, size_t last, uint32_t* begin,
                  uint32_t* entries, size_t n) {
  const size_t vectors = steps.vectors;
  for (size_t row = first; row < last; ++row) {
    begin[row] = static_cast<uint32_t>(n);
    const uint32_t* from = around.table + around.at[around.places[row]];
    for (size_t k = 0; k < vectors; ++k) {
      const Steps::Vector& at = steps.eight[k];
      const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at.low));
      const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at.high));
      const __m256i found = _mm256_or_si256(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1),
                                            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at.numbers)));
      const int absent = _mm256_movemask_ps(_mm256_castsi256_ps(found));
      const __m256i order =
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kPresent.lanes[absent])));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(entries + n), _mm256_permutevar8x32_epi32(found, order));
      n += static_cast<size_t>(8 - _mm_popcnt_u32(static_cast<unsigned>(absent)));
    }
  }
  return n;
}

POPCLOUD_TARGET_END

}  // namespace popcloud
#endif
