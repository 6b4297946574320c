// Model files for the tests in C++, laid out as docs/format.md says by a way of their own, and what the tests
// count with.
#pragma once
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "program.h"

namespace popcloud::tests {

inline int checks = 0, failures = 0;

inline void check(bool holds, const std::string& what) {
  ++checks;
  if (holds) return;
  ++failures;
  std::printf("FAILED: %s\n", what.c_str());
}

// The exit code of a test program.
inline int finish() {
  std::printf("%d checks, %d failures\n", checks, failures);
  return failures != 0;
}

using Bytes = std::vector<uint8_t>;

template <class T>
void put(Bytes& bytes, size_t at, T value) {
  if (bytes.size() < at + sizeof value) bytes.resize(at + sizeof value);
  std::memcpy(&bytes[at], &value, sizeof value);
}

inline size_t up64(size_t n) { return (n + 63) / 64 * 64; }

// Gives a file the checksum that its bytes ask for: zlib's CRC-32, byte by byte.
inline void seal(Bytes& file) {
  static const std::vector<uint32_t> kTable = [] {
    std::vector<uint32_t> table(256);
    for (uint32_t i = 0; i < 256; ++i) {
      table[i] = i;
      for (int bit = 0; bit < 8; ++bit) table[i] = (table[i] >> 1) ^ (table[i] & 1 ? 0xEDB88320u : 0);
    }
    return table;
  }();
  put<uint32_t>(file, 12, 0);
  uint32_t crc = 0xFFFFFFFFu;
  for (uint8_t byte : file) crc = (crc >> 8) ^ kTable[(crc ^ byte) & 255];
  put<uint32_t>(file, 12, ~crc);
}

// What a convolution may have beside its input.
struct Convolution {
  const char* kinds = "F";  // of its outputs: F or B each
  int step = 0;             // levels up
  int32_t shortcut = -1;
  Activation activation = Activation::kNone;
  uint32_t groups = 0;  // 0: not shifted
};

// What the record of a value says.
struct Made {
  Kind kind;
  Rows rows;
  uint32_t channels, level = 0, each = 1;
};

// Collects values, steps and blobs with random constants and lays them out.
class Writer {
 public:
  explicit Writer(unsigned seed) : rng_(seed) { value({Kind::kFloat, Rows::kPoint, 3}); }
  Writer(unsigned seed, const Grid& grid, uint32_t features)
      : version_(2), rng_(seed), grid_(grid), features_(features) {
    value({Kind::kFloat, Rows::kSites, features});
  }
  Writer(unsigned seed, const Sampling& sampling, uint32_t features)
      : version_(4), rng_(seed), sampling_(sampling), features_(features) {
    value({Kind::kFloat, Rows::kPoint, features});
  }

  bool halves = false;  // whether LINEAR's weights are float16, of networks on a grid

  // Adds a step of ops 1 to 14; returns its value.
  int32_t add(Op op, std::vector<int32_t> inputs, uint32_t channels, Activation act = Activation::kNone) {
    const Made x = at(inputs[0]);
    bool bits = op == Op::kBinarize || op == Op::kBinaryLinearBits || op == Op::kBinaryMaxBits ||
                op == Op::kBinaryMeanBits;
    Record step(op, inputs, act);
    int32_t* blob = step.blobs;
    if (op == Op::kLinear)
      *blob++ = halves ? half_floats(x.channels, channels) : floats({x.channels, channels}),
      *blob++ = floats({channels});
    if (op == Op::kBinarize) *blob++ = floats({channels});
    if (op == Op::kAffine) *blob++ = floats({channels}), *blob++ = floats({1});
    if (op == Op::kRprelu)
      *blob++ = floats({channels}), *blob++ = floats({channels}), *blob++ = floats({channels});
    if (op >= Op::kBinaryLinear) *blob++ = weight(x.channels, channels);
    if (op == Op::kBinaryLinearBits || op == Op::kBinaryMaxBits) *blob++ = limit(x.channels, channels);
    if (op == Op::kBinaryMeanBits) *blob++ = floats({channels});
    if (op == Op::kBinaryLinear || op == Op::kBinaryMax || op == Op::kBinaryMean)
      *blob++ = floats({1}), *blob++ = floats({channels});
    const Kind kind = bits ? Kind::kBits : Kind::kFloat;
    step.output =
        value(pools(op) ? Made{kind, Rows::kCloud, channels} : Made{kind, x.rows, channels, x.level, x.each});
    steps_.push_back(step);
    return step.output;
  }

