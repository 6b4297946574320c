// Check steps on points: levels, neighbours, groups (docs/format.md, checks 15 to 17, "On points").
#include <cmath>

#include "check.h"

namespace popcloud {
namespace {

constexpr size_t kMostPoints = size_t{1} << 24;

// A number whose square, as float32 has it, is one to compare distances with.
bool is_length(float x) { return x > 0 && x * x > 0 && std::isfinite(x * x); }

bool is_cloud(const Value& value) { return value.rows == Rows::kCloud; }
bool is_points(const Value& value) { return value.rows == Rows::kPoint; }

// One row per point of a level.
bool is_single(const Value& value) { return is_points(value) && value.each == 1; }

bool is_positions(const Value& value) {
  return value.kind == Kind::kFloat && is_single(value) && value.channels == 3;
}

// Whether x has a row for each of y's, or one for all of a point's.
bool spreads_over(const Value& x, const Value& y) {
  return same_rows(x, y) || (is_single(x) && is_points(y) && x.level == y.level);
}

class PointsChecker {
 public:
  PointsChecker(const Program& program, const Step& step, std::vector<size_t>& points_to,
                const Complaint& complaint)
      : program_(program),
        step_(step),
        points_to_(points_to),
        complaint_(complaint),
        x_(program.values[step.inputs[0]]),
        y_(program.values[step.output()]) {}

  void check() const {
    require(program_.sampling.has_value(), "needs a plan for points, and the file has none");
    bool activates = step_.op >= Op::kLinearGroups && step_.activation <= Activation::kHardtanh;
    require(step_.activation == Activation::kNone || activates, "has an activation it can't have");
    if (step_.op == Op::kConcat) return check_concat();
    if (step_.op <= Op::kBall) return check_search();
    if (step_.op == Op::kGather) return check_gather();
    const bool signs = step_.op == Op::kBinaryGroups || step_.op == Op::kBinarySum;
    require(x_.kind == (signs ? Kind::kBits : Kind::kFloat) && y_.kind == Kind::kFloat,
            "reads or writes the wrong kind of value");
    switch (step_.op) {
      case Op::kSubtract:
      case Op::kMultiply:
        return check_pairwise();
      case Op::kReshape:
        return check_reshape();
      case Op::kProduct:
        return check_product();
      case Op::kDensity:
        return check_density();
      case Op::kSlice:
        return check_slice();
      case Op::kBinarySum:
        return check_sum();
      default:
        return check_groups();
    }
  }

 private:
  void require(bool holds, const std::string& what) const { complaint_.require(holds, what); }
  const Value& input(size_t i) const { return program_.values[step_.inputs[i]]; }

  void check_concat() const {
    require(y_.kind != Kind::kIndex && is_points(y_), "writes the wrong kind of value");
    size_t channels = 0;
    for (size_t i = 0; i < step_.inputs.size(); ++i) {
      const Value& x = input(i);
      require(x.kind == y_.kind && (is_cloud(x) || spreads_over(x, y_)), "joins values that do not fit");
      channels += x.channels;
    }
    require(channels == y_.channels, "writes the wrong number of channels");
  }

  // Ops 21 to 25, which find rows of points.
  void check_search() const {
    const bool samples = step_.op == Op::kFarthestPoints;
    const Value& points = samples ? x_ : input(1);
    require(y_.kind == Kind::kIndex && y_.level == x_.level + samples,
            "does not write indices for each point");
    require(!samples || y_.channels == 1, "writes more than one index per point");
    if (step_.op == Op::kNearestFeatures || step_.op == Op::kNearestSigns) {
      const Kind kind = step_.op == Op::kNearestSigns ? Kind::kBits : Kind::kFloat;
      require(x_.kind == kind && points.kind == kind && is_single(x_) && is_single(points) &&
                  x_.channels == points.channels,
              "compares values that do not fit");
    } else {
      require(is_positions(x_) && is_positions(points), "reads something else than positions");
    }
    points_to_[step_.output()] = points.level;
    if (step_.op == Op::kBall)
      check_length("radius");
    else if (!samples)
      check_dilation();
  }

  void check_dilation() const {
    const int32_t dilation = number("dilation", 0);
    require(dilation >= 1 && (y_.channels - 1) * static_cast<size_t>(dilation) < kMostPoints,
            "has a dilation out of range");
  }

  void check_gather() const {
    const Value& index = input(1);
    require(x_.kind != Kind::kIndex && is_single(x_) && index.kind == Kind::kIndex,
            "does not read a row per point, and indices");
    require(points_to_[step_.inputs[1]] == x_.level, "reads indices of another level");
    require(y_.kind == x_.kind && y_.channels == x_.channels && is_points(y_) && y_.level == index.level &&
                y_.each == index.channels,
            "writes something else than a row per index");
  }

