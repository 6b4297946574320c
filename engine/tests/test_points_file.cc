// The rules of networks on points (docs/format.md, "On points"): steps as they may be, and with each rule
// broken. Exit code 1 if something does not hold.
#include <cmath>
#include <functional>

#include "model_writer.h"

using namespace popcloud;
using namespace popcloud::tests;

namespace {

constexpr Kind kF = Kind::kFloat, kB = Kind::kBits, kI = Kind::kIndex;
constexpr Rows kP = Rows::kPoint, kC = Rows::kCloud;
constexpr Activation kNone = Activation::kNone, kRelu = Activation::kRelu, kSigmoid = Activation::kSigmoid;
constexpr uint32_t kInputs = 5, kMost = 1u << 24;

using Wires = std::vector<int32_t>;
using Blobs = std::function<Wires(Writer&)>;

struct Case {
  const char* says;  // a part of the complaint; "" of what may be
  Op op;
  Wires inputs;
  Made output;
  Blobs blobs = {};
  Activation activation = kNone;
};

// What is said against a file, or "".
std::string complaint(const Bytes& bytes) {
  File file(bytes);
  try {
    const Mapping mapping(file.path);
    read_program(mapping, file.path);
    return "";
  } catch (const Error& error) {
    check(error.fault() == Fault::kFile, "a file's fault is called one");
    return error.what();
  }
}

// The values that a step can read, by number. Level 1 has half of the points.
enum : int32_t {
  kCloud,      // 5 floats per point
  kXyz,        // their positions
  kFar,        // 1 index into level 0 per point of level 1
  kFew,        // positions of level 1
  kBall,       // 2 indices into level 0 per point of level 1
  kPairs,      // 2 rows of 5 floats per point of level 1
  kWide,       // the same of 6
  kFloats,     // 6 floats per point of level 1
  kSigns,      // 6 signs per point of level 1
  kPairSigns,  // 2 rows of 6 signs per point of level 1
  kRow,        // 6 floats
};

Writer inputs() {
  Writer w(3, Sampling{{0.5, 0.5}}, kInputs);
  w.step(Op::kSlice, {kCloud}, {kF, kP, 3}, {w.integers({0, 3})});
  w.step(Op::kFarthestPoints, {kXyz}, {kI, kP, 1, 1});
  w.step(Op::kGather, {kXyz, kFar}, {kF, kP, 3, 1});
  w.step(Op::kBall, {kFew, kXyz}, {kI, kP, 2, 1}, {w.one(1)});
  w.step(Op::kGather, {kCloud, kBall}, {kF, kP, kInputs, 1, 2});
  w.add(Op::kLinear, {kPairs}, 6);
  w.step(Op::kPoolMax, {kWide}, {kF, kP, 6, 1});
  w.add(Op::kBinarize, {kFloats}, 6);
  w.add(Op::kBinarize, {kWide}, 6);
  w.add(Op::kPoolMax, {kFloats}, 6);
  return w;
}

Bytes file_with(const Case& one) {
  Writer w = inputs();
  w.step(one.op, one.inputs, one.output, one.blobs ? one.blobs(w) : Wires{}, one.activation);
  w.add(Op::kLinear, {kRow}, kClasses);
  return w.file(kClasses);
}

void test(const std::vector<Case>& cases) {
  for (const Case& one : cases) {
    const std::string found = complaint(file_with(one)),
                      what = "op " + std::to_string(static_cast<int>(one.op)) + ": ";
    if (*one.says)
      check(found.find("inconsistent") != std::string::npos && found.find(one.says) != std::string::npos,
            what + "expected '" + one.says + "', found '" + found + "'");
    else
      check(found.empty(), what + found);
  }
}

Blobs integers(std::vector<int32_t> numbers) {
  return [=](Writer& w) { return Wires{w.integers(numbers)}; };
}
Blobs number(float x) {
  return [=](Writer& w) { return Wires{w.one(x)}; };
}

void test_searches() {
  const char *range = "dilation out of range", *level = "for each point", *positions = "positions";
  const char* compares = "compares";
  const int32_t most = kMost - 1;  // of one step, to the farthest row there is
  test({{"", Op::kNearest, {kXyz, kFew}, {kI, kP, 2}, integers({most})},
        {range, Op::kNearest, {kXyz, kFew}, {kI, kP, 2}, integers({most + 1})},
        {range, Op::kNearest, {kXyz, kFew}, {kI, kP, 65535}, integers({INT32_MAX})},
        {range, Op::kNearest, {kXyz, kFew}, {kI, kP, 1}, integers({0})},
        {range, Op::kNearest, {kXyz, kFew}, {kI, kP, 1}, integers({-1})},
        {"no known kind", Op::kNearest, {kXyz, kFew}, {kI, kP, 65536}, integers({1})},
        {"no known kind", Op::kNearest, {kXyz, kFew}, {kI, kP, 2, 0, 2}, integers({1})},
        {"no known kind", Op::kNearest, {kXyz, kFew}, {kI, kC, 2}, integers({1})},
        {"type or shape", Op::kNearest, {kXyz, kFew}, {kI, kP, 2}, integers({1, 1})},
        {"type or shape", Op::kNearest, {kXyz, kFew}, {kI, kP, 2}, number(1)},
        {"blobs", Op::kNearest, {kXyz, kFew}, {kI, kP, 2}},
        {"inputs", Op::kNearest, {kXyz}, {kI, kP, 2}, integers({1})},
        {level, Op::kNearest, {kXyz, kFew}, {kI, kP, 2, 1}, integers({1})},
        {level, Op::kNearest, {kXyz, kFew}, {kF, kP, 2}, integers({1})},
        {positions, Op::kNearest, {kCloud, kXyz}, {kI, kP, 2}, integers({1})},
        {positions, Op::kNearest, {kFew, kFloats}, {kI, kP, 2, 1}, integers({1})},
        {"activation", Op::kNearest, {kXyz, kFew}, {kI, kP, 2}, integers({1}), kRelu}});
  test({{"", Op::kNearestFeatures, {kFloats, kFloats}, {kI, kP, 2, 1}, integers({1})},
        {compares, Op::kNearestFeatures, {kFloats, kFew}, {kI, kP, 2, 1}, integers({1})},
        {compares, Op::kNearestFeatures, {kWide, kFloats}, {kI, kP, 2, 1}, integers({1})},
        {compares, Op::kNearestFeatures, {kFloats, kRow}, {kI, kP, 2, 1}, integers({1})},
        {compares, Op::kNearestFeatures, {kSigns, kSigns}, {kI, kP, 2, 1}, integers({1})},
        {"", Op::kNearestSigns, {kSigns, kSigns}, {kI, kP, 2, 1}, integers({1})},
        {compares, Op::kNearestSigns, {kSigns, kFloats}, {kI, kP, 2, 1}, integers({1})},
        {compares, Op::kNearestSigns, {kSigns, kPairSigns}, {kI, kP, 2, 1}, integers({1})},
        {"", Op::kFarthestPoints, {kFew}, {kI, kP, 1, 2}},
        {level, Op::kFarthestPoints, {kFew}, {kI, kP, 1, 1}},
        {"more than one", Op::kFarthestPoints, {kFew}, {kI, kP, 2, 2}},
        {positions, Op::kFarthestPoints, {kCloud}, {kI, kP, 1, 1}},
        {"no known kind", Op::kFarthestPoints, {kFew}, {kI, kP, 1, 3}}});
}

void test_lengths() {
  const char* range = "out of range";
  for (const float fit : {1.0f, 1e-20f, 1e19f}) {
    test({{"", Op::kBall, {kFew, kXyz}, {kI, kP, 2, 1}, number(fit)},
          {"", Op::kDensity, {kFew}, {kF, kP, 1, 1}, number(fit)}});
  }
  for (const float unfit : {0.0f, -1.0f, 1e-30f, 1e20f, INFINITY, NAN})
    test({{range, Op::kBall, {kFew, kXyz}, {kI, kP, 2, 1}, number(unfit)},
          {range, Op::kDensity, {kFew}, {kF, kP, 1, 1}, number(unfit)}});
  test({{"positions", Op::kDensity, {kFloats}, {kF, kP, 1, 1}, number(1)},
        {"a float per point", Op::kDensity, {kFew}, {kF, kP, 2, 1}, number(1)},
        {"a float per point", Op::kDensity, {kFew}, {kF, kC, 1}, number(1)}});
}

void test_gather() {
  const char* row = "a row per index";
  test({{"", Op::kGather, {kXyz, kBall}, {kF, kP, 3, 1, 2}},
        {"another level", Op::kGather, {kFew, kBall}, {kF, kP, 3, 1, 2}},
        {row, Op::kGather, {kXyz, kBall}, {kF, kP, 3, 1}},
        {row, Op::kGather, {kXyz, kBall}, {kF, kP, 3, 0, 2}},
        {row, Op::kGather, {kXyz, kBall}, {kB, kP, 3, 1, 2}},
        {row, Op::kGather, {kXyz, kBall}, {kF, kP, 4, 1, 2}},
        {"and indices", Op::kGather, {kXyz, kXyz}, {kF, kP, 3, 1, 2}},
        {"and indices", Op::kGather, {kWide, kBall}, {kF, kP, 6, 1, 2}},
        {"and indices", Op::kGather, {kRow, kBall}, {kF, kP, 6, 1, 2}},
        {"and indices", Op::kGather, {kFar, kBall}, {kF, kP, 1, 1, 2}},
        {"wrong kind", Op::kReshape, {kBall}, {kF, kP, 1, 1, 2}}});
}

void test_joins() {
  const char *fit = "do not fit", *second = "does not fit", *made = "does not write";
  test({{"", Op::kConcat, {kWide, kFloats, kRow}, {kF, kP, 18, 1, 2}},
        {"", Op::kConcat, {kSigns, kSigns}, {kB, kP, 12, 1}},
        {fit, Op::kConcat, {kWide, kFloats}, {kF, kP, 12, 1}},
        {fit, Op::kConcat, {kWide, kSigns}, {kF, kP, 12, 1, 2}},
        {fit, Op::kConcat, {kXyz, kFloats}, {kF, kP, 9, 1}},
        {fit, Op::kConcat, {kWide, kWide}, {kF, kP, 12, 1, 3}},
        {"channels", Op::kConcat, {kWide, kFloats}, {kF, kP, 11, 1, 2}},
        {"wrong kind", Op::kConcat, {kRow, kRow}, {kF, kC, 12}},
        {"wrong kind", Op::kConcat, {kFar, kFar}, {kI, kP, 2, 1}}});
  test({{"", Op::kSubtract, {kWide, kFloats}, {kF, kP, 6, 1, 2}},
        {second, Op::kSubtract, {kFloats, kWide}, {kF, kP, 6, 1}},
        {second, Op::kSubtract, {kFloats, kRow}, {kF, kP, 6, 1}},
        {second, Op::kSubtract, {kFloats, kFew}, {kF, kP, 6, 1}},
        {made, Op::kSubtract, {kFloats, kFloats}, {kF, kP, 5, 1}},
        {made, Op::kSubtract, {kWide, kWide}, {kF, kP, 6, 1}},
        {"wrong kind", Op::kSubtract, {kSigns, kSigns}, {kF, kP, 6, 1}},
        {"", Op::kMultiply, {kWide, kRow}, {kF, kP, 6, 1, 2}},
        {second, Op::kMultiply, {kWide, kFew}, {kF, kP, 6, 1, 2}},
        {second, Op::kMultiply, {kRow, kFloats}, {kF, kC, 6}}});
  test({{"", Op::kReshape, {kWide}, {kF, kP, 4, 1, 3}},
        {made, Op::kReshape, {kWide}, {kF, kP, 4, 1, 2}},
        {made, Op::kReshape, {kWide}, {kF, kP, 12, 0}},
        {made, Op::kReshape, {kRow}, {kF, kC, 6}},
        {"", Op::kProduct, {kWide, kPairs}, {kF, kP, 30, 1}},
        {"product per point", Op::kProduct, {kWide, kPairs}, {kF, kP, 30, 1, 2}},
        {"product per point", Op::kProduct, {kWide, kPairs}, {kF, kP, 31, 1}},
        {fit, Op::kProduct, {kWide, kFloats}, {kF, kP, 36, 1}}});
}

void test_slices() {
  const char* there = "not there";
  test({{"", Op::kSlice, {kRow}, {kF, kC, 2}, integers({4, 2})},
        {there, Op::kSlice, {kRow}, {kF, kC, 2}, integers({5, 2})},
        {there, Op::kSlice, {kRow}, {kF, kC, 2}, integers({-1, 2})},
        {there, Op::kSlice, {kRow}, {kF, kC, 2}, integers({1, 0})},
        {there, Op::kSlice, {kRow}, {kF, kC, 2}, integers({INT32_MAX, INT32_MAX})},
        {"its columns", Op::kSlice, {kRow}, {kF, kC, 3}, integers({4, 2})},
        {"its columns", Op::kSlice, {kWide}, {kF, kP, 2, 1}, integers({4, 2})},
        {"wrong kind", Op::kSlice, {kSigns}, {kF, kP, 2, 1}, integers({4, 2})},
        {"type or shape", Op::kSlice, {kRow}, {kF, kC, 2}, integers({4})}});
}

// The blobs of LINEAR_GROUPS and BINARY_GROUPS: `read` inputs of each output.
Blobs linear(uint32_t read, uint32_t channels, int32_t groups) {
  return [=](Writer& w) {
    return Wires{w.floats({read, channels}), w.floats({channels}), w.integers({groups})};
  };
}
Blobs binary(uint32_t read, uint32_t channels, int32_t groups) {
  return [=](Writer& w) {
    return Wires{w.weight(read, channels), w.floats({1}), w.floats({channels}), w.integers({groups})};
  };
}
// Of BINARY_SUM from 6 signs to 4 channels.
Blobs sum(uint32_t columns, uint32_t bases, uint32_t biases = 4) {
  return [=](Writer& w) { return Wires{w.weight(6, columns), w.floats({bases, 4}), w.floats({biases})}; };
}

void test_groups() {
  const Made y = {kF, kP, 4, 1};
  const char *shape = "type or shape", *fit = "do not fit";
  test({{"", Op::kLinearGroups, {kFloats}, y, linear(3, 4, 2), kRelu},
        {"activation", Op::kLinearGroups, {kFloats}, y, linear(3, 4, 2), kSigmoid},
        {"activation", Op::kLinearGroups, {kFloats}, y, linear(3, 4, 2), Activation::kRprelu},
        {fit, Op::kLinearGroups, {kFloats}, y, linear(2, 4, 3)},
        {fit, Op::kLinearGroups, {kFloats}, y, linear(1, 4, 4)},
        {"no groups", Op::kLinearGroups, {kFloats}, y, linear(3, 4, 0)},
        {"no groups", Op::kLinearGroups, {kFloats}, y, linear(3, 4, -2)},
        {fit, Op::kLinearGroups, {kFloats}, y, linear(3, 4, INT32_MAX)},
        {shape, Op::kLinearGroups, {kFloats}, y, linear(6, 4, 2)},
        {shape, Op::kLinearGroups, {kFloats}, y, linear(3, 8, 2)},
        {"wrong rows", Op::kLinearGroups, {kWide}, y, linear(3, 4, 2)},
        {"wrong kind", Op::kLinearGroups, {kSigns}, y, linear(3, 4, 2)},
        {"", Op::kBinaryGroups, {kSigns}, y, binary(3, 4, 2)},
        {"beyond", Op::kBinaryGroups, {kSigns}, y, binary(64, 4, 2)},
        {"wrong kind", Op::kBinaryGroups, {kFloats}, y, binary(3, 4, 2)}});
  test({{"", Op::kBinarySum, {kSigns}, y, sum(12, 3)},
        {shape, Op::kBinarySum, {kSigns}, y, sum(8, 3)},
        {shape, Op::kBinarySum, {kSigns}, y, sum(12, 3, 1)},
        {"adds to", Op::kBinarySum, {kSigns, kFloats}, y, sum(12, 3)},
        {"adds to", Op::kBinarySum, {kSigns, kSigns}, y, sum(12, 3)},
        {"wrong rows", Op::kBinarySum, {kPairSigns}, y, sum(12, 3)}});
}

// What ops of other plans may be here, and these elsewhere.
void test_plans() {
  test({{"", Op::kPoolMax, {kWide}, {kF, kP, 6, 1}},
        {"", Op::kPoolMean, {kWide}, {kF, kC, 6}},
        {"wrong rows", Op::kPoolMax, {kWide}, {kF, kP, 6, 1, 2}},
        {"wrong rows", Op::kPoolMax, {kWide}, {kF, kP, 6}},
        {"wrong rows", Op::kRowMeanAbs, {kWide}, {kF, kP, 1, 1}},
        {"", Op::kRowMeanAbs, {kWide}, {kF, kP, 1, 1, 2}},
        {"voxel grid", Op::kAdd, {kFloats, kFloats}, {kF, kP, 6, 1}},
        {"voxel grid", Op::kUnpool, {kFloats}, {kF, kP, 6}},
        {"activation", Op::kPoolMax, {kWide}, {kF, kP, 6, 1}, {}, kRelu},
        {"no known kind", Op::kReshape, {kFloats}, {kF, kP, kMost, 1, 2}},
        {"no known kind", Op::kReshape, {kFloats}, {kF, kC, 6, 1}},
        {"no known kind", Op::kReshape, {kFloats}, {kF, kC, 6, 0, 2}}});
  Writer w(1, Grid{0.1, 2, 3}, 3);
  w.step(Op::kDensity, {0}, {kF, Rows::kSites, 1}, {w.one(1)});
  check(complaint(w.file(1)).find("unknown op") != std::string::npos, "no op on points on a grid");
}

// Another number in the header or the tables, whose checksum is right.
std::string altered(size_t at, double ratio) {
  Bytes bytes = points_network(1);
  put(bytes, at, ratio);
  seal(bytes);
  return complaint(bytes);
}
std::string altered(size_t at, uint16_t half) {
  Bytes bytes = points_network(1);
  put(bytes, at, half);
  seal(bytes);
  return complaint(bytes);
}

void test_plan() {
  check(complaint(points_network(1)).empty(), complaint(points_network(1)));
  check(altered(28, uint16_t{2}).empty(), "blocks are a way to normalise");
  check(!altered(28, uint16_t{3}).empty(), "there is no fourth way");
  for (const double ratio : {0.0, -0.5, 1.5, static_cast<double>(NAN), static_cast<double>(INFINITY)})
    check(altered(176, ratio).find("ratio") != std::string::npos, "a ratio is in (0, 1]");
  check(altered(176, 1.0).empty(), "a level may have all points");
  check(!altered(192, -0.0).empty(), "bytes behind the ratios are 0");
  check(!altered(144, uint16_t{5}).empty() && !altered(146, uint16_t{0x8000}).empty(), "0 to 4 ratios");
  check(!altered(256 + 14, uint16_t{1}).empty(), "one row per point is written as 0");
  Bytes bytes = points_network(1);
  const std::string xyz{"x\0y\0z\0", 6};
  const auto x = std::search(bytes.begin(), bytes.end(), xyz.begin(), xyz.end());
  *x = 'q';
  seal(bytes);
  check(complaint(bytes).find("x, y, z") != std::string::npos, "the first features are x, y, z");
}

}  // namespace

int main() {
  test_searches();
  test_lengths();
  test_gather();
  test_joins();
  test_slices();
  test_groups();
  test_plans();
  test_plan();
  return finish();
}
