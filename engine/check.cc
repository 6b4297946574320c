// Check a program's steps: wiring, shapes and numbers (docs/format.md, checks 15 to 18).
#include "check.h"

#include <cmath>
#include <cstring>

namespace popcloud {
namespace {

// One row of the table "Steps and their blobs" of docs/format.md. A letter of `blobs` is: w: f32 (K, C), on a
// grid also f16, p: u64 (W, C), f: f32 (C), s: f32 (C) or (1), t: threshold (C), l: limit (C); those of ops
// on sites and on points (-) are check_grid_step's and check_point_step's.
struct Shape {
  const char* name;
  Kind input, output;
  bool needs_points;  // pools the rows of POINT; else input and output have the same rows
  bool activates;
  const char* blobs;
  size_t optional = 0;  // so many of the blobs may be left out, the last ones
  size_t fewest_inputs = 1, most_inputs = 1, most_outputs = 1;
};

constexpr Kind kFloat = Kind::kFloat, kBits = Kind::kBits, kIndex = Kind::kIndex;
constexpr Shape kShapes[] = {
    {"LINEAR", kFloat, kFloat, false, true, "wf"},
    {"BINARIZE", kFloat, kBits, false, false, "t"},
    {"AFFINE", kFloat, kFloat, false, true, "ss"},
    {"RPRELU", kFloat, kFloat, false, false, "fff"},
    {"TRANSFORM", kFloat, kFloat, false, false, "", 0, 2, 2},
    {"POOL_MAX", kFloat, kFloat, true, false, ""},
    {"POOL_MEAN", kFloat, kFloat, true, false, ""},
    {"ROW_MEAN_ABS", kFloat, kFloat, false, false, ""},
    {"BINARY_LINEAR", kBits, kFloat, false, true, "pss", 0, 1, 2},
    {"BINARY_LINEAR_BITS", kBits, kBits, false, false, "pl"},
    {"BINARY_MAX", kBits, kFloat, true, true, "pss"},
    {"BINARY_MAX_BITS", kBits, kBits, true, false, "pl"},
    {"BINARY_MEAN", kBits, kFloat, true, true, "pss"},
    {"BINARY_MEAN_BITS", kBits, kBits, true, false, "pt"},
    {"SPARSE_CONV", kFloat, kFloat, false, true, "------", 3, 1, 2, 4},
    {"BINARY_SPARSE_CONV", kBits, kFloat, false, true, "------", 3, 1, 2, 4},
    {"SITE_MEAN", kFloat, kFloat, false, false, ""},
    {"UNPOOL", kFloat, kFloat, false, false, ""},
    {"CONCAT", kFloat, kFloat, false, false, "", 0, 2, 4},
    {"ADD", kFloat, kFloat, false, false, "", 0, 2, 2},
    {"FARTHEST_POINTS", kFloat, kIndex, false, false, ""},
    {"NEAREST", kFloat, kIndex, false, false, "-", 0, 2, 2},
    {"NEAREST_FEATURES", kFloat, kIndex, false, false, "-", 0, 2, 2},
    {"NEAREST_SIGNS", kBits, kIndex, false, false, "-", 0, 2, 2},
    {"BALL", kFloat, kIndex, false, false, "-", 0, 2, 2},
    {"GATHER", kFloat, kFloat, false, false, "", 0, 2, 2},
    {"SUBTRACT", kFloat, kFloat, false, false, "", 0, 2, 2},
    {"MULTIPLY", kFloat, kFloat, false, false, "", 0, 2, 2},
    {"RESHAPE", kFloat, kFloat, false, false, ""},
    {"PRODUCT", kFloat, kFloat, false, false, "", 0, 2, 2},
    {"DENSITY", kFloat, kFloat, false, false, "-"},
    {"SLICE", kFloat, kFloat, false, false, "-"},
    {"LINEAR_GROUPS", kFloat, kFloat, false, true, "---"},
    {"BINARY_GROUPS", kBits, kFloat, false, true, "----"},
    {"BINARY_SUM", kBits, kFloat, false, true, "---", 0, 1, 2},
};

const Shape& shape_of(Op op) { return kShapes[static_cast<int>(op) - 1]; }

class Checker {
 public:
  Checker(const Program& program, const std::string& path) : program_(program), complaint_{path, ""} {}

