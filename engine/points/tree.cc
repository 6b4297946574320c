#include "points/tree.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace popcloud {

struct SortedPoint {
  float at[3];
  uint32_t row;
};

namespace {

using Point = SortedPoint;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Box {
  void take(const float* low_at, const float* high_at, size_t stride) {
    for (size_t axis = 0; axis < 3; ++axis) {
      const float below = low_at[axis * stride], above = high_at[axis * stride];
      low[axis] = below < low[axis] ? below : low[axis];  // NaN is not less
      high[axis] = above > high[axis] ? above : high[axis];
    }
  }
  void put(Block& block, size_t lane) const {
    for (size_t axis = 0; axis < 3; ++axis)
      block.low[axis][lane] = low[axis], block.high[axis][lane] = high[axis];
  }

  float low[3] = {kInfinity, kInfinity, kInfinity}, high[3] = {-kInfinity, -kInfinity, -kInfinity};
};

// A whole number that compares as the float does, NaN too: sorting must not meet numbers without an order.
int32_t sortable(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits < 0 ? bits ^ INT32_MAX : bits;
}

size_t widest(const Point* first, const Point* last) {
  Box box;
  for (const Point* p = first; p != last; ++p) box.take(p->at, p->at, 1);
  size_t axis = 0;
  for (size_t other : {1, 2})
    if (box.high[other] - box.low[other] > box.high[axis] - box.low[axis]) axis = other;
  return axis;
}

// Halves the points across the widest axis until a leaf is left; the first half fills a power of two of
// leaves, so that only the last leaf of all is not full.
void sort_into_leaves(Point* first, Point* last) {
  const size_t count = static_cast<size_t>(last - first);
  if (count <= kLeafSize) return;
  size_t half = kLeafSize;
  while (2 * half < count) half *= 2;
  const size_t axis = widest(first, last);
  std::nth_element(first, first + half, last, [axis](const Point& a, const Point& b) {
    return sortable(a.at[axis]) < sortable(b.at[axis]);
  });
  sort_into_leaves(first, first + half);
  sort_into_leaves(first + half, last);
}

size_t pieces(size_t count, size_t size) { return (count + size - 1) / size; }

}  // namespace

Tree::Tree(const float* xyz, size_t count, Ledger* ledger)
    : points(count), own_leaves_(pieces(count, kLeafSize), ledger) {
  leaves = own_leaves_.data();
  for (size_t children = own_leaves_.size();; children = pieces(children, kWidth)) {
    begin[levels] = total, members[levels++] = children;
    total += pieces(children, kWidth);
    if (children <= kWidth) break;
  }
  own_blocks_ = Array<Block>(total, ledger);
  blocks = own_blocks_.data();
  Array<Point> sorted(count, ledger);
  for (size_t p = 0; p < count; ++p)
    sorted[p] = {{xyz[3 * p], xyz[3 * p + 1], xyz[3 * p + 2]}, static_cast<uint32_t>(p)};
  sort_into_leaves(sorted.begin(), sorted.end());
  fill_leaves(sorted.data());
  fill_blocks();
}

void Tree::fill_leaves(const Point* sorted) {
  for (size_t i = 0; i < members[0]; ++i) {
    Box box;
    for (size_t lane = 0; lane < kLeafSize; ++lane) {
      const size_t p = i * kLeafSize + lane;
      const Point point = p < points ? sorted[p] : Point{{kNan, kNan, kNan}, kNoRow};
      for (size_t axis = 0; axis < 3; ++axis) own_leaves_[i].at[axis][lane] = point.at[axis];
      own_leaves_[i].rows[lane] = point.row;
      box.take(point.at, point.at, 1);
    }
    box.put(own_blocks_[i / kWidth], i % kWidth);
  }
}

void Tree::fill_blocks() {
  for (size_t level = 1; level < levels; ++level)
    for (size_t i = 0; i < members[level]; ++i) {
      const Block& below = blocks[begin[level - 1] + i];
      Box box;
      for (size_t lane = 0; lane < children(level - 1, i); ++lane)
        box.take(below.low[0] + lane, below.high[0] + lane, kWidth);
      box.put(own_blocks_[begin[level] + i / kWidth], i % kWidth);
    }
}

}  // namespace popcloud
