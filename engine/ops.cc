#include "ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "points/rows.h"
#include "points/sigmoid.h"
#include "shortcuts.h"

namespace popcloud {
namespace {

// Rows whose floats stay in the first cache while they are finished.
constexpr size_t kFinishBytes = 16 * 1024;

Affine affine_of(const Layer& layer, size_t first) {
  return {layer.inputs, layer.scale + first, layer.bias + first, layer.activation};
}

// A finite IEEE 754 binary16 as float32, which holds each of them exactly.
float float_of(uint16_t half) {
  const uint32_t rest = half & 0x7FFFu;
  float magnitude = static_cast<float>(rest) * 0x1p-24f;  // of a subnormal
  const uint32_t normal = (rest << 13) + (112u << 23);    // 112: how far the exponents' biases are apart
  if (rest >= 0x400) std::memcpy(&magnitude, &normal, sizeof magnitude);
  return half & 0x8000u ? -magnitude : magnitude;
}

void linear(const Layer& layer, const KernelTable& table, const float* x, size_t rows, float* out) {
  const bool bent = layer.activation == Activation::kSigmoid;  // no kernel does it
  table.linear(x, rows, layer.inputs, layer.dense, layer.bias, layer.channels,
               bent ? Activation::kNone : layer.activation, out);
  if (bent) sigmoid(out, rows * layer.channels);
}

void rprelu(const Layer& layer, const float* x, size_t rows, float* __restrict out) {
  const float *const shift = layer.shift, *const slope = layer.slope, *const offset = layer.offset;
  const size_t channels = layer.channels;
  for (size_t r = 0; r < rows; ++r, x += channels, out += channels)
    for (size_t c = 0; c < channels; ++c) {
      // Times 1 or the slope, no branch: which of the two comes next is as good as random.
      const float bent = slope[c], steepness = x[c] > shift[c] ? 1.0f : bent;
      out[c] = steepness * (x[c] - shift[c]) + offset[c];
    }
}

void row_mean_abs(const float* x, size_t rows, size_t channels, float* out) {
  for (size_t r = 0; r < rows; ++r, x += channels) {
    double sum = 0;
    for (size_t c = 0; c < channels; ++c) sum += std::fabs(static_cast<double>(x[c]));
    out[r] = static_cast<float>(sum / static_cast<double>(channels));
  }
}

void binary_linear(const Layer& layer, const KernelTable& table, const uint64_t* x, const float* row_scale,
                   size_t rows, Channels at, float* out) {
  const size_t together = std::max<size_t>(2, kFinishBytes / (4 * layer.channels) / 2 * 2);
  const Affine affine = affine_of(layer, at.first);
  for (size_t r = 0; r < rows; r += together) {
    const size_t here = std::min(together, rows - r);
    float* y = out + r * layer.channels;
    table.mismatches(x + r * layer.weight.words, here, layer.weight, at, reinterpret_cast<int32_t*>(y));
    row_kernels(table).finish(y + at.first, here, layer.channels, at.last - at.first, affine,
                              row_scale ? row_scale + r : nullptr);
  }
}

// NaN stays NaN, as in numpy's max.
void pool_max(const float* x, size_t rows, size_t channels, Channels at, float* out) {
  std::copy(x + at.first, x + at.last, out + at.first);
  for (size_t r = 1; r < rows; ++r) {
    const float* row = x + r * channels;
    for (size_t c = at.first; c < at.last; ++c)
      out[c] = (row[c] > out[c]) | (row[c] != row[c]) ? row[c] : out[c];
  }
}

void pool_mean(const float* x, size_t rows, size_t channels, Channels at, float* out, Scratch& scratch) {
  auto sum = scratch.total.take<double>(channels);
  std::fill(sum + at.first, sum + at.last, 0.0);
  for (size_t r = 0; r < rows; ++r)
    for (size_t c = at.first; c < at.last; ++c) sum[c] += static_cast<double>(x[r * channels + c]);
  for (size_t c = at.first; c < at.last; ++c) out[c] = static_cast<float>(sum[c] / static_cast<double>(rows));
}

void binary_max(const Layer& layer, const KernelTable& table, const uint64_t* x, size_t rows, Channels at,
                float* out) {
  table.minimum(x, rows, layer.weight, at, reinterpret_cast<int32_t*>(out), nullptr);
  row_kernels(table).finish(out + at.first, 1, layer.channels, at.last - at.first, affine_of(layer, at.first),
                            nullptr);
}

void binary_max_bits(const Layer& layer, const KernelTable& table, const uint64_t* x, size_t rows,
                     Channels at, uint64_t* out, Scratch& scratch) {
  auto least = scratch.least.take<int32_t>(layer.channels);
  table.minimum(x, rows, layer.weight, at, least, nullptr);
  row_kernels(table).above(least + at.first, layer.limit + at.first, at.last - at.first, out + at.first / 64);
}

// means[c] = float32(sum of dots) / float32(rows), for the channels `at`.
void mean_dots(const Layer& layer, const KernelTable& table, const uint64_t* x, size_t rows, Channels at,
               float* means, Scratch& scratch) {
  auto total = scratch.total.take<int64_t>(layer.channels);
  table.sum(x, rows, layer.weight, at, total);
  auto most = static_cast<int64_t>(rows * layer.inputs);
  for (size_t c = at.first; c < at.last; ++c)
    means[c] = static_cast<float>(most - 2 * total[c]) / static_cast<float>(rows);
}

void binary_mean(const Layer& layer, const KernelTable& table, const uint64_t* x, size_t rows, Channels at,
                 float* out, Scratch& scratch) {
  mean_dots(layer, table, x, rows, at, out, scratch);
  float* row = out + at.first;
  table.affine(row, 1, at.last - at.first, layer.scale + at.first, layer.bias + at.first, layer.activation,
               row);
}

void binary_mean_bits(const Layer& layer, const KernelTable& table, const uint64_t* x, size_t rows,
                      Channels at, uint64_t* out, Scratch& scratch) {
  auto means = scratch.least.take<float>(layer.channels);
  mean_dots(layer, table, x, rows, at, means, scratch);
  table.binarize(means + at.first, 1, at.last - at.first, layer.threshold + at.first, out + at.first / 64);
}

}  // namespace

void* Buffer::take_bytes(size_t bytes) {
  if (bytes > bytes_) {
    release();
    data_ = ::operator new(bytes, std::align_val_t{64}, std::nothrow);
    if (!data_) throw OutOfMemory(bytes);
    bytes_ = bytes;
  }
  return data_;
}

void Buffer::release() {
  if (data_) ::operator delete(data_, std::align_val_t{64});
  data_ = nullptr;
  bytes_ = 0;
}

Layer::Layer(const Program& program, const Step& step, const KernelTable& table)
    : op(step.op),
      activation(step.activation),
      inputs(program.values[step.inputs[0]].channels),
      channels(program.values[step.output()].channels),
      out(program.values[step.output()]) {
  for (size_t input : step.inputs) in.emplace_back(program.values[input]);
  const std::vector<Blob>& blobs = step.blobs;
  if (op == Op::kLinear) dense = unhalved(blobs[0]), bias = blobs[1].floats();
  if (op == Op::kBinarize) threshold = blobs[0].floats();
  if (op == Op::kAffine) scale = widen(blobs[0]), bias = widen(blobs[1]);
  if (op == Op::kRprelu) shift = blobs[0].floats(), slope = blobs[1].floats(), offset = blobs[2].floats();
  if (op >= Op::kFarthestPoints) take_points(blobs);
  const bool signs = op >= Op::kBinaryLinear && op <= Op::kBinaryMeanBits;
  if (!signs && op != Op::kBinaryGroups && op != Op::kBinarySum) return;
  take_weight(blobs[0], table);
  if (op == Op::kBinaryLinearBits || op == Op::kBinaryMaxBits)
    limit = blobs[1].integers();
  else if (op == Op::kBinaryMeanBits)
    threshold = blobs[1].floats();
  else
    scale = op == Op::kBinarySum ? blobs[1].floats() : widen(blobs[1]), bias = widen(blobs[2]);
}

// The constants that ops on points alone have.
void Layer::take_points(const std::vector<Blob>& blobs) {
  if (op == Op::kBall || op == Op::kDensity) number = blobs[0].floats()[0];
  if (op == Op::kLinearGroups) dense = blobs[0].floats(), bias = blobs[1].floats();
  if (!blobs.empty() && blobs.back().data && blobs.back().type == Type::kI32)
    integers = blobs.back().integers();
}

void Layer::take_weight(const Blob& blob, const KernelTable& table) {
  weight = {blob.words(), blob.shape[0], blob.shape[1], nullptr};
  if (op == Op::kBinaryGroups) {
    if (inputs / static_cast<size_t>(integers[0]) > kMostSigns) return;
    uint32_t* halves = prepared_.take<uint32_t>(channels);
    for (size_t c = 0; c < channels; ++c) halves[c] = static_cast<uint32_t>(weight.bits[c]);
    narrow = halves;
    return;
  }
  if (size_t bytes = table.prepared_bytes(weight.words, weight.channels)) {
    void* prepared = prepared_.take<uint8_t>(bytes);
    table.prepare(weight.bits, weight.words, weight.channels, prepared);
    weight.prepared = prepared;
  }
}

// A blob of one element is repeated for every channel.
const float* Layer::widen(const Blob& blob) {
  if (blob.count() == channels) return blob.floats();
  float* wide = wide_[widened_++].take<float>(channels);
  std::fill(wide, wide + channels, blob.floats()[0]);
  return wide;
}

const float* Layer::unhalved(const Blob& blob) {
  if (blob.type != Type::kF16) return blob.floats();
  float* floats = prepared_.take<float>(blob.count());
  std::transform(blob.halves(), blob.halves() + blob.count(), floats, float_of);
  return floats;
}

void make_matrix(const Layer& layer, const float* m, Scratch& scratch) {
  size_t d = layer.channels;
  float* matrix = scratch.matrix.take<float>(d * d);
  std::copy(m, m + d * d, matrix);
  for (size_t i = 0; i < d; ++i) matrix[i * d + i] += 1.0f;
}

void run_rows(const Layer& layer, const KernelTable& table, const void* x, const void* second, size_t rows,
              Channels at, void* out, Scratch& scratch) {
  auto xf = static_cast<const float*>(x);
  auto xb = static_cast<const uint64_t*>(x);
  auto outf = static_cast<float*>(out);
  auto outb = static_cast<uint64_t*>(out);
  size_t k = layer.inputs, c = layer.channels;
  switch (layer.op) {
    case Op::kLinear:
      return linear(layer, table, xf, rows, outf);
    case Op::kBinarize:
      return table.binarize(xf, rows, c, layer.threshold, outb);
    case Op::kAffine:
      return table.affine(xf, rows, c, layer.scale, layer.bias, layer.activation, outf);
    case Op::kRprelu:
      return rprelu(layer, xf, rows, outf);
    case Op::kTransform:
      return table.linear(xf, rows, k, static_cast<const float*>(scratch.matrix.data()), nullptr, c,
                          Activation::kNone, outf);
    case Op::kRowMeanAbs:
      return row_mean_abs(xf, rows, k, outf);
    case Op::kBinaryLinear:
      return binary_linear(layer, table, xb, static_cast<const float*>(second), rows, at, outf);
    case Op::kBinaryLinearBits:
      return table.threshold(xb, rows, layer.weight, at, layer.limit, outb);
    default:
      return;  // the others pool
  }
}

void run_pool(const Layer& layer, const KernelTable& table, const void* x, size_t rows, Channels at,
              bool early_exit, void* out, Scratch& scratch) {
  auto xf = static_cast<const float*>(x);
  auto xb = static_cast<const uint64_t*>(x);
  auto outf = static_cast<float*>(out);
  auto outb = static_cast<uint64_t*>(out);
  switch (layer.op) {
    case Op::kPoolMax:
      return pool_max(xf, rows, layer.channels, at, outf);
    case Op::kPoolMean:
      return pool_mean(xf, rows, layer.channels, at, outf, scratch);
    case Op::kBinaryMax:
      return binary_max(layer, table, xb, rows, at, outf);
    case Op::kBinaryMaxBits:
      return early_exit ? pool_max_bits_early(layer, table, xb, rows, at, outb, scratch)
                        : binary_max_bits(layer, table, xb, rows, at, outb, scratch);
    case Op::kBinaryMean:
      return binary_mean(layer, table, xb, rows, at, outf, scratch);
    case Op::kBinaryMeanBits:
      return binary_mean_bits(layer, table, xb, rows, at, outb, scratch);
    default:
      return;  // the others go row by row
  }
}

}  // namespace popcloud