  // Adds a step with the blobs of those numbers, as it is said; returns its value.
  int32_t step(Op op, const std::vector<int32_t>& inputs, const Made& output,
               const std::vector<int32_t>& blobs = {}, Activation act = Activation::kNone) {
    Record step(op, inputs, act);
    std::copy(blobs.begin(), blobs.end(), step.blobs);
    step.output = value(output);
    steps_.push_back(step);
    return step.output;
  }

  // Adds a step of ops 17 to 20, whose output is of the input's kind; returns its value.
  int32_t sites(Op op, std::vector<int32_t> inputs, uint32_t channels, uint32_t level) {
    return step(op, inputs, {at(inputs[0]).kind, Rows::kSites, channels, level});
  }

  // Adds a convolution; returns the first of its values.
  int32_t conv(int32_t from, uint32_t channels, const Convolution& what = {}) {
    const Made x = at(from);
    bool binary = x.kind == Kind::kBits;
    std::vector<int32_t> inputs{from};
    if (what.shortcut >= 0) inputs.push_back(what.shortcut);
    Record step(binary ? Op::kBinarySparseConv : Op::kSparseConv, inputs, what.activation);
    uint32_t signs = 0, maps = 0, terms = (what.step ? 8 : 27) * x.channels;
    for (const char* kind = what.kinds; *kind; ++kind) {
      int32_t made = value({*kind == 'B' ? Kind::kBits : Kind::kFloat, Rows::kSites, channels,
                            x.level + static_cast<uint32_t>(what.step)});
      if (kind == what.kinds)
        step.output = made;
      else
        step.more[kind - what.kinds - 1] = static_cast<uint32_t>(made);
      ++(*kind == 'B' ? signs : maps);
    }
    step.blobs[0] = binary ? weight(terms, channels) : floats({terms, channels});
    step.blobs[1] = floats({std::max(1u, maps), channels}),
    step.blobs[2] = floats({std::max(1u, maps), channels});
    if (what.activation == Activation::kRprelu) step.blobs[3] = floats({3, channels});
    if (signs) step.blobs[4] = floats({signs, channels});
    if (what.groups) step.blobs[5] = shifts(what.groups);
    steps_.push_back(step);
    return step.output;
  }

  // Blobs; each returns its number.
  template <class T>
  int32_t array(Type type, std::vector<uint32_t> shape, const std::vector<T>& elements) {
    Blob made{{static_cast<uint32_t>(type), size32(shape), shape[0], shape.size() > 1 ? shape[1] : 0, 0, 0},
              {}};
    made.bytes.resize(elements.size() * sizeof(T));
    std::memcpy(made.bytes.data(), elements.data(), made.bytes.size());
    blobs_.push_back(made);
    return static_cast<int32_t>(blobs_.size()) - 1;
  }
  int32_t floats(std::vector<uint32_t> shape) {
    std::vector<float> elements(shape[0] * (shape.size() > 1 ? shape[1] : 1));
    std::normal_distribution<float> normal(0, shape.size() > 1 ? 0.3f : 1.0f);
    for (float& e : elements) e = normal(rng_);
    return array(Type::kF32, shape, elements);
  }
  int32_t weight(uint32_t inputs, uint32_t channels) {
    std::vector<uint64_t> elements(words_of(inputs) * channels);
    for (uint64_t& e : elements) e = rng_();
    if (inputs % 64)
      for (size_t i = elements.size() - channels; i < elements.size(); ++i)
        elements[i] &= (1ull << inputs % 64) - 1;
    return array(Type::kU64, {static_cast<uint32_t>(words_of(inputs)), channels}, elements);
  }
  int32_t integers(const std::vector<int32_t>& all) { return array(Type::kI32, {size32(all)}, all); }
  int32_t one(float number) { return array<float>(Type::kF32, {1}, {number}); }

