// What can be decided about a program before it sees a cloud: which steps run together, and where values lie.
#pragma once
#include "program.h"

namespace popcloud {

// Where a value lies.
struct Place {
  enum Where { kCaller, kSlot, kBlock };
  Where where;
  size_t index;  // kSlot: which slot. kBlock: how many bytes into its group's block
};

// A piece of memory that values use one after another. All of them are of points, or none is.
struct Slot {
  bool points;
  std::vector<size_t> values;
};

// Steps [first, last) that are walked together, block of points by block of points, so that what flows
// between them stays in the cache and, where nobody else reads it, is never stored whole. A step that
// searches, one that pools the whole cloud, and one that reads one row, is a group of its own.
struct Group {
  size_t first, last;
  bool by_points;  // of one level
  size_t level;
  size_t each;          // rows per point of the step that has the most
  size_t block_points;  // their rows are a multiple of 16, or enough
  size_t block_bytes;   // for the values that live in the block
};

struct Plan {
  std::vector<Group> groups;
  std::vector<Place> places;  // by value
  std::vector<Slot> slots;
  std::vector<bool> unique;  // by value: equal rows of it need to be there only once
  // By step: how many are done at once from it on. 1, but where a group picks rows, takes the point's own off
  // (or not) and reads nothing but the signs: GATHER, SUBTRACT, BINARIZE; then the floats are never stored.
  std::vector<size_t> together;
};

Plan make_plan(const Program& program, const Options& options);

// How many points a level of a program has in a cloud of so many, and how many rows a value.
size_t points_at(const Program& program, size_t level, size_t points);
size_t rows_of(const Program& program, const Value& value, size_t points);

// Answers for all points at once: searches, and what weighs a point by all others.
bool stands_alone(Op op);

// Where steps share rows or points: no fewer of them than this at once.
size_t least_points(size_t each);

}  // namespace popcloud
