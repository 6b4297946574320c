// The contract between the engine and one instruction set.
//
// A row of signs is `words` 64-bit words: bit 1 means -1, channel 0 is the lowest bit, tail bits are 0 on
// both sides, so they never disagree. dot = inputs - 2 * mismatches.
//
// Every function is single-threaded, writes only what it says, and gives the same bits in every table:
// integers because they are integers, floats because the order of operations is part of the contract.
#pragma once
#include <cstddef>
#include <cstdint>

namespace popcloud {

enum class Activation : int32_t {
  kNone = 0,
  kRelu = 1,
  kHardtanh = 2,
  kRprelu = 3,   // Finish only
  kSigmoid = 4,  // LINEAR on points only, and no kernel's: the step does it after the kernel
};

// A matrix of signs as it lies in the model file, and what a table made of it at load time.
struct PackedMatrix {
  const uint64_t* bits;  // [words][channels]
  size_t words;
  size_t channels;
  const void* prepared;  // the table's own layout, or null where prepared_bytes is 0
};

// Output channels [first, last). `first` is a multiple of 64, and `last` too unless it is the end, so that
// threads that share a row never share a word of its bits.
struct Channels {
  size_t first, last;
};

// Rows of floats, `stride` floats from one to the next, of which the first `channels` count.
struct FloatRows {
  const float* data;
  size_t stride, channels;
};

// Of one kernel offset: input row inputs[p] belongs to output row outputs[p]. `outputs` ascend strictly, so
// no output row occurs twice.
struct Pairs {
  const int32_t *inputs, *outputs;
  size_t count;
};

// Which input rows each output row of a sparse layer reads. An entry is an input row times 128 plus the
// number of the offset it lies at: row r reads entries[begin[r]] to entries[begin[r + 1] - 1]. Without
// `begin` it reads entries[r] alone; without `entries` too, input row r at offset 0. No row reads the same
// offset twice, so none has more than kMostOffsets entries.
struct Gather {
  const uint32_t* begin;
  const uint32_t* entries;
  size_t rows;
};
constexpr uint32_t kOffsetBits = 7, kOffsetMask = (1u << kOffsetBits) - 1;
constexpr size_t kMostOffsets = 125;  // of 5 x 5 x 5 neighbours
// Of float layers so narrow that sums go row by row instead of offset by offset.
constexpr size_t kMostRowInputs = 32, kMostRowChannels = 16;

// Signs of the weights of a sparse layer, and what a table made of them at load time.
struct SignKernel {
  size_t offsets, inputs, channels;
  const uint64_t* bits;  // [offsets][words of inputs][channels]; tail bits 0
  const uint64_t* seen;  // [offsets][words of channels]: bit c is 1 where channel c sees the offset
  const void* prepared;  // the table's own layout, or null where sign_kernel_bytes is 0
};

// What follows the sums of a sparse layer, row by row; every operation rounds by itself.
struct Finish {
  size_t channels;
  const float *scale, *bias;
  Activation activation;
  const float* prelu;     // [3][channels]: shift, slope, offset; null unless the activation is kRprelu
  const float* shortcut;  // [][channels], or null
  const uint32_t* shortcut_rows;  // of row r, times 128 plus anything; null: row r
  float* out;                     // [rows][channels], or null
  size_t signs;                   // how many sign outputs
  const float* thresholds;        // [signs][channels]
  uint64_t* const* bits;          // of each sign output, [rows][words of channels]
};

struct KernelTable {
  const char* name;
  bool (*supported)();  // may this CPU run the table?

  // How many bytes this table's own weight layout takes (64-byte aligned), 0 if it reads `bits` as they are.
  size_t (*prepared_bytes)(size_t words, size_t channels);
  void (*prepare)(const uint64_t* bits, size_t words, size_t channels, void* prepared);

  // out[r * w.channels + c] = popcount of row r xor column c, for c in `at`.
  void (*mismatches)(const uint64_t* x, size_t rows, const PackedMatrix& w, Channels at, int32_t* out);
  // Bit c of row r of out ([rows][ceil(w.channels / 64)]) = mismatches > limit[c]. Writes the whole words of
  // `at`, tail bits 0. -1 <= limit[c] <= 64 * words.
  void (*threshold)(const uint64_t* x, size_t rows, const PackedMatrix& w, Channels at, const int32_t* limit,
                    uint64_t* out);
  // least[c] = smallest mismatches over the rows; where[c] (if not null) = the first row that has it. rows
  // >= 1.
  void (*minimum)(const uint64_t* x, size_t rows, const PackedMatrix& w, Channels at, int32_t* least,
                  int32_t* where);
  // total[c] = sum of mismatches over the rows.
  void (*sum)(const uint64_t* x, size_t rows, const PackedMatrix& w, Channels at, int64_t* total);

