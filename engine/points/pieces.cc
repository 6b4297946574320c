#include "points/pieces.h"

#include <algorithm>
#include <cstring>

#include "points/rows.h"

namespace popcloud {
namespace {

size_t rows_of(const Operand& operand, size_t points) { return operand.each ? points * operand.each : 1; }

void gather(const Layer& layer, const Piece& piece) {
  const size_t count = rows_of(layer.out, piece.points), bytes = layer.out.row_bytes;
  auto from = static_cast<const uint8_t*>(piece.inputs[0]);
  auto rows = static_cast<const int32_t*>(piece.inputs[1]);
  auto to = static_cast<uint8_t*>(piece.output);
  for (size_t i = 0; i < count; ++i, to += bytes)
    std::memcpy(to, from + static_cast<size_t>(rows[i]) * bytes, bytes);
}

// The second input has the channels of the first, or one for all of them.
void elementwise(const Layer& layer, const KernelTable& table, const Piece& piece) {
  const RowKernels& kernels = row_kernels(table);
  const auto combine = layer.op == Op::kSubtract ? kernels.subtract : kernels.multiply;
  const size_t rows = rows_of(layer.out, piece.points), channels = layer.channels;
  const size_t others = layer.in[1].channels;
  const RowOf row_of(layer.in[1], layer.out);
  auto x = static_cast<const float*>(piece.inputs[0]), second = static_cast<const float*>(piece.inputs[1]);
  auto out = static_cast<float*>(piece.output);
  if (others == channels && layer.in[1].each == layer.out.each)
    return combine(x, second, rows * channels, out);
  for (size_t r = 0; r < rows; ++r, x += channels, out += channels) {
    const float* y = second + row_of(r) * others;
    if (others == channels)
      combine(x, y, channels, out);
    else
      for (size_t c = 0; c < channels; ++c) out[c] = x[c] * *y;  // SUBTRACT has all channels
  }
}

void slice(const Layer& layer, const Piece& piece) {
  const size_t rows = rows_of(layer.out, piece.points);
  auto x = static_cast<const float*>(piece.inputs[0]) + layer.integers[0];
  auto out = static_cast<float*>(piece.output);
  for (size_t r = 0; r < rows; ++r, x += layer.inputs, out += layer.channels)
    std::copy(x, x + layer.channels, out);
}

// Of each point the transposed rows of x times those of m.
void product(const Layer& layer, const KernelTable& table, const Piece& piece) {
  const size_t k = layer.in[0].each, wide = layer.in[1].channels, c = layer.inputs;
  auto x = static_cast<const float*>(piece.inputs[0]), m = static_cast<const float*>(piece.inputs[1]);
  auto out = static_cast<float*>(piece.output);
  for (size_t p = 0; p < piece.points; ++p, x += k * c, m += k * wide, out += c * wide)
    row_kernels(table).product(x, m, k, c, wide, out);
}

// How many of the rows of a point a maximum of signs has to see: a ball with few points in it ends in copies
// of its first row.
size_t rows_seen(const uint64_t* x, size_t rows, size_t words) {
  while (rows > 1 && std::equal(x, x + words, x + (rows - 1) * words)) --rows;
  return rows;
}

void pool_each(const Layer& layer, const KernelTable& table, const Piece& piece, Scratch& scratch) {
  const Operand& in = layer.in[0];
  auto x = static_cast<const uint8_t*>(piece.inputs[0]);
  auto out = static_cast<uint8_t*>(piece.output);
  const bool largest = layer.op == Op::kBinaryMax || layer.op == Op::kBinaryMaxBits;
  for (size_t p = 0; p < piece.points; ++p, x += in.each * in.row_bytes, out += layer.out.row_bytes) {
    auto bits = reinterpret_cast<const uint64_t*>(x);
    const size_t rows = largest ? rows_seen(bits, in.each, words_of(in.channels)) : in.each;
    run_pool(layer, table, x, rows, {0, layer.channels}, false, out, scratch);
  }
}

}  // namespace

void run_edges(const Layer& gather, const Layer& binarize, const KernelTable& table, const Piece& piece,
               const void* own) {
  const size_t k = gather.out.each, channels = gather.channels, words = words_of(channels);
  auto x = static_cast<const float*>(piece.inputs[0]), self = static_cast<const float*>(own);
  auto rows = static_cast<const int32_t*>(piece.inputs[1]);
  auto out = static_cast<uint64_t*>(piece.output);
  for (size_t p = 0; p < piece.points; ++p)
    row_kernels(table).edges(x, rows + p * k, k, self ? self + p * channels : nullptr, channels,
                             binarize.threshold, out + p * k * words);
}

void run_piece(const Layer& layer, const KernelTable& table, const Piece& piece, Scratch& scratch) {
  if (pools(layer.op)) return pool_each(layer, table, piece, scratch);
  switch (layer.op) {
    case Op::kConcat:
      return concat(layer, piece);
    case Op::kGather:
      return gather(layer, piece);
    case Op::kSubtract:
    case Op::kMultiply:
      return elementwise(layer, table, piece);
    case Op::kReshape:
      std::memcpy(piece.output, piece.inputs[0], rows_of(layer.out, piece.points) * layer.out.row_bytes);
      return;
    case Op::kProduct:
      return product(layer, table, piece);
    case Op::kSlice:
      return slice(layer, piece);
    case Op::kLinearGroups:
      return linear_groups(layer, table, piece, scratch);
    case Op::kBinaryGroups:
      return binary_groups(layer, table, piece, scratch);
    case Op::kBinarySum:
      return binary_sum(layer, table, piece, scratch);
    default: {
      const size_t rows = rows_of(layer.out, piece.points);
      return run_rows(layer, table, piece.inputs[0], piece.inputs[1], rows, {0, layer.channels}, piece.output,
                      scratch);
    }
  }
}

}  // namespace popcloud
