// Every kernel of every table, or of each one named, gives what the portable one gives, bit for bit, on edge
// shapes (tables.h). Lists of entries have a test of their own, test_lists.cc.
#include <cstdlib>

#include "tests/tables.h"

using namespace popcloud;

namespace {

constexpr size_t kSizes[] = {1, 63, 64, 65, 127, 128, 129, 256, 1000};
constexpr size_t kRows[] = {0, 1, 2, 3, 17, 100};
constexpr size_t kLongInputs[] = {1024, 64 * 511, 64 * 512};  // around the widths of the tables' counters
constexpr size_t kWidths[] = {1, 3, 4, 7, 8, 9, 12, 15, 16, 17, 33, 48, 112, 129};  // of sparse convolutions
constexpr uint64_t kCanary = 0x5a5a5a5a5a5a5a5a;

size_t words_of(size_t channels) { return (channels + 63) / 64; }

// Signs with zero tail bits. `bias` of 8: how many of 8 are -1; 0 and 8 reach the smallest and the largest
// count.
std::vector<uint64_t> signs(std::mt19937_64& rng, size_t rows, size_t inputs, unsigned bias) {
  std::vector<uint64_t> bits(rows * words_of(inputs));
  for (size_t r = 0; r < rows; ++r)
    for (size_t k = 0; k < inputs; ++k)
      bits[r * words_of(inputs) + k / 64] |= uint64_t{rng() % 8 < bias} << (k % 64);
  return bits;
}

std::vector<uint64_t> transpose(const std::vector<uint64_t>& rows, size_t channels, size_t words) {
  std::vector<uint64_t> bits(rows.size());
  for (size_t c = 0; c < channels; ++c)
    for (size_t k = 0; k < words; ++k) bits[k * channels + c] = rows[c * words + k];
  return bits;
}

Prepared prepare(const KernelTable& table, const std::vector<uint64_t>& bits, size_t words, size_t channels) {
  Prepared prepared(table.prepared_bytes(words, channels));
  if (prepared.data) table.prepare(bits.data(), words, channels, prepared.data);
  return prepared;
}

struct Case {
  std::vector<uint64_t> x, bits;
  std::vector<int32_t> limit;
  size_t rows, words, channels;
};

Case make_case(std::mt19937_64& rng, size_t rows, size_t inputs, size_t channels, unsigned bias) {
  Case c{signs(rng, rows, inputs, bias), {}, {}, rows, words_of(inputs), channels};
  const unsigned other =
      bias == 4 || rng() % 2 ? bias : 8 - bias;  // nearly all equal, or nearly all different
  c.bits = transpose(signs(rng, channels, inputs, other), channels, c.words);
  for (size_t i = 0; i < channels; ++i) {
    const int64_t most = int64_t(64 * c.words), usual = int64_t(inputs) / 2 + int64_t(rng() % 17) - 8;
    const int64_t edges[] = {-1, 0, most, most - 1, int64_t(inputs) - 1, usual};
    const int64_t choice = rng() % 2 ? usual : edges[rng() % 6];
    c.limit.push_back(int32_t(choice < -1 ? -1 : choice > most ? most : choice));
  }
  return c;
}

struct Answers {
  std::vector<int32_t> mismatches, least, where, least_alone;
  std::vector<uint64_t> threshold;
  std::vector<int64_t> sum;
};

// Everything outside `at` keeps the canary, so a kernel that writes too much differs.
Answers answer(const KernelTable& table, const Case& c, const PackedMatrix& w, Channels at) {
  const int32_t canary = int32_t(0x5a5a5a5a);
  Answers a{std::vector<int32_t>(c.rows * c.channels, canary),
            std::vector<int32_t>(c.channels, canary),
            std::vector<int32_t>(c.channels, canary),
            std::vector<int32_t>(c.channels, canary),
            std::vector<uint64_t>(c.rows * words_of(c.channels), kCanary),
            std::vector<int64_t>(c.channels, canary)};
  table.mismatches(c.x.data(), c.rows, w, at, a.mismatches.data());
  table.threshold(c.x.data(), c.rows, w, at, c.limit.data(), a.threshold.data());
  table.sum(c.x.data(), c.rows, w, at, a.sum.data());
  if (c.rows == 0) return a;
  table.minimum(c.x.data(), c.rows, w, at, a.least.data(), a.where.data());
  table.minimum(c.x.data(), c.rows, w, at, a.least_alone.data(), nullptr);
  return a;
}

void test_signs(const KernelTable& table, std::mt19937_64& rng, size_t rows, size_t inputs, size_t channels,
                unsigned bias) {
  const Case c = make_case(rng, rows, inputs, channels, bias);
  const Prepared prepared = prepare(table, c.bits, c.words, channels);
  const PackedMatrix w{c.bits.data(), c.words, channels, prepared.data};
  const size_t middle = channels / 2 / 64 * 64;
  for (const Channels at : {Channels{0, channels}, Channels{0, middle}, Channels{middle, channels}}) {
    const std::string shape = std::to_string(rows) + " x " + std::to_string(inputs) + ", channels " +
                              std::to_string(at.first) + " to " + std::to_string(at.last) + " of " +
                              std::to_string(channels) + ", signs " + std::to_string(bias);
    const Answers got = answer(table, c, w, at), want = answer(kPortable, c, w, at);
    compare(table.name, "mismatches", shape, got.mismatches, want.mismatches);
    compare(table.name, "threshold", shape, got.threshold, want.threshold);
    compare(table.name, "minimum", shape, got.least, want.least);
    compare(table.name, "minimum's where", shape, got.where, want.where);
    compare(table.name, "minimum alone", shape, got.least_alone, want.least_alone);
    compare(table.name, "sum", shape, got.sum, want.sum);
  }
}

void test_linear(const KernelTable& table, std::mt19937_64& rng, size_t rows, size_t inputs,
                 size_t channels) {
  const std::vector<float> x = floats(rng, rows * inputs, false), w = floats(rng, inputs * channels, false),
                           bias = floats(rng, channels, false);
  for (const Activation act : {Activation::kNone, Activation::kRelu, Activation::kHardtanh})
    for (const float* b : {bias.data(), static_cast<const float*>(nullptr)}) {
      std::vector<float> got(rows * channels, 7), want(rows * channels, 8);
      table.linear(x.data(), rows, inputs, w.data(), b, channels, act, got.data());
      kPortable.linear(x.data(), rows, inputs, w.data(), b, channels, act, want.data());
      forgive_nan(got, want);
      compare(table.name, "linear",
              std::to_string(rows) + " x " + std::to_string(inputs) + " x " + std::to_string(channels) +
                  ", activation " + std::to_string(int(act)),
              got, want);
    }
}

void test_rows_of_floats(const KernelTable& table, std::mt19937_64& rng, size_t rows, size_t channels) {
  const std::string shape = std::to_string(rows) + " x " + std::to_string(channels);
  std::vector<float> x = floats(rng, rows * channels, true), limit = floats(rng, channels, true);
  for (size_t i = 0; i < rows * channels; i += 3) x[i] = limit[i % channels];  // equal is not below
  std::vector<uint64_t> got_bits(rows * words_of(channels), kCanary), want_bits = got_bits;
  table.binarize(x.data(), rows, channels, limit.data(), got_bits.data());
  kPortable.binarize(x.data(), rows, channels, limit.data(), want_bits.data());
  compare(table.name, "binarize", shape, got_bits, want_bits);

  const std::vector<float> plain = floats(rng, rows * channels, false), scale = floats(rng, channels, false),
                           bias = floats(rng, channels, false);
  for (const Activation act : {Activation::kNone, Activation::kRelu, Activation::kHardtanh}) {
    std::vector<float> got(rows * channels, 7), want(rows * channels, 8), in_place = plain;
    table.affine(plain.data(), rows, channels, scale.data(), bias.data(), act, got.data());
    table.affine(in_place.data(), rows, channels, scale.data(), bias.data(), act, in_place.data());
    kPortable.affine(plain.data(), rows, channels, scale.data(), bias.data(), act, want.data());
    compare(table.name, "affine", shape, got, want);
    compare(table.name, "affine in place", shape, in_place, want);
  }
}

// About half of the output rows in ascending order, each with an input row of its own or not.
struct Map {
  std::vector<int32_t> inputs, outputs;
  size_t rows;  // of inputs and of outputs
  Map(std::mt19937_64& rng, size_t pairs) : rows(2 * pairs + 3) {
    for (size_t r = 0; r < rows && outputs.size() < pairs; ++r)
      if (rng() % 2 || rows - r <= pairs - outputs.size()) outputs.push_back(int32_t(r));
    for (size_t p = 0; p < pairs; ++p) inputs.push_back(int32_t(rng() % rows));
  }
  Pairs pairs() const { return {inputs.data(), outputs.data(), outputs.size()}; }
};

// Rows lie further apart than their channels: what is in between keeps its value.
void test_sparse(const KernelTable& table, std::mt19937_64& rng, size_t pairs, size_t inputs,
                 size_t channels) {
  const Map map(rng, pairs);
  const std::string shape =
      std::to_string(pairs) + " pairs, " + std::to_string(inputs) + " x " + std::to_string(channels);
  const size_t wide = inputs + rng() % 3, far = channels + rng() % 5;
  const std::vector<float> x = ordinary(rng, map.rows * wide), w = ordinary(rng, inputs * channels),
                           start = ordinary(rng, map.rows * far);
  const FloatRows rows{x.data(), wide, inputs};

  std::vector<float> got = start, want = start;
  table.sparse_conv(rows, w.data(), channels, map.pairs(), got.data(), far);
  kPortable.sparse_conv(rows, w.data(), channels, map.pairs(), want.data(), far);
  compare(table.name, "sparse_conv", shape, got, want);

  std::vector<float> dw = w, want_dw = w;
  table.sparse_weight_grad(rows, {start.data(), far, channels}, map.pairs(), dw.data());
  kPortable.sparse_weight_grad(rows, {start.data(), far, channels}, map.pairs(), want_dw.data());
  compare(table.name, "sparse_weight_grad", shape, dw, want_dw);
}

// Which channels see an offset: all; of four groups each the 27 offsets around its own shift; some, at
// random.
enum class Seen { kAll, kShifted, kSome };

bool sees(std::mt19937_64& rng, Seen how, size_t offset, size_t channel, size_t channels) {
  if (how == Seen::kAll) return true;
  if (how == Seen::kSome) return offset % 3 && rng() % 2;  // some offsets nobody
  const int group = int(4 * channel / channels),
            place[] = {int(offset / 25), int(offset / 5 % 5), int(offset % 5)};
  bool near = true;
  for (int axis = 0; axis < 3; ++axis)
    near = near && std::abs(place[axis] - 2 - (axis == group ? 1 : 0)) <= 1;
  return near;
}

// A sign kernel and rows for it. Signs are as `bias` says, those of the weights or their opposites.
struct SparseCase {
  std::vector<uint64_t> x, bits, seen;
  std::vector<uint32_t> begin{0}, entries, alone;
  SignKernel w;
  static constexpr size_t kInputRows = 50, kOutputRows = 23;

