#include "plan.h"

#include <algorithm>

namespace popcloud {
namespace {

// Half of a small first-level cache: the other half is for weights.
constexpr size_t kBlockBytes = 24 * 1024;
constexpr size_t kLeastBlockRows = 16, kMostBlockRows = 256;

class Planner {
 public:
  Planner(const Program& program, const Options& options) : program_(program), options_(options) {
    size_t values = program.values.size();
    last_reader_.assign(values, 0);
    plan_.places.assign(values, {Place::kCaller, 0});
    plan_.unique.assign(values, false);
    for (size_t s = 0; s < program.steps.size(); ++s)
      for (size_t value : program.steps[s].inputs) last_reader_[value] = s;
    last_reader_[program.steps.back().output()] = program.steps.size();  // the caller reads the answer
  }

  Plan make() {
    for (size_t s = 0; s < program_.steps.size();) {
      Group group{s, s + 1, by_rows(s), kMostBlockRows, 0};
      while (options_.fuse && group.by_rows && group.last < program_.steps.size() && joins(group))
        ++group.last;
      place(group);
      plan_.groups.push_back(group);
      s = group.last;
    }
    if (options_.unique_rows) mark_unique();
    return std::move(plan_);
  }

 private:
  const Step& step(size_t s) const { return program_.steps[s]; }
  const Value& output(size_t s) const { return program_.values[step(s).output()]; }
  bool by_rows(size_t s) const { return output(s).rows == Rows::kPoint; }

  // Does the step after the group read a float that the group makes? Then they gain by going together.
  // Scratch has one matrix, so a group has at most one TRANSFORM.
  bool joins(const Group& group) const {
    const Step& next = step(group.last);
    bool reads = false, transforms = false;
    for (size_t s = group.first; s < group.last; ++s) {
      transforms |= step(s).op == Op::kTransform;
      for (size_t value : next.inputs) reads |= value == step(s).output() && output(s).kind == Kind::kFloat;
    }
    return by_rows(group.last) && reads && !(transforms && next.op == Op::kTransform);
  }

  // Gives every value that the group makes its place, then hands back what is not read after the group.
  void place(Group& group) {
    size_t row_bytes = 0;
    for (size_t s = group.first; s < group.last; ++s) {
      if (last_reader_[step(s).output()] < group.last && group.last - group.first > 1) {
        plan_.places[step(s).output()] = {Place::kBlock, row_bytes};
        row_bytes += output(s).row_bytes();
      } else {
        plan_.places[step(s).output()] = {Place::kSlot, take_slot(output(s))};
      }
    }
    size_t rows = row_bytes ? kBlockBytes / row_bytes / 16 * 16 : kMostBlockRows;
    group.block_rows = std::clamp(rows, kLeastBlockRows, kMostBlockRows);
    group.block_bytes = group.block_rows * row_bytes;
    for (size_t value = 1; value < program_.values.size(); ++value) {
      const Place& at = plan_.places[value];
      if (at.where == Place::kSlot && last_reader_[value] < group.last) free_slot(value);
    }
  }

  // The free slot that has to grow least for this value.
  size_t take_slot(const Value& value) {
    size_t best = plan_.slots.size(), bytes = value.row_bytes();
    auto growth = [&](size_t i) {
      size_t has = plan_.slots[i].row_bytes;
      return bytes > has ? bytes - has : 0;
    };
    for (size_t i = 0; i < plan_.slots.size(); ++i)
      if (free_[i] && plan_.slots[i].rows == value.rows)
        if (best == plan_.slots.size() || growth(i) < growth(best)) best = i;
    if (best == plan_.slots.size()) {
      plan_.slots.push_back({value.rows, 0});
      free_.push_back(true);
    }
    free_[best] = false;
    plan_.slots[best].row_bytes = std::max(plan_.slots[best].row_bytes, bytes);
    return best;
  }

  void free_slot(size_t value) {
    free_[plan_.places[value].index] = true;
    last_reader_[value] = program_.steps.size() + 1;  // handed back once
  }

  // A value's rows may be made unique if all that is ever done with them is a maximum: through any number of
  // binary layers, which answer equal rows equally.
  void mark_unique() {
    size_t values = program_.values.size();
    std::vector<bool> only_max(values, true), read(values, false);
    for (size_t s = program_.steps.size(); s-- > 0;)
      for (size_t value : step(s).inputs) {
        Op op = step(s).op;
        bool max = op == Op::kBinaryMax || op == Op::kBinaryMaxBits;
        bool layer = op == Op::kBinaryLinearBits && read[step(s).output()] && only_max[step(s).output()];
        only_max[value] = only_max[value] && (max || layer);
        read[value] = true;
      }
    for (size_t s = 0; s < program_.steps.size(); ++s) {
      size_t value = step(s).output();
      bool comes_unique = step(s).op == Op::kBinaryLinearBits && only_max[step(s).inputs[0]];
      plan_.unique[value] =
          by_rows(s) && output(s).kind == Kind::kBits && read[value] && only_max[value] && !comes_unique;
    }
  }

  const Program& program_;
  const Options& options_;
  std::vector<size_t> last_reader_;
  std::vector<bool> free_;
  Plan plan_;
};

}  // namespace

Plan make_plan(const Program& program, const Options& options) { return Planner(program, options).make(); }

}  // namespace popcloud
