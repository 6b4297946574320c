// The sparse convolution kernels of each instruction set (avx2_sparse.cc, avx512_sparse.cc, neon_sparse.cc).
#pragma once
#include "kernels/kernels.h"

#define POPCLOUD_DECLARE_SPARSE(isa)                                                                      \
  namespace popcloud::isa {                                                                               \
  void sparse_conv(FloatRows x, const float* w, size_t channels, Pairs pairs, float* y, size_t y_stride); \
  void sparse_weight_grad(FloatRows x, FloatRows dy, Pairs pairs, float* dw);                             \
  }
POPCLOUD_DECLARE_SPARSE(avx2)
POPCLOUD_DECLARE_SPARSE(avx512)
POPCLOUD_DECLARE_SPARSE(neon)
#undef POPCLOUD_DECLARE_SPARSE