  void check() {
    written_.assign(program_.values.size(), false);
    written_[0] = true;
    points_to_.assign(program_.values.size(), 0);
    for (const Step& step : program_.steps) {
      step_ = &step;
      complaint_.where =
          "step " + std::to_string(&step - program_.steps.data()) + " (" + shape_of(step.op).name + ")";
      check_wiring();
      if (step.op > Op::kAdd || (step.op == Op::kConcat && program_.sampling)) {
        check_point_step(program_, step, points_to_, complaint_);
      } else if (step.op >= Op::kSparseConv) {
        check_grid_step(program_, step, complaint_);
      } else {
        check_values();
        check_blobs();
      }
    }
    for (size_t i = 0; i < written_.size(); ++i) {
      complaint_.where = "value " + program_.values[i].name;
      require(written_[i], "is written by no step");
    }
    check_answer(program_.values[program_.steps.back().output()]);
  }

 private:
  void require(bool holds, const std::string& what) const { complaint_.require(holds, what); }

  const Value& input(size_t i) const { return program_.values[step_->inputs[i]]; }
  const Value& output() const { return program_.values[step_->output()]; }

  void check_wiring() {
    const Shape& shape = shape_of(step_->op);
    size_t count = step_->inputs.size();
    require(count >= shape.fewest_inputs && count <= shape.most_inputs,
            "has " + std::to_string(count) + " inputs");
    require(step_->outputs.size() <= shape.most_outputs,
            "has " + std::to_string(step_->outputs.size()) + " outputs");
    for (size_t value : step_->inputs) require(written_[value], "reads a value that no earlier step writes");
    for (size_t value : step_->outputs) {
      require(!written_[value], "writes a value that is written already");
      written_[value] = true;
    }
  }

  void check_values() const {
    const Shape& shape = shape_of(step_->op);
    const Value &x = input(0), &y = output();
    check_activation();
    require(x.kind == shape.input && y.kind == shape.output, "reads or writes the wrong kind of value");
    require(shape.needs_points ? pools_points(x, y) : same_rows(x, y), "reads or writes the wrong rows");
    if (step_->op == Op::kTransform) {
      const Value& matrix = input(1);
      require(matrix.kind == Kind::kFloat && matrix.rows == Rows::kCloud &&
                  matrix.channels == x.channels * x.channels,
              "reads a matrix that does not fit");
    } else if (step_->inputs.size() == 2) {
      const Value& scale = input(1);
      require(scale.kind == Kind::kFloat && same_rows(scale, x) && scale.channels == 1,
              "reads a row scale that is not one float per row");
    }
    if (step_->op == Op::kRowMeanAbs)
      require(y.channels == 1, "writes more than one channel");
    else if (shape.blobs[0] != 'w' && shape.blobs[0] != 'p')  // no weight: channels stay
      require(y.channels == x.channels, "writes the wrong number of channels");
  }

  void check_activation() const {
    const Activation act = step_->activation;
    require(act == Activation::kNone || shape_of(step_->op).activates, "has an activation");
    require(act != Activation::kRprelu, "has an activation with constants");
    require(act != Activation::kSigmoid || (step_->op == Op::kLinear && program_.sampling),
            "has an activation of others");
  }

  // All rows become one; on points perhaps those of each point.
  bool pools_points(const Value& x, const Value& y) const {
    if (x.rows != Rows::kPoint) return false;
    if (y.rows == Rows::kCloud) return true;
    return program_.sampling && y.rows == Rows::kPoint && y.level == x.level && y.each == 1;
  }

  void check_blobs() const {
    const char* wanted = shape_of(step_->op).blobs;
    for (size_t i = 0; wanted[i]; ++i) {
      std::string what = "has a blob " + std::to_string(i);
      require(fits(step_->blobs[i], wanted[i]), what + " of the wrong type or shape");
      require(numbers_fit(step_->blobs[i], wanted[i]), what + " with a number out of range");
    }
  }

