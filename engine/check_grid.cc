// Check steps on a voxel grid: levels, kernels, shortcuts, several outputs (docs/format.md, checks 15 to 17).
#include "check.h"

namespace popcloud {
namespace {

constexpr size_t kNeighbours = 27,
                 kChildren = 8;                 // offsets of a kernel on its level, and of one that leaves it
constexpr size_t kMostTerms = size_t{1} << 24;  // in one sum: float32 holds that of as many signs exactly

class GridChecker {
 public:
  GridChecker(const Program& program, const Step& step, const Complaint& complaint)
      : program_(program), step_(step), complaint_(complaint) {}

  void check() const {
    require(program_.grid.has_value(), "needs a voxel grid, and the file has no plan for one");
    if (step_.op == Op::kSparseConv || step_.op == Op::kBinarySparseConv) return check_convolution();
    require(step_.activation == Activation::kNone, "has an activation");
    if (step_.op == Op::kConcat) return check_concat();
    const Value &x = input(0), &y = output(0);
    require(x.kind == Kind::kFloat && y.kind == Kind::kFloat, "reads or writes signs");
    require(y.channels == x.channels, "writes the wrong number of channels");
    size_t finer = step_.op == Op::kSiteMean, coarser = step_.op == Op::kUnpool;
    require(x.level + finer == y.level + coarser, "leads to the wrong level");
    if (step_.op == Op::kAdd) check_added(input(1));
  }

 private:
  void require(bool holds, const std::string& what) const { complaint_.require(holds, what); }
  const Value& input(size_t i) const { return program_.values[step_.inputs[i]]; }
  const Value& output(size_t i) const { return program_.values[step_.outputs[i]]; }

  // What is added to the output: as wide, of its level or of the one above, whose rows the children share.
  void check_added(const Value& x) const {
    const Value& y = output(0);
    require(
        x.kind == Kind::kFloat && x.channels == y.channels && (x.level == y.level || x.level == y.level + 1),
        "adds a value that does not fit");
  }

  void check_concat() const {
    const Value& y = output(0);
    size_t channels = 0;
    for (size_t i = 0; i < step_.inputs.size(); ++i) {
      require(input(i).kind == y.kind && input(i).level == y.level, "joins values that do not fit");
      channels += input(i).channels;
    }
    require(channels == y.channels, "writes the wrong number of channels");
  }

  void check_convolution() const {
    const Value &x = input(0), &y = output(0);
    require(x.kind == (step_.op == Op::kSparseConv ? Kind::kFloat : Kind::kBits),
            "reads the wrong kind of value");
    require(x.level <= y.level + 1 && y.level <= x.level + 1, "leads more than one level away");
    if (step_.inputs.size() == 2) check_added(input(1));
    size_t floats = 0, signs = 0;
    for (size_t i = 0; i < step_.outputs.size(); ++i) {
      const Value& out = output(i);
      require(out.channels == y.channels && out.level == y.level, "writes values of different shapes");
      require(out.kind == Kind::kBits || signs == 0, "writes floats after signs");
      ++(out.kind == Kind::kBits ? signs : floats);
    }
    require(floats <= 1 || signs == 0, "writes signs and several floats");
    check_blobs(floats ? floats : 1, signs);
  }

  void check_blobs(size_t maps, size_t signs) const {
    const Value &x = input(0), &y = output(0);
    size_t terms = (x.level == y.level ? kNeighbours : kChildren) * x.channels, channels = y.channels;
    require(terms <= kMostTerms, "sums more than 2^24 terms");
    const Blob &weight = step_.blobs[0], &prelu = step_.blobs[3], &thresholds = step_.blobs[4];
    if (x.kind == Kind::kBits) {
      require(is_packed(weight, terms, channels), "has a weight of the wrong type or shape");
      require(tail_is_zero(weight, terms), "has a weight with bits beyond its last sign");
    } else {
      check_floats(weight, "weight", terms);
    }
    check_floats(step_.blobs[1], "scale", maps);
    check_floats(step_.blobs[2], "bias", maps);
    require((prelu.data != nullptr) == (step_.activation == Activation::kRprelu),
            "has prelu without RPRELU, or lacks it");
    if (prelu.data) check_floats(prelu, "prelu", 3);
    require((thresholds.data != nullptr) == (signs > 0), "has thresholds without signs, or lacks them");
    if (thresholds.data) {
      require(is_matrix(thresholds, Type::kF32, signs, channels),
              "has thresholds of the wrong type or shape");
      require(no_nan(thresholds), "has a threshold that is NaN");
    }
    if (step_.blobs[5].data) check_shifts(step_.blobs[5]);
  }

  void check_floats(const Blob& blob, const std::string& name, size_t rows) const {
    require(is_matrix(blob, Type::kF32, rows, output(0).channels),
            "has a " + name + " of the wrong type or shape");
    require(all_finite(blob), "has a number in " + name + " that is not finite");
  }

  // Each of so many equal groups of channels looks around a place of its own.
  void check_shifts(const Blob& shifts) const {
    size_t groups = shifts.shape[0];
    require(is_matrix(shifts, Type::kI8, groups, 3) && output(0).channels % groups == 0,
            "has shifts that do not fit its channels");
    require(program_.grid->size == 5 && input(0).level == output(0).level,
            "shifts where its plan has no neighbours");
    bool fit = true;
    for (size_t i = 0; i < shifts.count(); ++i) fit &= shifts.bytes()[i] >= -1 && shifts.bytes()[i] <= 1;
    require(fit, "has a shift that is not -1 to 1");
  }

  const Program& program_;
  const Step& step_;
  const Complaint& complaint_;
};

}  // namespace

void check_grid_step(const Program& program, const Step& step, const Complaint& complaint) {
  GridChecker(program, step, complaint).check();
}

}  // namespace popcloud
