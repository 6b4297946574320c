// What can be decided about a program before it sees a cloud: which steps run together, and where values lie.
#pragma once
#include "program.h"

namespace popcloud {

// Where a value lies.
struct Place {
  enum Where { kCaller, kSlot, kBlock };
  Where where;
  size_t index;  // kSlot: which slot. kBlock: bytes per row of the values before it in its group's block
};

// A piece of memory that values use one after another.
struct Slot {
  Rows rows;
  size_t row_bytes;  // of its widest value
};

// Steps [first, last) that are walked together, block of rows by block of rows, so that the floats between
// them stay in the cache and, where nobody else reads them, are never stored whole. A step that pools, and
// one that reads one row, is a group of its own.
struct Group {
  size_t first, last;
  bool by_rows;        // over the points of the cloud
  size_t block_rows;   // a multiple of 16
  size_t block_bytes;  // for the values that live in the block
};

struct Plan {
  std::vector<Group> groups;
  std::vector<Place> places;  // by value
  std::vector<Slot> slots;
  std::vector<bool> unique;  // by value: equal rows of it need to be there only once
};

Plan make_plan(const Program& program, const Options& options);

}  // namespace popcloud
