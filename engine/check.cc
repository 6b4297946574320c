// Check a program's steps: wiring, shapes and numbers (docs/format.md, checks 15 to 18).
#include <cmath>

#include "program.h"

namespace popcloud {
namespace {

// One row of the table "Steps and their blobs" of docs/format.md.
struct Shape {
  const char* name;
  Kind input, output;
  bool needs_points;  // reads POINT and writes CLOUD; else both have the same rows
  bool activates;
  const char*
      blobs;  // w: f32 (K, C), p: u64 (W, C), f: f32 (C), s: f32 (C) or (1), t: threshold (C), l: limit (C)
};

constexpr Shape kShapes[] = {
    {"LINEAR", Kind::kFloat, Kind::kFloat, false, true, "wf"},
    {"BINARIZE", Kind::kFloat, Kind::kBits, false, false, "t"},
    {"AFFINE", Kind::kFloat, Kind::kFloat, false, true, "ss"},
    {"RPRELU", Kind::kFloat, Kind::kFloat, false, false, "fff"},
    {"TRANSFORM", Kind::kFloat, Kind::kFloat, false, false, ""},
    {"POOL_MAX", Kind::kFloat, Kind::kFloat, true, false, ""},
    {"POOL_MEAN", Kind::kFloat, Kind::kFloat, true, false, ""},
    {"ROW_MEAN_ABS", Kind::kFloat, Kind::kFloat, false, false, ""},
    {"BINARY_LINEAR", Kind::kBits, Kind::kFloat, false, true, "pss"},
    {"BINARY_LINEAR_BITS", Kind::kBits, Kind::kBits, false, false, "pl"},
    {"BINARY_MAX", Kind::kBits, Kind::kFloat, true, true, "pss"},
    {"BINARY_MAX_BITS", Kind::kBits, Kind::kBits, true, false, "pl"},
    {"BINARY_MEAN", Kind::kBits, Kind::kFloat, true, true, "pss"},
    {"BINARY_MEAN_BITS", Kind::kBits, Kind::kBits, true, false, "pt"},
};

const Shape& shape_of(Op op) { return kShapes[static_cast<int>(op) - 1]; }

class Checker {
 public:
  Checker(const Program& program, const std::string& path) : program_(program), path_(path) {}

  void check() {
    written_.assign(program_.values.size(), false);
    written_[0] = true;
    for (const Step& step : program_.steps) {
      step_ = &step;
      name_ = "step " + std::to_string(&step - program_.steps.data()) + " (" + shape_of(step.op).name + ")";
      check_wiring();
      check_values();
      check_blobs();
      written_[step.output()] = true;
    }
    const Value& answer = program_.values[program_.steps.back().output()];
    name_ = "the answer";
    require(answer.kind == Kind::kFloat && answer.rows == Rows::kCloud, "is not one row of floats");
    require(answer.channels == program_.classes.size(),
            "has " + std::to_string(answer.channels) + " channels for " +
                std::to_string(program_.classes.size()) + " classes");
  }

 private:
  void require(bool holds, const std::string& what) const {
    if (!holds)
      throw Error(Fault::kFile,
                  path_ + ": inconsistent: " + name_ + " " + what + "; pack the checkpoint again");
  }

  const Value& input(size_t i) const { return program_.values[step_->inputs[i]]; }
  const Value& output() const { return program_.values[step_->output()]; }

  void check_wiring() const {
    size_t count = step_->inputs.size();
    bool may_have_two = step_->op == Op::kTransform || step_->op == Op::kBinaryLinear;
    bool must_have_two = step_->op == Op::kTransform;
    require(count >= (must_have_two ? 2 : 1) && count <= (may_have_two ? 2 : 1),
            "has " + std::to_string(count) + " inputs");
    for (size_t value : step_->inputs) require(written_[value], "reads a value that no earlier step writes");
    require(!written_[step_->output()], "writes a value that is written already");
    require(shape_of(step_->op).activates || step_->activation == Activation::kNone, "has an activation");
  }

  void check_values() const {
    const Shape& shape = shape_of(step_->op);
    require(input(0).kind == shape.input && output().kind == shape.output,
            "reads or writes the wrong kind of value");
    bool rows_fit = shape.needs_points ? input(0).rows == Rows::kPoint && output().rows == Rows::kCloud
                                       : input(0).rows == output().rows;
    require(rows_fit, "reads or writes the wrong rows");
    if (step_->op == Op::kTransform) {
      const Value& matrix = input(1);
      require(matrix.kind == Kind::kFloat && matrix.rows == Rows::kCloud &&
                  matrix.channels == input(0).channels * input(0).channels,
              "reads a matrix that does not fit");
    } else if (step_->inputs.size() == 2) {
      require(input(1).kind == Kind::kFloat && input(1).rows == input(0).rows && input(1).channels == 1,
              "reads a row scale that is not one float per row");
    }
    if (step_->op == Op::kRowMeanAbs)
      require(output().channels == 1, "writes more than one channel");
    else if (shape.blobs[0] != 'w' && shape.blobs[0] != 'p')  // no weight: channels stay
      require(output().channels == input(0).channels, "writes the wrong number of channels");
  }

  void check_blobs() const {
    const char* wanted = shape_of(step_->op).blobs;
    require(step_->blobs.size() == std::string(wanted).size(), "has the wrong number of blobs");
    for (size_t i = 0; wanted[i]; ++i) {
      std::string what = "has a blob " + std::to_string(i);
      require(fits(step_->blobs[i], wanted[i]), what + " of the wrong type or shape");
      require(numbers_fit(step_->blobs[i], wanted[i]), what + " with a number out of range");
    }
  }

  bool fits(const Blob& blob, char wanted) const {
    size_t inputs = input(0).channels, channels = output().channels;
    auto matrix = [&](Type type, size_t rows) {
      return blob.type == type && blob.ndim == 2 && blob.shape[0] == rows && blob.shape[1] == channels;
    };
    if (wanted == 'w') return matrix(Type::kF32, inputs);
    if (wanted == 'p') return matrix(Type::kU64, words_of(inputs));
    bool length = blob.ndim == 1 && (blob.shape[0] == channels || (wanted == 's' && blob.shape[0] == 1));
    return length && blob.type == (wanted == 'l' ? Type::kI32 : Type::kF32);
  }

  bool numbers_fit(const Blob& blob, char wanted) const {
    size_t inputs = input(0).channels, count = blob.count();
    if (wanted == 'p') {
      uint64_t beyond = inputs % 64 ? ~uint64_t{0} << inputs % 64 : 0, found = 0;
      for (size_t i = count - blob.shape[1]; i < count; ++i) found |= blob.words()[i] & beyond;
      return found == 0;
    }
    bool fit = true;
    for (size_t i = 0; i < count; ++i) {
      if (wanted == 'l')
        fit &= blob.integers()[i] >= -1 && blob.integers()[i] <= static_cast<int64_t>(inputs);
      else
        fit &= wanted == 't' ? !std::isnan(blob.floats()[i]) : std::isfinite(blob.floats()[i]);
    }
    return fit;
  }

  const Program& program_;
  const std::string& path_;
  const Step* step_ = nullptr;
  std::string name_;
  std::vector<bool> written_;
};

}  // namespace

bool pools(Op op) { return shape_of(op).needs_points; }

void check_program(const Program& program, const std::string& where) { Checker(program, where).check(); }

}  // namespace popcloud
