// Points sorted into leaves by a k-d tree, with the boxes around them, eight to a block: a search compares a
// query with eight boxes, and with eight points, at a time.
#pragma once
#include <cstddef>
#include <cstdint>

#include "memory.h"

namespace popcloud {

constexpr size_t kWidth = 8;        // lanes; children of a block
constexpr size_t kLeafSize = 16;    // points
constexpr size_t kMostLevels = 12;  // for 2^32 points
constexpr uint32_t kNoRow = UINT32_MAX;

// The points of a leaf, in no order. Where there are fewer: NaN, kNoRow.
struct Leaf {
  float at[3][kLeafSize];
  uint32_t rows[kLeafSize];
};

// The boxes around the children of a node: leaves on the lowest level, else blocks.
struct Block {
  float low[3][kWidth], high[3][kWidth];
};

// A bound from a box is never above the distance of a point inside: both are computed alike, and rounding
// keeps order. So answers don't depend on the tree.
struct Tree {
  Tree(const float* xyz, size_t points, Ledger* ledger);

  // How many children block `index` of a level has.
  size_t children(size_t level, size_t index) const {
    const size_t left = members[level] - index * kWidth;
    return left < kWidth ? left : kWidth;
  }

  size_t points;
  const Leaf* leaves;
  const Block* blocks;  // level after level, from the lowest to the root
  size_t levels = 0;
  size_t begin[kMostLevels];    // of each level in `blocks`
  size_t members[kMostLevels];  // how many children the blocks of a level have together
  size_t total = 0;             // blocks

 private:
  void fill_leaves(const struct SortedPoint* sorted);
  void fill_blocks();

  Array<Leaf> own_leaves_;
  Array<Block> own_blocks_;
};

}  // namespace popcloud