  Bytes file(uint32_t classes) const {
    std::string names;
    for (size_t i = 0; i < values_.size(); ++i) names += "value " + std::to_string(i) + '\0';
    for (uint32_t i = 0; i < classes; ++i) names += "class " + std::to_string(i) + '\0';
    for (uint32_t i = 0; i < features_; ++i)
      names += (version_ == 4 && i < 3 ? std::string(1, "xyz"[i]) : "feature " + std::to_string(i)) + '\0';
    size_t steps = up64(256 + 16 * values_.size()), blobs = up64(steps + 64 * steps_.size());
    size_t text = up64(blobs + 40 * blobs_.size()), data = up64(text + names.size());
    Bytes file(data);
    put_header(file, {steps, blobs, text, names.size(), data}, classes);
    for (size_t i = 0; i < values_.size(); ++i) {
      const Made& made = values_[i];
      const uint32_t record[] = {static_cast<uint32_t>(made.kind), static_cast<uint32_t>(made.rows),
                                 made.channels, made.level | (made.each == 1 ? 0 : made.each) << 16};
      std::memcpy(&file[256 + 16 * i], record, sizeof record);
    }
    for (size_t i = 0; i < steps_.size(); ++i) std::memcpy(&file[steps + 64 * i], &steps_[i], 64);
    std::memcpy(&file[text], names.data(), names.size());
    for (size_t i = 0; i < blobs_.size(); ++i) {
      size_t at = up64(file.size());
      put<uint64_t>(file, blobs + 40 * i, at);
      put<uint64_t>(file, blobs + 40 * i + 8, blobs_[i].bytes.size());
      std::memcpy(&file[blobs + 40 * i + 16], blobs_[i].type_and_shape, 24);
      file.resize(at);
      file.insert(file.end(), blobs_[i].bytes.begin(), blobs_[i].bytes.end());
    }
    file.resize(up64(file.size()));
    put<uint64_t>(file, 16, file.size());
    seal(file);
    return file;
  }

 private:
  struct Record {
    Record(Op op, const std::vector<int32_t>& reads, Activation act)
        : op(static_cast<uint32_t>(op)), activation(static_cast<uint32_t>(act)) {
      std::copy(reads.begin(), reads.end(), inputs);
    }
    uint32_t op;
    int32_t inputs[4] = {-1, -1, -1, -1}, output = 0;
    uint32_t activation;
    int32_t blobs[6] = {-1, -1, -1, -1, -1, -1};
    uint32_t more[3] = {};
  };
  struct Blob {
    uint32_t type_and_shape[6];
    Bytes bytes;
  };
  struct Sections {
    uint64_t steps, blobs, names, names_bytes, data;
  };

  void put_header(Bytes& file, const Sections& at, uint32_t classes) const {
    std::memcpy(file.data(), "POPCLOUD", 8);
    put<uint32_t>(file, 8, version_ + halves);
    const uint32_t counts[] = {0, 0, size32(values_), size32(steps_), size32(blobs_), classes, 0, features_};
    std::memcpy(&file[24], counts, sizeof counts);
    const uint64_t offsets[] = {256, at.steps, at.blobs, at.names, at.names_bytes, at.data, 0, at.data};
    std::memcpy(&file[56], offsets, sizeof offsets);
    const std::string plan = version_ == 4 ? "points" : version_ == 2 ? "grid" : "none";
    std::memcpy(&file[128], plan.data(), plan.size());
    if (version_ == 4) {
      put<uint32_t>(file, 144, size32(sampling_.ratios));
      for (size_t i = 0; i < sampling_.ratios.size(); ++i)
        put<double>(file, 176 + 8 * i, sampling_.ratios[i]);
    }
    if (version_ != 2) return;
    put<int32_t>(file, 144, static_cast<int32_t>(grid_.levels));
    put<int32_t>(file, 148, static_cast<int32_t>(grid_.size));
    put<double>(file, 176, grid_.edge);
  }

