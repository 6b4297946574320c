// The float kernels of the AVX2 table (avx2_float.cc).
#pragma once
#include "kernels/kernels.h"

namespace popcloud::avx2 {

void linear(const float* x, size_t rows, size_t inputs, const float* w, const float* bias, size_t channels,
            Activation act, float* out);
void binarize(const float* x, size_t rows, size_t channels, const float* threshold, uint64_t* out);
void affine(const float* x, size_t rows, size_t channels, const float* scale, const float* bias,
            Activation act, float* out);

}  // namespace popcloud::avx2