  bool fits(const Blob& blob, char wanted) const {
    size_t inputs = input(0).channels, channels = output().channels;
    if (wanted == 'w')
      return is_matrix(blob, Type::kF32, inputs, channels) ||
             (program_.grid && is_matrix(blob, Type::kF16, inputs, channels));
    if (wanted == 'p') return is_packed(blob, inputs, channels);
    bool length = blob.ndim == 1 && (blob.shape[0] == channels || (wanted == 's' && blob.shape[0] == 1));
    return length && blob.type == (wanted == 'l' ? Type::kI32 : Type::kF32);
  }

  bool numbers_fit(const Blob& blob, char wanted) const {
    size_t inputs = input(0).channels, count = blob.count();
    if (wanted == 'p') return tail_is_zero(blob, inputs);
    if (wanted == 't') return no_nan(blob);
    if (wanted != 'l') return all_finite(blob);
    bool fit = true;
    for (size_t i = 0; i < count; ++i)
      fit &= blob.integers()[i] >= -1 && blob.integers()[i] <= static_cast<int64_t>(inputs);
    return fit;
  }

  void check_answer(const Value& answer) {
    complaint_.where = "the answer";
    require(answer.kind == Kind::kFloat, "is not of floats");
    const bool per_point = program_.sampling && answer.rows == Rows::kPoint && answer.each == 1;
    require((answer.rows == (program_.grid ? Rows::kSites : Rows::kCloud) || per_point) && answer.level == 0,
            program_.grid ? "is not of the finest sites"
                          : "is not one row, nor one of each point of a network on points");
    require(answer.channels == program_.classes.size(),
            "has " + std::to_string(answer.channels) + " channels for " +
                std::to_string(program_.classes.size()) + " classes");
  }

  const Program& program_;
  Complaint complaint_;
  const Step* step_ = nullptr;
  std::vector<bool> written_;
  std::vector<size_t> points_to_;  // by value, see check_point_step
};

}  // namespace

bool pools(Op op) { return shape_of(op).needs_points; }

size_t optional_blobs(Op op) { return shape_of(op).optional; }
size_t needed_blobs(Op op) { return std::strlen(shape_of(op).blobs) - optional_blobs(op); }

void Complaint::require(bool holds, const std::string& what) const {
  if (!holds)
    throw Error(Fault::kFile, path + ": inconsistent: " + where + " " + what + "; pack the checkpoint again");
}

bool is_matrix(const Blob& blob, Type type, size_t rows, size_t columns) {
  return blob.type == type && blob.ndim == 2 && blob.shape[0] == rows && blob.shape[1] == columns;
}

bool is_vector(const Blob& blob, Type type, size_t length) {
  return blob.type == type && blob.ndim == 1 && blob.shape[0] == length;
}

bool same_rows(const Value& x, const Value& y) {
  return x.rows == y.rows && x.level == y.level && x.each == y.each;
}

bool is_packed(const Blob& blob, size_t signs, size_t columns) {
  return is_matrix(blob, Type::kU64, words_of(signs), columns);
}

bool all_finite(const Blob& floats) {
  constexpr uint16_t kInfinite = 0x7C00;  // the exponent of infinity and NaN in float16
  bool fit = true;
  if (floats.type == Type::kF16) {
    for (size_t i = 0; i < floats.count(); ++i) fit &= (floats.halves()[i] & kInfinite) != kInfinite;
    return fit;
  }
  for (size_t i = 0; i < floats.count(); ++i) fit &= std::isfinite(floats.floats()[i]);
  return fit;
}

bool no_nan(const Blob& floats) {
  bool fit = true;
  for (size_t i = 0; i < floats.count(); ++i) fit &= !std::isnan(floats.floats()[i]);
  return fit;
}

bool tail_is_zero(const Blob& packed, size_t signs) {
  uint64_t beyond = signs % 64 ? ~uint64_t{0} << signs % 64 : 0, found = 0;
  for (size_t i = packed.count() - packed.shape[1]; i < packed.count(); ++i)
    found |= packed.words()[i] & beyond;
  return found == 0;
}

void check_program(const Program& program, const std::string& where) { Checker(program, where).check(); }

}  // namespace popcloud
