// The kernels of sparse layers of each instruction set, as kernels.h says of the members of KernelTable.
#pragma once
#include "kernels/kernels.h"

#define POPCLOUD_DECLARE_SIGNS(isa)                                                                       \
  namespace popcloud::isa {                                                                               \
  void sum_floats(const float* x, size_t inputs, const float* w, size_t channels, const Gather& rows,     \
                  float* sums, size_t stride);                                                            \
  void pick(const Gather& rows, const uint8_t* slots, uint32_t* begin, uint32_t* entries);                \
  size_t sign_kernel_bytes(const SignKernel& w);                                                          \
  void prepare_sign_kernel(const SignKernel& w, void* prepared);                                          \
  void sum_signs(const uint64_t* x, const SignKernel& w, const Gather& rows, float* sums, size_t stride); \
  void finish(const float* sums, size_t rows, const Finish& what);                                        \
  void largest(const float* rows, size_t count, size_t classes, int32_t* out);                            \
  }
#define POPCLOUD_DECLARE_SPARSE(isa)                                                                      \
  POPCLOUD_DECLARE_SIGNS(isa)                                                                             \
  namespace popcloud::isa {                                                                               \
  void sparse_conv(FloatRows x, const float* w, size_t channels, Pairs pairs, float* y, size_t y_stride); \
  void sparse_weight_grad(FloatRows x, FloatRows dy, Pairs pairs, float* dw);                             \
  }
POPCLOUD_DECLARE_SIGNS(portable)
POPCLOUD_DECLARE_SPARSE(avx2)
POPCLOUD_DECLARE_SPARSE(avx512)
POPCLOUD_DECLARE_SPARSE(neon)
#undef POPCLOUD_DECLARE_SPARSE
#undef POPCLOUD_DECLARE_SIGNS
