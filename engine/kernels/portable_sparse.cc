// What the kernels of binary sparse layers mean: written to be read.
#include <cmath>

#include "kernels/sparse.h"

namespace popcloud::portable {
namespace {

size_t words_of(size_t channels) { return (channels + 63) / 64; }

// Input rows and offsets that one output row reads: entries [begin, end).
struct Reads {
  const uint32_t *begin, *end;
};

// `alone` is where the only entry lies if none is written down.
Reads reads_of(const Gather& rows, size_t r, uint32_t& alone) {
  if (rows.begin) return {rows.entries + rows.begin[r], rows.entries + rows.begin[r + 1]};
  alone = rows.entries ? rows.entries[r] : uint32_t(r << kOffsetBits);
  return {&alone, &alone + 1};
}

bool sees(const SignKernel& w, size_t offset, size_t c) {
  return w.seen[offset * words_of(w.channels) + c / 64] >> (c % 64) & 1;
}

// The sum of products of an input row's signs with those of output channel c at one offset.
int32_t dot(const uint64_t* row, const SignKernel& w, size_t offset, size_t c) {
  const size_t words = words_of(w.inputs);
  int32_t mismatches = 0;
  for (size_t k = 0; k < words; ++k)
    mismatches += __builtin_popcountll(row[k] ^ w.bits[(offset * words + k) * w.channels + c]);
  return int32_t(w.inputs) - 2 * mismatches;
}

// NaN and -0 pass through: every comparison is false for them.
float activate(float y, const Finish& what, size_t c) {
  switch (what.activation) {
    case Activation::kNone:
    case Activation::kSigmoid:  // no sparse layer has it
      return y;
    case Activation::kRelu:
      return y < 0 ? 0.0f : y;
    case Activation::kHardtanh:
      return y < -1 ? -1.0f : y > 1 ? 1.0f : y;
    case Activation::kRprelu:
      break;
  }
  const float shift = what.prelu[c], slope = what.prelu[what.channels + c];
  const float moved = y - shift;
  return (y > shift ? moved : slope * moved) + what.prelu[2 * what.channels + c];
}

}  // namespace

size_t sign_kernel_bytes(const SignKernel&) { return 0; }  // the bits are read as they are

void prepare_sign_kernel(const SignKernel&, void*) {}

void sum_signs(const uint64_t* x, const SignKernel& w, const Gather& rows, float* sums, size_t stride) {
  for (size_t r = 0; r < rows.rows; ++r) {
    uint32_t alone;
    const Reads reads = reads_of(rows, r, alone);
    for (size_t c = 0; c < w.channels; ++c) {
      int32_t total = 0;
      for (const uint32_t* e = reads.begin; e < reads.end; ++e)
        if (sees(w, *e & kOffsetMask, c))
          total += dot(x + size_t(*e >> kOffsetBits) * words_of(w.inputs), w, *e & kOffsetMask, c);
      sums[r * stride + c] = float(total);
    }
  }
}

void finish(const float* sums, size_t rows, const Finish& what) {
  const size_t channels = what.channels, words = words_of(channels);
  for (size_t r = 0; r < rows; ++r) {
    const size_t other = what.shortcut_rows ? what.shortcut_rows[r] >> kOffsetBits : r;
    for (size_t b = 0; b < what.signs; ++b)
      for (size_t k = 0; k < words; ++k) what.bits[b][r * words + k] = 0;
    for (size_t c = 0; c < channels; ++c) {
      float y = sums[r * channels + c] * what.scale[c];
      y = y + what.bias[c];
      if (what.shortcut) y = y + what.shortcut[other * channels + c];
      y = activate(y, what, c);
      if (what.out) what.out[r * channels + c] = y;
      for (size_t b = 0; b < what.signs; ++b)
        what.bits[b][r * words + c / 64] |= uint64_t{y < what.thresholds[b * channels + c]} << (c % 64);
    }
  }
}

void sum_floats(const float* x, size_t inputs, const float* w, size_t channels, const Gather& rows,
                float* sums, size_t stride) {
  for (size_t r = 0; r < rows.rows; ++r)
    for (size_t c = 0; c < channels; ++c) {
      float sum = 0;
      for (uint32_t p = rows.begin[r]; p < rows.begin[r + 1]; ++p) {
        const uint32_t entry = rows.entries[p];
        const float* row = x + size_t(entry >> kOffsetBits) * inputs;
        const float* weights = w + size_t(entry & kOffsetMask) * inputs * channels;
        for (size_t k = 0; k < inputs; ++k) sum = std::fma(row[k], weights[k * channels + c], sum);
      }
      sums[r * stride + c] = sum;
    }
}

void pick(const Gather& rows, const uint8_t* slots, uint32_t* begin, uint32_t* entries) {
  uint32_t n = 0;
  for (size_t r = 0; r < rows.rows; ++r) {
    begin[r] = n;
    for (uint32_t p = rows.begin[r]; p < rows.begin[r + 1]; ++p) {
      const uint32_t entry = rows.entries[p], slot = slots[entry & kOffsetMask];
      entries[n] = (entry & ~kOffsetMask) | (slot & kOffsetMask);
      n += slot <= kOffsetMask;
    }
  }
  begin[rows.rows] = n;
}

// Without a branch on values, as no processor could foretell which class wins.
void largest(const float* rows, size_t count, size_t classes, int32_t* out) {
  for (size_t r = 0; r < count; ++r, rows += classes) {
    float top = rows[0];
    size_t best = 0;
    for (size_t c = 1; c < classes; ++c) {
      const bool more = static_cast<int>(!(rows[c] <= top)) & static_cast<int>(top == top);  // top is no NaN
      top = more ? rows[c] : top;
      best = more ? c : best;
    }
    out[r] = static_cast<int32_t>(best);
  }
}

}  // namespace popcloud::portable
