// Layers in groups of channels, and sums of several binary layers.
#include <algorithm>

#include "points/pieces.h"
#include "points/rows.h"

namespace popcloud {
namespace {

// One fused multiply-add per channel: to[c] = act(fma(w[c], x[c], sum[c])).
void add_term(const KernelTable& table, const float* w, const float* x, const float* sum, size_t channels,
              Activation act, float* to) {
  table.affine(x, 1, channels, w, sum, act, to);
}

// `inputs` bits of a row from bit `first` on, as whole words with a tail of 0.
void cut_bits(const uint64_t* row, size_t row_words, size_t first, size_t inputs, uint64_t* to) {
  const size_t words = words_of(inputs), shift = first % 64;
  for (size_t w = 0; w < words; ++w) {
    const size_t at = first / 64 + w;
    to[w] = row[at] >> shift;
    if (shift && at + 1 < row_words) to[w] |= row[at + 1] << (64 - shift);
  }
  if (inputs % 64) to[words - 1] &= ~(~uint64_t{0} << inputs % 64);
}

int32_t count_mismatches(const uint64_t* x, const PackedMatrix& w, size_t channel) {
  int32_t count = 0;
  for (size_t k = 0; k < w.words; ++k) count += __builtin_popcountll(x[k] ^ w.bits[k * w.channels + channel]);
  return count;
}

size_t rows_of(const Layer& layer, const Piece& piece) {
  return layer.out.each ? piece.points * layer.out.each : 1;
}

}  // namespace

void linear_groups(const Layer& layer, const KernelTable& table, const Piece& piece, Scratch& scratch) {
  const size_t groups = static_cast<size_t>(layer.integers[0]), channels = layer.channels;
  const size_t k = layer.inputs / groups, per_group = channels / groups;
  float* sides[2] = {scratch.sums.take<float>(3 * channels), nullptr};
  sides[1] = sides[0] + channels;
  float* spread = sides[1] + channels;  // of every channel, the k-th input of its group
  auto x = static_cast<const float*>(piece.inputs[0]);
  auto out = static_cast<float*>(piece.output);
  for (size_t r = 0; r < rows_of(layer, piece); ++r, x += layer.inputs, out += channels) {
    const float* sum = layer.bias;
    for (size_t i = 0; i < k; ++i) {
      for (size_t g = 0; g < groups; ++g) std::fill_n(spread + g * per_group, per_group, x[g * k + i]);
      const bool last = i + 1 == k;
      float* to = last ? out : sides[i % 2];
      add_term(table, layer.dense + i * channels, spread, sum, channels,
               last ? layer.activation : Activation::kNone, to);
      sum = to;
    }
  }
}

void binary_groups(const Layer& layer, const KernelTable& table, const Piece& piece, Scratch& scratch) {
  const size_t groups = static_cast<size_t>(layer.integers[0]), channels = layer.channels;
  const size_t k = layer.inputs / groups, per_group = channels / groups, words = words_of(layer.inputs);
  auto x = static_cast<const uint64_t*>(piece.inputs[0]);
  auto out = static_cast<float*>(piece.output);
  const size_t rows = rows_of(layer, piece);
  if (layer.narrow && per_group <= kMostTogether)
    return row_kernels(table).groups(x, rows, words, {k, per_group, channels, layer.narrow},
                                     {k, layer.scale, layer.bias, layer.activation}, out);
  auto field = scratch.table.take<uint64_t>(words_of(k));
  for (size_t r = 0; r < rows; ++r, x += words)
    for (size_t g = 0; g < groups; ++g) {
      cut_bits(x, words, g * k, k, field);
      for (size_t c = g * per_group; c < (g + 1) * per_group; ++c)
        out[r * channels + c] =
            static_cast<float>(static_cast<int32_t>(k) - 2 * count_mismatches(field, layer.weight, c));
    }
  table.affine(out, rows, channels, layer.scale, layer.bias, layer.activation, out);
}

void binary_sum(const Layer& layer, const KernelTable& table, const Piece& piece, Scratch& scratch) {
  const size_t channels = layer.channels, terms = layer.weight.channels / channels;
  const size_t words = words_of(layer.inputs);
  auto counts = scratch.least.take<int32_t>(layer.weight.channels);
  float* dots = scratch.sums.take<float>(3 * channels);
  float* sides[2] = {dots + channels, dots + 2 * channels};
  auto x = static_cast<const uint64_t*>(piece.inputs[0]);
  auto before = layer.in.size() > 1 ? static_cast<const float*>(piece.inputs[1]) : nullptr;
  auto out = static_cast<float*>(piece.output);
  for (size_t r = 0; r < rows_of(layer, piece); ++r, x += words, out += channels) {
    table.mismatches(x, 1, layer.weight, {0, layer.weight.channels}, counts);
    const float* sum = layer.bias;
    if (before) {
      for (size_t c = 0; c < channels; ++c) sides[1][c] = before[r * channels + c] + layer.bias[c];
      sum = sides[1];
    }
    for (size_t m = 0; m < terms; ++m) {
      for (size_t c = 0; c < channels; ++c)
        dots[c] = static_cast<float>(static_cast<int32_t>(layer.inputs) - 2 * counts[m * channels + c]);
      const bool last = m + 1 == terms;
      float* to = last ? out : sides[m % 2];
      add_term(table, layer.scale + m * channels, dots, sum, channels,
               last ? layer.activation : Activation::kNone, to);
      sum = to;
    }
  }
}

}  // namespace popcloud