  // out[r][c] = act(s), s = bias[c] (0 if bias is null), then s = fma(x[r][k], w[k][c], s) for k = 0, 1, ...
  // in order.
  void (*linear)(const float* x, size_t rows, size_t inputs, const float* w, const float* bias,
                 size_t channels, Activation act, float* out);
  // Bit c of row r of out ([rows][ceil(channels / 64)]) = x[r][c] < threshold[c]; NaN gives 0; tail bits 0.
  void (*binarize)(const float* x, size_t rows, size_t channels, const float* threshold, uint64_t* out);
  // out[r][c] = act(fma(scale[c], x[r][c], bias[c])); out may be x.
  void (*affine)(const float* x, size_t rows, size_t channels, const float* scale, const float* bias,
                 Activation act, float* out);

  // One offset of a sparse convolution: row outputs[p] of y, whose rows are y_stride apart, takes
  // y[c] = fma(x[inputs[p]][k], w[k][c], y[c]) for k = 0, 1, ... in order; w is [x.channels][channels].
  void (*sparse_conv)(FloatRows x, const float* w, size_t channels, Pairs pairs, float* y, size_t y_stride);
  // The gradient of its weights: dw[k][c] = fma(x[inputs[p]][k], dy[outputs[p]][c], dw[k][c]) for p = 0, 1,
  // ... in order; dw is [x.channels][dy.channels].
  void (*sparse_weight_grad)(FloatRows x, FloatRows dy, Pairs pairs, float* dw);

  // sums[r * stride + c] = sum over the entries of row r, in order, of x[row][k] * w[offset][k][c] for k = 0,
  // 1, ... in order, one fused multiply-add each, from 0. x has `inputs` floats a row, at most
  // kMostRowInputs; w is
  // [][inputs][channels], of at most kMostRowChannels; rows.begin is there.
  void (*sum_floats)(const float* x, size_t inputs, const float* w, size_t channels, const Gather& rows,
                     float* sums, size_t stride);
  // Copies the entries of `rows` whose offset o has a slot, slots[o] < 128, with the slot in place of the
  // offset; begin[r] is where those of row r start, begin[rows.rows] their number. slots is [128]; rows.begin
  // is there; `entries` has room for 8 more than `rows` has.
  void (*pick)(const Gather& rows, const uint8_t* slots, uint32_t* begin, uint32_t* entries);
  // As prepared_bytes and prepare, for the weights of sparse layers.
  size_t (*sign_kernel_bytes)(const SignKernel& w);
  void (*prepare_sign_kernel)(const SignKernel& w, void* prepared);
  // sums[r * stride + c] = float(sum, over the entries of row r whose offset o channel c sees, of
  // inputs - 2 * popcount(x row ^ bits[o][.][c])); x has words of inputs per row, tail bits 0.
  void (*sum_signs)(const uint64_t* x, const SignKernel& w, const Gather& rows, float* sums, size_t stride);
  // y = sums * scale + bias, + shortcut, activation, as packed/program.py says of convolutions; writes `out`,
  // and bit c of each sign output b = y < thresholds[b][c] (NaN gives 0), tail bits 0.
  void (*finish)(const float* sums, size_t rows, const Finish& what);
  // out[r] = where the largest of rows[r * classes] to rows[r * classes + classes - 1] is, the first of equal
  // ones. NaN is larger than any number, and equal to NaN. classes >= 1.
  void (*largest)(const float* rows, size_t count, size_t classes, int32_t* out);
};

inline bool never() { return false; }

// Every instruction set, fastest first. Add one word here to add a kernel file.
#define POPCLOUD_TABLES(X) X(kAvx512) X(kAvx2) X(kNeon) X(kPortable)
#define POPCLOUD_DECLARE(table) extern const KernelTable table;
POPCLOUD_TABLES(POPCLOUD_DECLARE)
#undef POPCLOUD_DECLARE

const KernelTable* const* all_kernels();            // null-terminated
const KernelTable* find_kernels(const char* name);  // null: unknown, or not for this CPU
const KernelTable& best_kernels();

}  // namespace popcloud
