// What the largest of several products passes back to their factors. For training.
#pragma once
#include <cstddef>
#include <cstdint>

namespace popcloud {

// Groups of rows x [groups][rows][inputs], weights [outputs][inputs]; per group and output the row that won
// and what passes back to its product: [groups][outputs]. Gradients have the shapes of x and weights.
struct Winners {
  size_t groups, rows, inputs, outputs;
  const float *x, *weight;
  const int64_t* row;
  const float* won;
  float *d_x, *d_weight;
};

// Adds won * weight to the winning row of d_x, and won * that row of x to d_weight, group after group and
// output after output; every product and every sum is rounded. The rows must be in range.
void add_winners(const Winners& of);

}  // namespace popcloud