  template <class List>
  static uint32_t size32(const List& list) {
    return static_cast<uint32_t>(list.size());
  }
  const Made& at(int32_t value) const { return values_[static_cast<size_t>(value)]; }
  int32_t value(const Made& made) {
    values_.push_back(made);
    return static_cast<int32_t>(values_.size()) - 1;
  }
  // Both signs, normal and subnormal, up to 2 in size.
  int32_t half_floats(uint32_t rows, uint32_t columns) {
    std::vector<uint16_t> elements(rows * columns);
    for (uint16_t& e : elements) e = static_cast<uint16_t>((rng_() % 2 << 15) | rng_() % 0x4000);
    return array(Type::kF16, {rows, columns}, elements);
  }
  int32_t limit(uint32_t inputs, uint32_t channels) {
    std::vector<int32_t> elements(channels);
    for (int32_t& e : elements) e = static_cast<int32_t>(rng_() % (inputs + 2)) - 1;
    return array(Type::kI32, {channels}, elements);
  }
  int32_t shifts(uint32_t groups) {
    std::vector<int8_t> elements(3 * groups);
    for (int8_t& e : elements) e = static_cast<int8_t>(static_cast<int>(rng_() % 3) - 1);
    return array(Type::kI8, {groups, 3}, elements);
  }
  uint32_t version_ = 1;  // one more with halves
  std::mt19937_64 rng_;
  Grid grid_{};
  Sampling sampling_;
  uint32_t features_ = 0;
  std::vector<Made> values_;
  std::vector<Record> steps_;
  std::vector<Blob> blobs_;
};

constexpr uint32_t kClasses = 7, kFeatures = 3;

// A PointNet with a transform, in which every op for clouds occurs.
inline Bytes cloud_network(unsigned seed) {
  Writer w(seed);
  int32_t first = w.add(Op::kLinear, {0}, 8, Activation::kHardtanh);
  int32_t pooled =
      w.add(Op::kBinaryMaxBits, {w.add(Op::kBinaryLinearBits, {w.add(Op::kBinarize, {first}, 8)}, 130)}, 200);
  int32_t moved = w.add(Op::kTransform, {first, w.add(Op::kBinaryLinear, {pooled}, 64)}, 8);
  int32_t bent = w.add(Op::kRprelu, {w.add(Op::kAffine, {moved}, 8, Activation::kRelu)}, 8);
  int32_t row = w.add(Op::kRowMeanAbs, {bent}, 1);
  int32_t wide = w.add(Op::kBinaryLinear, {w.add(Op::kBinarize, {bent}, 8), row}, 65);
  int32_t bits = w.add(Op::kBinarize, {wide}, 65);
  w.add(Op::kPoolMax, {wide}, 65);
  w.add(Op::kPoolMean, {wide}, 65);
  w.add(Op::kBinaryMax, {bits}, 70, Activation::kHardtanh);
  w.add(Op::kBinaryMean, {bits}, 1);
  w.add(Op::kBinaryMeanBits, {bits}, 129);
  int32_t last = w.add(Op::kBinaryMaxBits, {w.add(Op::kBinaryLinearBits, {bits}, 64)}, 257);
  w.add(Op::kBinaryLinear, {last}, kClasses);
  return w.file(kClasses);
}

// A binary U-Net of two levels, in which every op for sites occurs; of odd seeds with weights in float16.
inline Bytes scene_network(unsigned seed, size_t size = 5, uint32_t channels = 16) {
  Writer w(seed, Grid{0.1, 2, size}, kFeatures);
  w.halves = seed % 2;
  uint32_t wide = channels + 54;
  int32_t first = w.conv(0, channels, {"FB", 0, -1, Activation::kRprelu});
  int32_t y = w.conv(first + 1, channels, {"FBB", 0, first, Activation::kRprelu, size == 5 ? 4u : 0u});
  int32_t mean = w.add(Op::kLinear, {w.sites(Op::kSiteMean, {y}, channels, 1)}, wide);
  int32_t below = w.conv(y + 1, wide, {"FB", 1, mean});
  below = w.conv(below + 1, wide, {"FB", 0, below, Activation::kHardtanh});
  int32_t up = w.conv(below + 1, channels, {"FB", -1, w.add(Op::kLinear, {below}, channels)});
  int32_t joined = w.sites(Op::kConcat, {y + 2, up + 1}, 2 * channels, 0);
  int32_t project = w.add(Op::kBinaryLinear, {joined, w.add(Op::kRowMeanAbs, {up}, 1)}, channels);
  int32_t z = w.conv(joined, channels, {"FF", 0, project, Activation::kRelu});
  z = w.add(Op::kLinear, {w.sites(Op::kConcat, {z, z + 1, up}, 3 * channels, 0)}, wide);
  z = w.sites(Op::kAdd, {z, below}, wide, 0);
  z = w.sites(Op::kAdd, {z, w.sites(Op::kUnpool, {below}, wide, 0)}, wide, 0);
  w.add(Op::kLinear, {z}, kClasses);
  return w.file(kClasses);
}

// A network on points with a class for each, in which every op of such networks occurs. It needs 10 points.
inline Bytes points_network(unsigned seed) {
  constexpr Kind kF = Kind::kFloat, kB = Kind::kBits, kI = Kind::kIndex;
  constexpr Rows kP = Rows::kPoint;
  Writer w(seed, Sampling{{0.5, 0.3}}, 4);
  int32_t xyz = w.step(Op::kSlice, {0}, {kF, kP, 3}, {w.integers({0, 3})});
  int32_t far = w.step(Op::kFarthestPoints, {xyz}, {kI, kP, 1, 1});
  int32_t few = w.step(Op::kGather, {xyz, far}, {kF, kP, 3, 1});
  int32_t ball = w.step(Op::kBall, {few, xyz}, {kI, kP, 4, 1}, {w.one(9)});
  int32_t moved =
      w.step(Op::kSubtract, {w.step(Op::kGather, {xyz, ball}, {kF, kP, 3, 1, 4}), few}, {kF, kP, 3, 1, 4});
  moved = w.add(Op::kTransform, {moved, w.add(Op::kLinear, {w.add(Op::kPoolMean, {xyz}, 3)}, 9)}, 3);
  int32_t wide = w.add(Op::kLinear, {moved}, 9, Activation::kSigmoid);
  int32_t y = w.step(Op::kProduct, {wide, w.add(Op::kLinear, {moved}, 8)}, {kF, kP, 72, 1});
  y = w.step(Op::kMultiply, {y, w.step(Op::kDensity, {few}, {kF, kP, 1, 1}, {w.one(0.5f)})}, {kF, kP, 72, 1});
  int32_t like = w.step(Op::kNearestFeatures, {y, y}, {kI, kP, 3, 1}, {w.integers({2})});
  int32_t mean = w.step(Op::kPoolMean, {w.step(Op::kGather, {y, like}, {kF, kP, 72, 1, 3})}, {kF, kP, 72, 1});
  int32_t bits = w.add(Op::kBinarize, {mean}, 72);
  int32_t same = w.step(Op::kNearestSigns, {bits, bits}, {kI, kP, 2, 1}, {w.integers({1})});
  bits =
      w.step(Op::kConcat, {w.step(Op::kGather, {bits, same}, {kB, kP, 72, 1, 2}), bits}, {kB, kP, 144, 1, 2});
  y = w.step(Op::kBinaryGroups, {bits}, {kF, kP, 10, 1, 2},
             {w.weight(72, 10), w.floats({1}), w.floats({10}), w.integers({2})}, Activation::kHardtanh);
  y = w.step(Op::kBinarySum, {bits, y}, {kF, kP, 10, 1, 2},
             {w.weight(144, 30), w.floats({3, 10}), w.floats({10})}, Activation::kRelu);
  y = w.step(Op::kReshape, {y}, {kF, kP, 20, 1});
  y = w.step(Op::kConcat, {y, w.add(Op::kPoolMax, {y}, 20)}, {kF, kP, 40, 1});
  int32_t back = w.step(Op::kNearest, {xyz, few}, {kI, kP, 2}, {w.integers({3})});
  y = w.step(Op::kPoolMax, {w.step(Op::kGather, {y, back}, {kF, kP, 40, 0, 2})}, {kF, kP, 40});
  w.step(Op::kLinearGroups, {y}, {kF, kP, kClasses + 1},
         {w.floats({10, kClasses + 1}), w.floats({kClasses + 1}), w.integers({4})}, Activation::kRelu);
  return w.file(kClasses + 1);
}

// A file of its own, gone with this.
class File {
 public:
  explicit File(const Bytes& bytes = {}) {
    char name[] = "/tmp/popcloud-test-XXXXXX";
    int file = mkstemp(name);
    if (file < 0) std::perror("mkstemp"), std::exit(2);
    close(file);
    path = name;
    write(bytes, bytes.size());
  }
  ~File() { std::remove(path.c_str()); }
  void write(const Bytes& bytes, size_t count) const {
    FILE* file = std::fopen(path.c_str(), "wb");
    bool whole = file && (count == 0 || std::fwrite(bytes.data(), 1, count, file) == count);
    if (!whole || std::fclose(file) != 0) std::perror("write"), std::exit(2);
  }
  std::string path;
};

}  // namespace popcloud::tests
