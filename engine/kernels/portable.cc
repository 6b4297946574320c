// What each kernel means. Every other table is tested against this one, so it is written to be read.
#include <cmath>

#include "kernels/sparse.h"

namespace popcloud {
namespace {

// Of a row of signs.
size_t words_of(size_t channels) { return (channels + 63) / 64; }

bool always() { return true; }

size_t prepared_bytes(size_t, size_t) { return 0; }  // the bits are read as they lie in the file

void prepare(const uint64_t*, size_t, size_t, void*) {}

// Mismatches of a row with an output channel. Tail bits are 0 on both sides and need no care.
int32_t count(const uint64_t* row, const PackedMatrix& w, size_t channel) {
  int32_t mismatches = 0;
  for (size_t k = 0; k < w.words; ++k)
    mismatches += __builtin_popcountll(row[k] ^ w.bits[k * w.channels + channel]);
  return mismatches;
}

void mismatches(const uint64_t* x, size_t rows, const PackedMatrix& w, Channels at, int32_t* out) {
  for (size_t r = 0; r < rows; ++r)
    for (size_t c = at.first; c < at.last; ++c) out[r * w.channels + c] = count(x + r * w.words, w, c);
}

void threshold(const uint64_t* x, size_t rows, const PackedMatrix& w, Channels at, const int32_t* limit,
               uint64_t* out) {
  const size_t out_words = words_of(w.channels);
  for (size_t r = 0; r < rows; ++r) {
    uint64_t* bits = out + r * out_words;
    for (size_t k = at.first / 64; k < words_of(at.last); ++k) bits[k] = 0;
    for (size_t c = at.first; c < at.last; ++c)
      bits[c / 64] |= uint64_t{count(x + r * w.words, w, c) > limit[c]} << (c % 64);
  }
}

void minimum(const uint64_t* x, size_t rows, const PackedMatrix& w, Channels at, int32_t* least,
             int32_t* where) {
  for (size_t c = at.first; c < at.last; ++c) {
    size_t best = 0;
    least[c] = count(x, w, c);
    for (size_t r = 1; r < rows; ++r) {
      const int32_t now = count(x + r * w.words, w, c);
      if (now < least[c]) least[c] = now, best = r;  // strictly: among equals the first row stays
    }
    if (where) where[c] = int32_t(best);
  }
}

void sum(const uint64_t* x, size_t rows, const PackedMatrix& w, Channels at, int64_t* total) {
  for (size_t c = at.first; c < at.last; ++c) {
    total[c] = 0;
    for (size_t r = 0; r < rows; ++r) total[c] += count(x + r * w.words, w, c);
  }
}

// NaN passes through, and -0 stays -0: both comparisons are false for them.
float activate(float x, Activation act) {
  if (act == Activation::kRelu) return x < 0 ? 0.0f : x;
  if (act == Activation::kHardtanh) return x < -1 ? -1.0f : x > 1 ? 1.0f : x;
  return x;
}

// std::fma rounds once, with or without an instruction for it. It is slow without; no compiler option may
// help, as this file must run everywhere.
void linear(const float* x, size_t rows, size_t inputs, const float* w, const float* bias, size_t channels,
            Activation act, float* out) {
  for (size_t r = 0; r < rows; ++r)
    for (size_t c = 0; c < channels; ++c) {
      float s = bias ? bias[c] : 0.0f;
      for (size_t k = 0; k < inputs; ++k) s = std::fma(x[r * inputs + k], w[k * channels + c], s);
      out[r * channels + c] = activate(s, act);
    }
}

// A comparison with NaN is false: the sign is +1, as for zero.
void binarize(const float* x, size_t rows, size_t channels, const float* threshold, uint64_t* out) {
  const size_t out_words = words_of(channels);
  for (size_t i = 0; i < rows * out_words; ++i) out[i] = 0;
  for (size_t r = 0; r < rows; ++r)
    for (size_t c = 0; c < channels; ++c)
      out[r * out_words + c / 64] |= uint64_t{x[r * channels + c] < threshold[c]} << (c % 64);
}

void affine(const float* x, size_t rows, size_t channels, const float* scale, const float* bias,
            Activation act, float* out) {
  for (size_t r = 0; r < rows; ++r)
    for (size_t c = 0; c < channels; ++c) {
      const size_t i = r * channels + c;
      out[i] = activate(std::fma(scale[c], x[i], bias[c]), act);
    }
}

void sparse_conv(FloatRows x, const float* w, size_t channels, Pairs pairs, float* y, size_t y_stride) {
  for (size_t p = 0; p < pairs.count; ++p) {
    const float* in = x.data + size_t(pairs.inputs[p]) * x.stride;
    float* out = y + size_t(pairs.outputs[p]) * y_stride;
    for (size_t k = 0; k < x.channels; ++k)
      for (size_t c = 0; c < channels; ++c) out[c] = std::fma(in[k], w[k * channels + c], out[c]);
  }
}

void sparse_weight_grad(FloatRows x, FloatRows dy, Pairs pairs, float* dw) {
  for (size_t p = 0; p < pairs.count; ++p) {
    const float* in = x.data + size_t(pairs.inputs[p]) * x.stride;
    const float* slope = dy.data + size_t(pairs.outputs[p]) * dy.stride;
    for (size_t k = 0; k < x.channels; ++k)
      for (size_t c = 0; c < dy.channels; ++c)
        dw[k * dy.channels + c] = std::fma(in[k], slope[c], dw[k * dy.channels + c]);
  }
}

}  // namespace

const KernelTable kPortable{"portable",
                            always,
                            prepared_bytes,
                            prepare,
                            mismatches,
                            threshold,
                            minimum,
                            sum,
                            linear,
                            binarize,
                            affine,
                            sparse_conv,
                            sparse_weight_grad,
                            portable::sum_floats,
                            portable::pick,
                            portable::sign_kernel_bytes,
                            portable::prepare_sign_kernel,
                            portable::sum_signs,
                            portable::finish,
                            portable::largest};

}  // namespace popcloud
