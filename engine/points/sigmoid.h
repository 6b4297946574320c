// The activation SIGMOID, the same bits on any machine: that of src/popcloud/geometry/rounding.py.
#pragma once
#include <cstddef>

namespace popcloud {

// Each of x becomes float(1 / (1 + exp(-x))), in double up to there; NaN stays NaN.
void sigmoid(float* x, size_t count);

}  // namespace popcloud