  void check_pairwise() const {
    const Value& other = input(1);
    const bool multiplies = step_.op == Op::kMultiply;
    require(same_rows(x_, y_) && x_.channels == y_.channels, "does not write what it reads");
    require(other.kind == Kind::kFloat && (spreads_over(other, x_) || (multiplies && is_cloud(other))) &&
                (other.channels == x_.channels || (multiplies && other.channels == 1)),
            "reads a second value that does not fit");
  }

  void check_reshape() const {
    require(is_points(x_) && is_points(y_) && x_.level == y_.level &&
                x_.each * x_.channels == y_.each * y_.channels,
            "does not write the floats that it reads");
  }

  void check_product() const {
    const Value& other = input(1);
    require(is_points(x_) && other.kind == Kind::kFloat && same_rows(other, x_),
            "reads values that do not fit");
    require(is_single(y_) && y_.level == x_.level && y_.channels == x_.channels * other.channels,
            "writes something else than a product per point");
  }

  void check_density() const {
    require(is_positions(x_), "reads something else than positions");
    require(is_single(y_) && y_.level == x_.level && y_.channels == 1, "does not write a float per point");
    check_length("bandwidth");
  }

  void check_slice() const {
    const Blob& columns = step_.blobs[0];
    require(is_vector(columns, Type::kI32, 2), "has columns of the wrong type or shape");
    const int64_t first = columns.integers()[0], count = columns.integers()[1];
    require(first >= 0 && count >= 1 && first + count <= static_cast<int64_t>(x_.channels),
            "has columns that are not there");
    require(same_rows(x_, y_) && static_cast<int64_t>(y_.channels) == count, "does not write its columns");
  }

  void check_groups() const {
    require(same_rows(x_, y_), "reads or writes the wrong rows");
    const bool binary = step_.op == Op::kBinaryGroups;
    const int32_t number_of = number("groups", binary ? 3 : 2);
    require(number_of >= 1, "has no groups");
    const size_t groups = static_cast<size_t>(number_of), channels = y_.channels;
    require(x_.channels % groups == 0 && channels % groups == 0, "has groups that do not fit its channels");
    if (binary) {
      check_weight(x_.channels / groups, channels);
      check_floats("scale", 1, true);
      check_floats("bias", 2, true);
    } else {
      const Blob& weight = step_.blobs[0];
      require(is_matrix(weight, Type::kF32, x_.channels / groups, channels),
              "has a weight of the wrong type or shape");
      require(all_finite(weight), "has a number in weight that is not finite");
      check_floats("bias", 1, false);
    }
  }

  void check_sum() const {
    require(same_rows(x_, y_), "reads or writes the wrong rows");
    if (step_.inputs.size() == 2) {
      const Value& start = input(1);
      require(start.kind == Kind::kFloat && same_rows(start, y_) && start.channels == y_.channels,
              "adds to a value that does not fit");
    }
    const Blob& scale = step_.blobs[1];
    require(scale.ndim == 2 && is_matrix(scale, Type::kF32, scale.shape[0], y_.channels),
            "has a scale of the wrong type or shape");
    require(all_finite(scale), "has a number in scale that is not finite");
    check_weight(x_.channels, scale.shape[0] * y_.channels);
    check_floats("bias", 2, false);
  }

  // The only element of a blob of one integer.
  int32_t number(const std::string& name, size_t blob) const {
    require(is_vector(step_.blobs[blob], Type::kI32, 1), "has " + name + " of the wrong type or shape");
    return step_.blobs[blob].integers()[0];
  }

  void check_length(const std::string& name) const {
    require(is_vector(step_.blobs[0], Type::kF32, 1), "has a " + name + " of the wrong type or shape");
    require(is_length(step_.blobs[0].floats()[0]), "has a " + name + " out of range");
  }

  void check_weight(size_t signs, size_t columns) const {
    require(is_packed(step_.blobs[0], signs, columns), "has a weight of the wrong type or shape");
    require(tail_is_zero(step_.blobs[0], signs), "has a weight with bits beyond its last sign");
  }

  // A float per channel, or, if it `repeats`, perhaps one for all.
  void check_floats(const std::string& name, size_t blob, bool repeats) const {
    const Blob& floats = step_.blobs[blob];
    require(is_vector(floats, Type::kF32, y_.channels) || (repeats && is_vector(floats, Type::kF32, 1)),
            "has a " + name + " of the wrong type or shape");
    require(all_finite(floats), "has a number in " + name + " that is not finite");
  }

  const Program& program_;
  const Step& step_;
  std::vector<size_t>& points_to_;
  const Complaint& complaint_;
  const Value &x_, &y_;
};

}  // namespace

void check_point_step(const Program& program, const Step& step, std::vector<size_t>& points_to,
                      const Complaint& complaint) {
  PointsChecker(program, step, points_to, complaint).check();
}

}  // namespace popcloud
