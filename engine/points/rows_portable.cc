// The inner loops of ops on points, plainly, and which ones to use.
#include <cstring>

#include "points/rows.h"

namespace popcloud {
namespace {

constexpr size_t kLanes = 1;

void finish_lanes(float* values, const Affine& affine, size_t c, float row);
unsigned signs_of(const float* x, const float* own, const float* threshold) {
  return (own ? *x - *own : *x) < *threshold;
}
unsigned above_of(const int32_t* counts, const int32_t* limit) { return *counts > *limit; }
void groups_lanes(const uint32_t* fields, const uint32_t* weight, const Affine& affine, size_t c, float* out);

#include "points/rows.inc"

void finish_lanes(float* values, const Affine& affine, size_t c, float row) {
  int32_t mismatches;
  std::memcpy(&mismatches, values, sizeof mismatches);
  *values = finish_one(mismatches, affine, c, row);
}

void groups_lanes(const uint32_t* fields, const uint32_t* weight, const Affine& affine, size_t c,
                  float* out) {
  *out = finish_one(__builtin_popcount(*fields ^ *weight), affine, c, 1.0f);
}

void product(const float* x, const float* m, size_t rows, size_t channels, size_t wide, float* out) {
  for (size_t c = 0; c < channels; ++c)
    for (size_t j = 0; j < wide; ++j) {
      float sum = 0;
      for (size_t i = 0; i < rows; ++i) sum = __builtin_fmaf(x[i * channels + c], m[i * wide + j], sum);
      out[c * wide + j] = sum;
    }
}

}  // namespace

const RowKernels kRowsPortable{finish, product, edges, groups, above, subtract, multiply};

const RowKernels& row_kernels(const KernelTable& table) {
#if defined(__x86_64__)
  if (&table == &kAvx2 || &table == &kAvx512) return kRowsAvx2;
#endif
  (void)table;
  return kRowsPortable;
}

}  // namespace popcloud
