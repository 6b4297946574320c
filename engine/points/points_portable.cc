// Searches on any processor: eight lanes are an array, which the compiler makes vectors of, as far as it can.
#include "kernels/kernels.h"
#include "kernels/target.h"
#include "points/kernels.h"

namespace popcloud {
namespace {

struct Eight {
  float v[kWidth];
};

#define POPCLOUD_LANES(result, expression) \
  Eight result;                            \
  for (size_t i = 0; i < kWidth; ++i) result.v[i] = expression;

POPCLOUD_INLINE Eight load(const float* from) {
  POPCLOUD_LANES(r, from[i])
  return r;
}
POPCLOUD_INLINE void store(float* to, const Eight& a) {
  for (size_t i = 0; i < kWidth; ++i) to[i] = a.v[i];
}
POPCLOUD_INLINE Eight load_whole(const int32_t* from) {
  POPCLOUD_LANES(r, float(from[i]))
  return r;
}
POPCLOUD_INLINE Eight spread(float one) {
  POPCLOUD_LANES(r, one)
  return r;
}
POPCLOUD_INLINE Eight plus(const Eight& a, const Eight& b) {
  POPCLOUD_LANES(r, a.v[i] + b.v[i])
  return r;
}
POPCLOUD_INLINE Eight minus(const Eight& a, const Eight& b) {
  POPCLOUD_LANES(r, a.v[i] - b.v[i])
  return r;
}
POPCLOUD_INLINE Eight times(const Eight& a, const Eight& b) {
  POPCLOUD_LANES(r, a.v[i] * b.v[i])
  return r;
}
POPCLOUD_INLINE Eight over(const Eight& a, const Eight& b) {
  POPCLOUD_LANES(r, a.v[i] / b.v[i])
  return r;
}
POPCLOUD_INLINE Eight fused(const Eight& a, const Eight& b, const Eight& c) {
  POPCLOUD_LANES(r, __builtin_fmaf(a.v[i], b.v[i], c.v[i]))
  return r;
}
// The second where either is NaN.
POPCLOUD_INLINE Eight larger(const Eight& a, const Eight& b) {
  POPCLOUD_LANES(r, a.v[i] > b.v[i] ? a.v[i] : b.v[i])
  return r;
}
POPCLOUD_INLINE Eight smaller(const Eight& a, const Eight& b) {
  POPCLOUD_LANES(r, a.v[i] < b.v[i] ? a.v[i] : b.v[i])
  return r;
}
// A bit per lane; never of NaN.
POPCLOUD_INLINE unsigned above(const Eight& a, const Eight& b) {
  unsigned bits = 0;
  for (size_t i = 0; i < kWidth; ++i) bits |= unsigned(a.v[i] > b.v[i]) << i;
  return bits;
}
POPCLOUD_INLINE unsigned below(const Eight& a, const Eight& b) { return above(b, a); }
POPCLOUD_INLINE unsigned at_least(const Eight& a, const Eight& b) {
  unsigned bits = 0;
  for (size_t i = 0; i < kWidth; ++i) bits |= unsigned(a.v[i] >= b.v[i]) << i;
  return bits;
}
POPCLOUD_INLINE unsigned at_most(const Eight& a, const Eight& b) { return at_least(b, a); }
POPCLOUD_INLINE float highest(const Eight& a) {
  float top = a.v[0];
  for (size_t i = 1; i < kWidth; ++i) top = a.v[i] > top ? a.v[i] : top;
  return top;
}

// Everything above x moves on by one.
template <class T>
POPCLOUD_INLINE void insert(T* kept, size_t padded, T x) {
  for (size_t i = padded; i--;) {
    const T before = kept[i - 1] > x ? kept[i - 1] : x;
    kept[i] = before < kept[i] ? before : kept[i];
  }
}
POPCLOUD_INLINE void insert_pair(double* pairs, size_t padded, double x) { insert(pairs, padded, x); }
POPCLOUD_INLINE void insert_row(uint32_t* rows, size_t padded, uint32_t x) { insert(rows, padded, x); }

// The wanted-th smallest of kPanel numbers; of equal ones each counts.
POPCLOUD_INLINE float number(const float* own, size_t wanted) {
  float top = -__builtin_inff();
  for (size_t i = 0; i < kPanel; ++i) {
    size_t before = 0;
    for (size_t j = 0; j < kPanel; ++j) before += own[j] < own[i];
    top = before < wanted && own[i] > top ? own[i] : top;
  }
  return top;
}
// ranks[i] = how many of the pairs are smaller than pair i.
POPCLOUD_INLINE void rank(const double* pairs, size_t count, int64_t* ranks) {
  for (size_t i = 0; i < count; ++i) {
    ranks[i] = 0;
    for (size_t j = 0; j < count; ++j) ranks[i] += pairs[j] < pairs[i];
  }
}

#include "points/search.inc"
// it uses what the other has
#include "points/sample.inc"

bool supported() { return true; }

}  // namespace

const PointKernels kPointsPortable = {
    supported, nearest, ball, smallest, fewest, half_norms, density, farthest_of_all, farthest_by_tree};

const PointKernels* const* all_point_kernels() {
  static const PointKernels* const list[] = {
#if defined(__x86_64__)
      &kPointsAvx2,
#endif
      &kPointsPortable, nullptr};
  return list;
}

const PointKernels& point_kernels() {
  for (auto kernels = all_point_kernels();; ++kernels)
    if ((*kernels)->supported()) return **kernels;  // portable is last and always supported
}

}  // namespace popcloud
