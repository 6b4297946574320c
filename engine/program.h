// A network as a flat list of steps, as it lies in the mapped file. What each op means is written in
// src/popcloud/packed/program.py; how the file lies in bytes, in docs/format.md.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine.h"
#include "kernels/kernels.h"

namespace popcloud {

enum class Op : int32_t {
  kLinear = 1,
  kBinarize,
  kAffine,
  kRprelu,
  kTransform,
  kPoolMax,
  kPoolMean,
  kRowMeanAbs,
  kBinaryLinear,
  kBinaryLinearBits,
  kBinaryMax,
  kBinaryMaxBits,
  kBinaryMean,
  kBinaryMeanBits,
  kSparseConv,
  kBinarySparseConv,
  kSiteMean,
  kUnpool,
  kConcat,
  kAdd,
  kFarthestPoints,
  kNearest,
  kNearestFeatures,
  kNearestSigns,
  kBall,
  kGather,
  kSubtract,
  kMultiply,
  kReshape,
  kProduct,
  kDensity,
  kSlice,
  kLinearGroups,
  kBinaryGroups,
  kBinarySum,
};

enum class Type : uint32_t { kF32 = 1, kI32 = 2, kU64 = 3, kI8 = 4, kF16 = 5 };

// An array of the file, read in place.
struct Blob {
  const void* data;
  Type type;
  size_t ndim;
  size_t shape[2];

  size_t count() const { return ndim == 2 ? shape[0] * shape[1] : shape[0]; }
  const float* floats() const { return static_cast<const float*>(data); }
  const int32_t* integers() const { return static_cast<const int32_t*>(data); }
  const uint64_t* words() const { return static_cast<const uint64_t*>(data); }
  const uint16_t* halves() const { return static_cast<const uint16_t*>(data); }
  const int8_t* bytes() const { return static_cast<const int8_t*>(data); }
};

struct Step {
  Op op;
  Activation activation;
  std::vector<size_t> inputs;   // one to four
  std::vector<size_t> outputs;  // one, of convolutions up to four
  std::vector<Blob>
      blobs;  // in the order of the op's row in docs/format.md; data is null where one is left out

  size_t output() const { return outputs[0]; }
};

struct Program {
  std::vector<Value> values;  // value 0 is the cloud
  std::vector<Step> steps;    // the last one's output is the answer
  size_t points = 0;
  std::string normalize;
  std::vector<std::string> classes;
  std::optional<Grid> grid;           // of networks on scenes
  std::optional<Sampling> sampling;   // of networks on points; at most one of the two
  std::vector<std::string> features;  // names of value 0's channels with either, else none
};

inline size_t words_of(size_t channels) { return (channels + 63) / 64; }

// True for the ops that turn all rows of a cloud into one.
bool pools(Op op);

// A file in memory, read only, until this goes away.
class Mapping {
 public:
  explicit Mapping(const std::string& path);  // throws Error(kFile) with what the system says
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// Checks all of a file (docs/format.md, "What a reader checks") and returns the program, whose blobs point
// into `file`. Throws Error(kFile); `path` is for the message.
Program read_program(const Mapping& file, const std::string& path);

// The part of that which concerns steps (checks 15 to 18): wiring, shapes and numbers. `where` says which
// file.
void check_program(const Program& program, const std::string& where);

// The table of that name, the fastest one for "". Throws Error(kEngine), which lists the valid names.
const KernelTable& choose_kernels(const std::string& name);

}  // namespace popcloud
