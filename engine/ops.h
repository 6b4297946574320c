// One step, ready to run: what each op does to rows.
#pragma once
#include <new>

#include "memory.h"
#include "program.h"

namespace popcloud {

// Memory that grows and is kept, aligned to 64 bytes. Growing loses the content.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept : data_(other.data_), bytes_(other.bytes_) {
    other.data_ = nullptr, other.bytes_ = 0;
  }
  Buffer& operator=(Buffer&&) = delete;
  ~Buffer() { release(); }

  template <class T>
  T* take(size_t count) {
    if (count > SIZE_MAX / 2 / sizeof(T)) throw OutOfMemory(SIZE_MAX / 2);
    return static_cast<T*>(take_bytes(count * sizeof(T)));
  }
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void* take_bytes(size_t bytes);
  void release();

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// What one thread needs beside the values.
struct Scratch {
  Buffer matrix;                   // TRANSFORM's m + identity
  Buffer least, total;             // per channel, while pooling
  Buffer sums;                     // per channel, of ops that add up several layers
  Buffer open, columns, prepared;  // early exit: undecided channels and their weights
  Buffer table;                    // unique rows: hash table

  size_t bytes() const {
    return matrix.bytes() + least.bytes() + total.bytes() + sums.bytes() + open.bytes() + columns.bytes() +
           prepared.bytes() + table.bytes();
  }
};

// How the rows of an input or output lie.
struct Operand {
  explicit Operand(const Value& value)
      : kind(value.kind),
        channels(value.channels),
        each(value.rows == Rows::kPoint ? value.each : 0),
        row_bytes(value.row_bytes()) {}
  Kind kind;
  size_t channels;
  size_t each;  // rows per point; 0: one row for the whole cloud
  size_t row_bytes;
};

// A step with its constants as the kernels want them.
class Layer {
 public:
  Layer(const Program& program, const Step& step, const KernelTable& table);

  Op op;
  Activation activation;
  size_t inputs, channels;       // of the first input and of the output
  std::vector<Operand> in;       // all inputs
  Operand out;                   // the first output
  PackedMatrix weight{};         // binary ops
  const float* dense = nullptr;  // LINEAR's weight, widened if the file has it in float16
  const float* threshold = nullptr;
  const int32_t* limit = nullptr;
  const float *scale = nullptr, *bias = nullptr;                      // `channels` long
  const float *shift = nullptr, *slope = nullptr, *offset = nullptr;  // RPRELU
  const int32_t* integers = nullptr;  // on points: a dilation, columns or a number of groups
  float number = 0;                   // a radius or a bandwidth
  const uint32_t* narrow = nullptr;   // BINARY_GROUPS' weights, where a group has at most kMostSigns inputs

 private:
  void take_points(const std::vector<Blob>& blobs);
  void take_weight(const Blob& blob, const KernelTable& table);
  const float* widen(const Blob& blob);
  const float* unhalved(const Blob& blob);

  Buffer prepared_, wide_[2];
  size_t widened_ = 0;
};

// TRANSFORM's matrix from its second input, into scratch: once before its rows.
void make_matrix(const Layer& layer, const float* m, Scratch& scratch);

// An op that answers row by row, over `rows` rows. second: the second input's rows, or null (TRANSFORM reads
// the scratch). Only BINARY_LINEAR and BINARY_LINEAR_BITS heed `at`, the others need all channels.
void run_rows(const Layer& layer, const KernelTable& table, const void* x, const void* second, size_t rows,
              Channels at, void* out, Scratch& scratch);

// An op that turns `rows` rows into one, for the channels `at` of it.
void run_pool(const Layer& layer, const KernelTable& table, const void* x, size_t rows, Channels at,
              bool early_exit, void* out, Scratch& scratch);

}  // namespace popcloud
