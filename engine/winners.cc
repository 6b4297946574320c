#include "winners.h"

namespace popcloud {
namespace {

void add_multiple(size_t count, float a, const float* __restrict x, float* __restrict y) {
  for (size_t i = 0; i < count; ++i) y[i] += a * x[i];
}

}  // namespace

void add_winners(const Winners& of) {
  for (size_t g = 0; g < of.groups; ++g) {
    for (size_t c = 0; c < of.outputs; ++c) {
      const float won = of.won[g * of.outputs + c];
      const size_t row = (g * of.rows + static_cast<size_t>(of.row[g * of.outputs + c])) * of.inputs;
      add_multiple(of.inputs, won, of.weight + c * of.inputs, of.d_x + row);
      add_multiple(of.inputs, won, of.x + row, of.d_weight + c * of.inputs);
    }
  }
}

}  // namespace popcloud
