// The ops of programs on points that answer point by point, and how every other op does so on points. What
// each means is written in src/popcloud/packed/program.py.
#pragma once
#include "ops.h"

namespace popcloud {

// A step's inputs and output for some points of the output's level. Each pointer is where their rows start,
// one after another, `each` per point; a value of one row for the whole cloud lies there alone. GATHER's
// first input is there whole.
struct Piece {
  const void* inputs[4];
  void* output;
  size_t points;
};

// Runs a step on a piece, whose output may be of one row: then points is 1. TRANSFORM reads the scratch. Ops
// that pool do so for each point.
void run_piece(const Layer& layer, const KernelTable& table, const Piece& piece, Scratch& scratch);

// GATHER, SUBTRACT of what lies at `own`, a row per point, unless that is null, and BINARIZE, in one go. The
// piece has GATHER's inputs and BINARIZE's output.
void run_edges(const Layer& gather, const Layer& binarize, const KernelTable& table, const Piece& piece,
               const void* own);

// The parts of that by family: CONCAT (which also joins signs), LINEAR_GROUPS, BINARY_GROUPS and BINARY_SUM.
void concat(const Layer& layer, const Piece& piece);
void linear_groups(const Layer& layer, const KernelTable& table, const Piece& piece, Scratch& scratch);
void binary_groups(const Layer& layer, const KernelTable& table, const Piece& piece, Scratch& scratch);
void binary_sum(const Layer& layer, const KernelTable& table, const Piece& piece, Scratch& scratch);

// Row r of an output with `each` rows per point reads this row of an input.
class RowOf {
 public:
  RowOf(const Operand& input, const Operand& output)
      : per_row_(input.each == output.each ? 1
                 : input.each              ? output.each
                                           : 0) {}
  size_t operator()(size_t r) const { return per_row_ == 1 ? r : per_row_ ? r / per_row_ : 0; }

 private:
  size_t per_row_;  // rows of the output that share one; 0: all do
};

}  // namespace popcloud
