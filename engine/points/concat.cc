// CONCAT: channels side by side, where a row may be that of a point for all its neighbours, or of the cloud.
#include <algorithm>
#include <cstring>

#include "points/pieces.h"

namespace popcloud {
namespace {

void join_floats(const Layer& layer, const Piece& piece, size_t rows) {
  auto out = static_cast<float*>(piece.output);
  for (size_t i = 0; i < layer.in.size(); ++i) {
    const size_t channels = layer.in[i].channels;
    const RowOf row_of(layer.in[i], layer.out);
    auto x = static_cast<const float*>(piece.inputs[i]);
    for (size_t r = 0; r < rows; ++r) {
      const float* from = x + row_of(r) * channels;
      std::copy(from, from + channels, out + r * layer.channels);
    }
    out += channels;
  }
}

// Writes `words` words of signs behind the first `shift` bits, 0 to 63, of *to; those stay. The tail bits of
// `from` are 0, and so are then the bits behind them.
void append(const uint64_t* from, size_t words, size_t shift, size_t room, uint64_t* to) {
  if (shift == 0) {
    std::copy(from, from + words, to);
    return;
  }
  for (size_t w = 0; w < words; ++w) {
    to[w] |= from[w] << shift;
    if (w + 1 < room) to[w + 1] = from[w] >> (64 - shift);
  }
}

void join_bits(const Layer& layer, const Piece& piece, size_t rows) {
  const size_t words = words_of(layer.channels);
  auto out = static_cast<uint64_t*>(piece.output);
  size_t first = 0;  // channel of the output
  for (size_t i = 0; i < layer.in.size(); ++i) {
    const size_t wide = words_of(layer.in[i].channels), room = words - first / 64;
    const RowOf row_of(layer.in[i], layer.out);
    auto x = static_cast<const uint64_t*>(piece.inputs[i]);
    for (size_t r = 0; r < rows; ++r)
      append(x + row_of(r) * wide, wide, first % 64, room, out + r * words + first / 64);
    first += layer.in[i].channels;
  }
}

}  // namespace

void concat(const Layer& layer, const Piece& piece) {
  const size_t rows = layer.out.each ? piece.points * layer.out.each : 1;
  layer.out.kind == Kind::kFloat ? join_floats(layer, piece, rows) : join_bits(layer, piece, rows);
}

}  // namespace popcloud
