// Sparse convolution over a whole kernel map, on threads. For training: weights are floats.
#pragma once
#include "kernels/kernels.h"
#include "threads.h"

namespace popcloud {

// The pairs of all offsets. Those of offset k are [ranges[2 k], ranges[2 k + 1]) of `inputs` and `outputs`;
// within an offset, outputs ascend strictly.
struct KernelMap {
  const int32_t *inputs, *outputs;
  size_t pairs;
  const int64_t* ranges;
  size_t offsets;
};

// Throws Error(kEngine) if a range is outside the pairs, a row outside the inputs or outputs, or the outputs
// of an offset do not ascend.
void check_map(const KernelMap& map, size_t input_rows, size_t output_rows);

// y[o][c] += sum over the pairs (i, o) of each offset k of x[i] @ w[k], for `rows` rows of y, y_stride floats
// apart. w is [offsets][x.channels][channels]. Each element takes the offsets in order and, within an offset,
// the input channels in order, one fused multiply-add each: the same bits for every table and thread count.
void sparse_conv(const KernelTable& table, Pool& pool, const KernelMap& map, FloatRows x, const float* w,
                 size_t channels, float* y, size_t y_stride, size_t rows);

// dw[k] += sum over the pairs (i, o) of offset k, in order, of x[i]^T dy[o]; dy has `rows` rows. Each element
// takes one fused multiply-add per pair: the same bits for every table and thread count.
void sparse_weight_grad(const KernelTable& table, Pool& pool, const KernelMap& map, FloatRows x, FloatRows dy,
                        size_t rows, float* dw);

}  // namespace popcloud