  SparseCase(std::mt19937_64& rng, size_t offsets, size_t inputs, size_t channels, Seen how, unsigned bias)
      : x(signs(rng, kInputRows, inputs, bias)), seen(offsets * words_of(channels)) {
    const unsigned other = rng() % 2 ? bias : 8 - bias;
    for (size_t o = 0; o < offsets; ++o) {
      const auto part = transpose(signs(rng, channels, inputs, other), channels, words_of(inputs));
      bits.insert(bits.end(), part.begin(), part.end());
      for (size_t c = 0; c < channels; ++c)
        seen[o * words_of(channels) + c / 64] |= uint64_t{sees(rng, how, o, c, channels)} << (c % 64);
    }
    for (size_t r = 0; r < kOutputRows; ++r) {
      alone.push_back(entry(rng, rng() % offsets));
      for (size_t o = 0; o < offsets; ++o)
        if (rng() % 5 < r % 6) entries.push_back(entry(rng, o));  // none in the first row, all in the sixth
      begin.push_back(uint32_t(entries.size()));
    }
    w = {offsets, inputs, channels, bits.data(), seen.data(), nullptr};
  }
  static uint32_t entry(std::mt19937_64& rng, size_t offset) {
    return uint32_t(rng() % kInputRows) << kOffsetBits | uint32_t(offset);
  }
};

// Sums lie further apart than their channels: what is in between keeps its value.
void test_sums(const KernelTable& table, std::mt19937_64& rng, size_t offsets, size_t inputs, size_t channels,
               Seen how, unsigned bias) {
  const SparseCase c(rng, offsets, inputs, channels, how, bias);
  const Prepared prepared(table.sign_kernel_bytes(c.w));
  SignKernel w = c.w;
  w.prepared = prepared.data;
  if (prepared.data) table.prepare_sign_kernel(c.w, prepared.data);
  const std::string shape = std::to_string(offsets) + " offsets, " + std::to_string(inputs) + " x " +
                            std::to_string(channels) + ", seen " + std::to_string(int(how)) + ", signs " +
                            std::to_string(bias);
  const Gather gathers[] = {{c.begin.data(), c.entries.data(), c.kOutputRows},
                            {nullptr, c.alone.data(), c.kOutputRows},
                            {nullptr, nullptr, c.kOutputRows},
                            {c.begin.data() + 5, c.entries.data(), 2}};
  for (const Gather& rows : gathers) {
    const size_t stride = channels + rng() % 3;
    std::vector<float> got(c.kOutputRows * stride, 7), want = got;
    table.sum_signs(c.x.data(), w, rows, got.data(), stride);
    kPortable.sum_signs(c.x.data(), c.w, rows, want.data(), stride);
    compare(table.name, "sum_signs", shape, got, want);
  }
}

void test_finish(const KernelTable& table, std::mt19937_64& rng, size_t rows, size_t channels,
                 Activation act) {
  const std::vector<float> sums = floats(rng, rows * channels, true), scale = floats(rng, channels, true),
                           bias = floats(rng, channels, false), prelu = floats(rng, 3 * channels, false),
                           shortcut = floats(rng, (rows + 1) * channels, true),
                           thresholds = floats(rng, 4 * channels, true);
  std::vector<uint32_t> other;
  for (size_t r = 0; r < rows; ++r) other.push_back(uint32_t(rng() % rows << kOffsetBits | rng() % 128));
  for (size_t way = 0; way < 30; ++way) {  // 3 shortcuts x 2 x 5 numbers of sign outputs
    const size_t signs = way / 6;
    std::vector<float> out[2];
    std::vector<uint64_t> bits[2][4];
    for (int i = 0; i < 2; ++i) {
      uint64_t* words[4];
      out[i].assign(rows * channels, 7);
      for (size_t b = 0; b < 4; ++b)
        bits[i][b].assign(rows * words_of(channels), kCanary), words[b] = bits[i][b].data();
      (i ? kPortable : table)
          .finish(
              sums.data(), rows,
              {channels, scale.data(), bias.data(), act, act == Activation::kRprelu ? prelu.data() : nullptr,
               way % 3 ? shortcut.data() : nullptr, way % 3 == 2 ? other.data() : nullptr,
               way % 2 ? out[i].data() : nullptr, signs, signs ? thresholds.data() : nullptr, words});
    }
    forgive_nan(out[0], out[1]);
    const std::string shape = std::to_string(rows) + " x " + std::to_string(channels) + ", activation " +
                              std::to_string(int(act)) + ", way " + std::to_string(way);
    compare(table.name, "finish", shape, out[0], out[1]);
    for (size_t b = 0; b < 4; ++b) compare(table.name, "finish's signs", shape, bits[0][b], bits[1][b]);
  }
}

void test_scenes(const KernelTable& table, std::mt19937_64& rng) {
  for (const size_t inputs : {1, 3, 8, 10, 16, 24, 30, 32, 40, 48, 64, 80, 96, 112, 128, 192, 384, 504})
    for (const size_t channels : {1, 3, 8, 16, 20, 32, 40, 48, 64, 65, 80, 96, 112, 128, 144}) {
      if (left_out()) continue;
      test_sums(table, rng, inputs + channels > 192 ? 8 : 27, inputs, channels, Seen::kAll, 4);
      test_sums(table, rng, rng() % 2 ? 1 : 8, inputs, channels, Seen::kSome, 4);
    }
  for (const size_t channels : {16, 20, 64, 80})
    for (const size_t inputs : {16, 48, 66, 504, 506}) {
      if (left_out()) continue;
      test_sums(table, rng, 125, inputs, channels, Seen::kShifted, 4);
      for (const unsigned bias : {0u, 8u}) test_sums(table, rng, 125, inputs, channels, Seen::kAll, bias);
    }
  test_sums(table, rng, 8, 32, 600, Seen::kAll, 4);
  for (const size_t rows : {0, 1, 5, 18})
    for (const size_t channels : {1, 3, 8, 13, 16, 20, 32, 48, 64, 65, 80, 112, 128, 129})
      for (int act = 0; act < 4; ++act) test_finish(table, rng, rows, channels, Activation(act));
}

void test_table(const KernelTable& table) {
  std::mt19937_64 rng(1);
  for (const size_t rows : kRows)
    for (const size_t channels : kSizes) {
      for (const size_t inputs : kSizes) {
        if (left_out()) continue;
        test_signs(table, rng, rows, inputs, channels, 4);
        if (rows * inputs * channels <= 17 * 256 * 256) test_linear(table, rng, rows, inputs, channels);
      }
      test_rows_of_floats(table, rng, rows, channels);
    }
  for (const size_t inputs : {size_t{192}, size_t{193}, size_t{256}, size_t{1024}})
    for (const unsigned bias : {0u, 1u, 8u}) test_signs(table, rng, 3, inputs, 130, bias);
  for (const size_t inputs : kLongInputs)
    for (const unsigned bias : {4u, 8u}) test_signs(table, rng, 3, inputs, 65, bias);
  test_signs(table, rng, 3, 65, 2200, 4);   // more channels than any stack buffer holds
  test_signs(table, rng, 1000, 64, 65, 4);  // more rows than a byte counts
  test_linear(table, rng, 33, 3, 64);       // the first layer
  test_linear(table, rng, 50, 700, 300);    // more than a cache of weights
  for (const size_t rows : {1, 13, 23})     // of scenes: few channels
    for (const size_t channels : {5, 8, 12, 13, 16, 20, 24, 29, 32, 40})
      if (!left_out()) test_linear(table, rng, rows, 17, channels);
  for (const size_t inputs : kWidths)
    for (const size_t channels : kWidths)
      for (const size_t pairs : {0, 1, 5, 12, 31})
        if (!left_out()) test_sparse(table, rng, pairs, inputs, channels);
  test_sparse(table, rng, 1000, 300, 70);  // more than a tile and more than a block of inputs
  test_scenes(table, rng);
}

}  // namespace

int main(int count, char** names) { return test_tables(count, names, test_table); }
