// Farthest point sampling: all points looked at each time, or a tree's leaves where there are many points.
#include <algorithm>
#include <limits>

#include "points/kernels.h"
#include "points/neighbours.h"

namespace popcloud {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kManyPoints = 4096, kManyRows = 16;  // from here on the tree is faster

void of_all(const float* xyz, size_t points, size_t count, int32_t* rows, Ledger* ledger,
            const PointKernels& kernels) {
  const size_t padded = (points + kWidth - 1) / kWidth * kWidth;
  Array<float> columns(3 * padded, ledger), least(padded, ledger);
  std::fill(columns.begin(), columns.end(), std::numeric_limits<float>::quiet_NaN());
  for (size_t p = 0; p < points; ++p)
    for (size_t axis = 0; axis < 3; ++axis) columns[axis * padded + p] = xyz[3 * p + axis];
  std::fill(least.begin(), least.begin() + points, kInfinity);
  std::fill(least.begin() + points, least.end(), -1.0f);
  kernels.farthest_of_all(columns.data(), padded, count, least.data(), rows);
}

// At first every point is infinitely far: the farthest one of each child is its first row.
void start(const Tree& tree, float* least, Farthest* best) {
  for (size_t i = 0; i < tree.total; ++i)
    for (size_t lane = 0; lane < kWidth; ++lane) best[i].pairs[lane] = best[i].distances[lane] = -1;
  for (size_t i = 0; i < tree.members[0]; ++i) {
    const uint32_t* rows = tree.leaves[i].rows;
    for (size_t lane = 0; lane < kLeafSize; ++lane)
      least[i * kLeafSize + lane] = rows[lane] == kNoRow ? -1.0f : kInfinity;
    best[i / kWidth].pairs[i % kWidth] = pair_of(kInfinity, ~*std::min_element(rows, rows + kLeafSize));
    best[i / kWidth].distances[i % kWidth] = kInfinity;
  }
  for (size_t level = 1; level < tree.levels; ++level)
    for (size_t i = 0; i < tree.members[level]; ++i) {
      const Farthest& below = best[tree.begin[level - 1] + i];
      Farthest& own = best[tree.begin[level] + i / kWidth];
      own.pairs[i % kWidth] = *std::max_element(below.pairs, below.pairs + kWidth);
      own.distances[i % kWidth] = kInfinity;
    }
}

}  // namespace

void farthest_points(const float* xyz, size_t points, size_t count, int32_t* rows, Ledger* ledger,
                     const PointKernels& kernels) {
  if (points < kManyPoints || count < kManyRows) return of_all(xyz, points, count, rows, ledger, kernels);
  const Tree tree(xyz, points, ledger);
  Array<float> least(tree.members[0] * kLeafSize, ledger);
  Array<Farthest> best(tree.total, ledger);
  start(tree, least.data(), best.data());
  kernels.farthest_by_tree(tree, xyz, count, least.data(), best.data(), rows);
}

}  // namespace popcloud
