// The inner loops of neighbours.h, per instruction set; all write the same.
#pragma once
#include "points/select.h"
#include "points/tree.h"

namespace popcloud {

// Keys lie in panels of so many; more than so many are not put in order by counting.
constexpr size_t kPanel = 32, kMostRanked = 96;

struct PointKernels {
  bool (*supported)();

  // The nearest points of a query, into `best`, which holds nobody or bounds.
  void (*nearest)(const Tree& tree, const float* query, Smallest& best);
  // The smallest rows with d <= reach into rows[0], ... rows[k rounded up to 8, minus 1], which hold kNoRow;
  // rows[-1] must be 0.
  void (*ball)(const Tree& tree, const float* query, float reach, size_t k, uint32_t* rows);
  // The smallest of keys, numbered 0, 1, ..., into `best`, which holds nobody: key i is keys[i / kPanel *
  // stride + i % kPanel].
  void (*smallest)(const float* keys, size_t count, size_t stride, Smallest& best);
  void (*fewest)(const int32_t* keys, size_t count, size_t stride, Smallest& best);
  // half[p] = 0.5 * (from 0, fma(x, x, s) of columns[c * points + p], c in order).
  void (*half_norms)(const float* columns, size_t points, size_t channels, float* half);
  // As popcloud::density.
  void (*density)(const float* xyz, size_t points, float bandwidth, size_t first, size_t last, float* out);
  // As popcloud::farthest_points, all points looked at each time; columns are x, y, z of `padded` points, a
  // multiple of 8, those behind the last one NaN; `least` is infinity, -1 behind the last one.
  void (*farthest_of_all)(const float* columns, size_t padded, size_t count, float* least, int32_t* rows);
  // The same by a tree (bucket sampling: QuickFPS, Han et al. 2023); `best` holds -1 of each block and lane,
  // `least` infinity of each lane of a leaf, -1 where there is no point.
  void (*farthest_by_tree)(const Tree& tree, const float* xyz, size_t count, float* least, Farthest* best,
                           int32_t* rows);
};

extern const PointKernels kPointsPortable;
#if defined(__x86_64__)
extern const PointKernels kPointsAvx2;
#endif
const PointKernels& point_kernels();             // the fastest ones for this processor
const PointKernels* const* all_point_kernels();  // null-terminated, fastest first

}  // namespace popcloud
