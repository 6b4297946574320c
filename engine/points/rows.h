// The inner loops of ops on points, per instruction set; all write the same bits.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"

namespace popcloud {

// What becomes of counts of mismatches: act(fma(scale[c], float(inputs - 2 * mismatches) * row, bias[c])).
struct Affine {
  size_t inputs;
  const float *scale, *bias;
  Activation act;  // but SIGMOID and RPRELU
};

// Channels in groups of `each` outputs, at most kMostTogether, that read `inputs` signs, at most kMostSigns,
// of one group of a row.
constexpr size_t kMostSigns = 32, kMostTogether = 512;
struct SignGroups {
  size_t inputs, each, channels;
  const uint32_t* weight;  // [channels]
};

struct RowKernels {
  // values[r * stride + c] is an int32 count on entry and a float on return, for c < channels. row_scale, a
  // factor of each row's products, rounded, may be null.
  void (*finish)(float* values, size_t rows, size_t stride, size_t channels, const Affine& affine,
                 const float* row_scale);
  // out[c * wide + j] = s, s = 0, then s = fma(x[i * channels + c], m[i * wide + j], s) for i = 0 .. rows
  // - 1.
  void (*product)(const float* x, const float* m, size_t rows, size_t channels, size_t wide, float* out);
  // Bit c of row i of out, [count][words of channels], = x[rows[i] * channels + c] - own[c] < threshold[c];
  // tail bits 0. own may be null: nothing is taken off.
  void (*edges)(const float* x, const int32_t* rows, size_t count, const float* own, size_t channels,
                const float* threshold, uint64_t* out);
  // out[r * channels + c] = that of the mismatches of row r, [rows][row_words].
  void (*groups)(const uint64_t* x, size_t rows, size_t row_words, const SignGroups& groups,
                 const Affine& affine, float* out);
  // Bit c of out, words of channels, = counts[c] > limit[c]; tail bits 0.
  void (*above)(const int32_t* counts, const int32_t* limit, size_t channels, uint64_t* out);
  // out[c] = x[c] - y[c], or x[c] * y[c].
  void (*subtract)(const float* x, const float* y, size_t count, float* out);
  void (*multiply)(const float* x, const float* y, size_t count, float* out);
};

// Those of the instruction set that a table is for.
const RowKernels& row_kernels(const KernelTable& table);

extern const RowKernels kRowsPortable;
#if defined(__x86_64__)
extern const RowKernels kRowsAvx2;
#endif

}  // namespace popcloud
