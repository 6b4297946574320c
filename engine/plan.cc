#include "plan.h"

#include <algorithm>

namespace popcloud {
namespace {

// Half of a small first-level cache: the other half is for weights.
constexpr size_t kBlockBytes = 24 * 1024;
constexpr size_t kLeastBlockRows = 16, kMostBlockRows = 256;
constexpr size_t kUsualPoints = 1024;  // to compare values whose rows depend on the cloud

class Planner {
 public:
  Planner(const Program& program, const Options& options) : program_(program), options_(options) {
    size_t values = program.values.size();
    last_reader_.assign(values, 0);
    plan_.places.assign(values, {Place::kCaller, 0});
    plan_.unique.assign(values, false);
    plan_.together.assign(program.steps.size(), 1);
    for (size_t s = 0; s < program.steps.size(); ++s)
      for (size_t value : program.steps[s].inputs) last_reader_[value] = s;
    last_reader_[program.steps.back().output()] = program.steps.size();  // the caller reads the answer
  }

  Plan make() {
    if (options_.unique_rows) mark_unique();
    for (size_t s = 0; s < program_.steps.size();) {
      Group group{s, s + 1, by_points(s), output(s).level, each_of(s), 0, 0};
      while (options_.fuse && group.by_points && group.last < program_.steps.size() && joins(group))
        ++group.last;
      place(group);
      plan_.groups.push_back(group);
      s = group.last;
    }
    return std::move(plan_);
  }

 private:
  const Step& step(size_t s) const { return program_.steps[s]; }
  const Value& output(size_t s) const { return program_.values[step(s).output()]; }
  bool by_points(size_t s) const { return output(s).rows == Rows::kPoint && !stands_alone(step(s).op); }

  // The most rows per point that a step reads or writes.
  size_t each_of(size_t s) const {
    size_t each = output(s).each;
    for (size_t value : step(s).inputs) each = std::max(each, program_.values[value].each);
    return each;
  }

  // Do the group and the step after it gain by going together? They do if it reads a float that the group
  // makes; of a point's neighbours, which are many, anything it reads and writes is better off in the cache.
  // Scratch has one matrix, so a group has at most one TRANSFORM. What is made unique is needed whole before,
  // and so is what GATHER picks from.
  bool joins(const Group& group) const {
    const Step& next = step(group.last);
    if (!by_points(group.last) || output(group.last).level != group.level) return false;
    const bool alike = each_of(group.last) == group.each;
    if (!alike && next.op != Op::kBinarize) return false;  // which needs no weights, so few rows will do
    bool reads = alike && group.each > 1;
    for (size_t s = group.first; s < group.last; ++s) {
      if (step(s).op == Op::kTransform && next.op == Op::kTransform) return false;
      const size_t made = step(s).output();
      for (size_t i = 0; i < next.inputs.size(); ++i) {
        if (next.inputs[i] != made) continue;
        if (plan_.unique[made] || (next.op == Op::kGather && i == 0)) return false;
        reads |= output(s).kind == Kind::kFloat;
      }
    }
    return reads;
  }

  // How many steps from s on, before `last`, are signs of picked rows: 3, 2, or 1 if they are not.
  size_t edge_steps(size_t s, size_t last) const {
    const Op second = s + 1 < last ? step(s + 1).op : Op::kLinear;
    const size_t count = second == Op::kSubtract ? 3 : second == Op::kBinarize ? 2 : 1;
    if (step(s).op != Op::kGather || output(s).kind != Kind::kFloat || s + count > last) return 1;
    if (step(s + count - 1).op != Op::kBinarize) return 1;
    for (size_t i = 0; i + 1 < count; ++i) {
      const size_t made = step(s + i).output();
      if (step(s + i + 1).inputs[0] != made || last_reader_[made] != s + i + 1) return 1;
    }
    if (count == 3) {
      const size_t own = step(s + 1).inputs[1];
      if (program_.values[own].each != 1 || own == step(s).output()) return 1;
    }
    return count;
  }

  // Gives every value that the group makes its place, then hands back what is not read after the group.
  void place(Group& group) {
    std::vector<size_t> inside;
    size_t point_bytes = 0, passing = group.first;  // up to there values are never stored
    for (size_t s = group.first; s < group.last; ++s) {
      const size_t value = step(s).output();
      if (s >= passing) {
        plan_.together[s] = edge_steps(s, group.last);
        passing = s + plan_.together[s] - 1;
      }
      if (s < passing) {
        plan_.places[value] = {Place::kBlock, 0};
      } else if (last_reader_[value] < group.last && group.last - group.first > 1) {
        inside.push_back(value);
        point_bytes += output(s).each * output(s).row_bytes();
      } else {
        plan_.places[value] = {Place::kSlot, take_slot(value)};
      }
    }
    const size_t least = least_points(group.each), most = std::max(least, kMostBlockRows / group.each);
    const size_t points = point_bytes ? kBlockBytes / point_bytes / least * least : most;
    group.block_points = std::clamp(points, least, most);
    for (size_t value : inside) {
      plan_.places[value] = {Place::kBlock, group.block_bytes};
      const Value& v = program_.values[value];
      group.block_bytes += (group.block_points * v.each * v.row_bytes() + 63) / 64 * 64;
    }
    for (size_t value = 1; value < program_.values.size(); ++value) {
      const Place& at = plan_.places[value];
      if (at.where == Place::kSlot && last_reader_[value] < group.last) free_slot(value);
    }
  }

  size_t usual_bytes(size_t value) const {
    const Value& v = program_.values[value];
    return rows_of(program_, v, kUsualPoints) * v.row_bytes();
  }

  // The free slot that has to grow least for this value.
  size_t take_slot(size_t value) {
    const bool points = program_.values[value].rows == Rows::kPoint;
    size_t best = plan_.slots.size(), bytes = usual_bytes(value);
    auto growth = [&](size_t i) { return bytes > slot_bytes_[i] ? bytes - slot_bytes_[i] : 0; };
    for (size_t i = 0; i < plan_.slots.size(); ++i)
      if (free_[i] && plan_.slots[i].points == points)
        if (best == plan_.slots.size() || growth(i) < growth(best)) best = i;
    if (best == plan_.slots.size()) {
      plan_.slots.push_back({points, {}});
      free_.push_back(true);
      slot_bytes_.push_back(0);
    }
    free_[best] = false;
    plan_.slots[best].values.push_back(value);
    slot_bytes_[best] = std::max(slot_bytes_[best], bytes);
    return best;
  }

  void free_slot(size_t value) {
    free_[plan_.places[value].index] = true;
    last_reader_[value] = program_.steps.size() + 1;  // handed back once
  }

  // A value's rows may be made unique if all that is ever done with them is a maximum over the cloud: through
  // any number of binary layers, which answer equal rows equally.
  void mark_unique() {
    size_t values = program_.values.size();
    std::vector<bool> only_max(values, true), read(values, false);
    for (size_t s = program_.steps.size(); s-- > 0;)
      for (size_t value : step(s).inputs) {
        Op op = step(s).op;
        bool max = (op == Op::kBinaryMax || op == Op::kBinaryMaxBits) && output(s).rows == Rows::kCloud;
        bool layer = op == Op::kBinaryLinearBits && read[step(s).output()] && only_max[step(s).output()];
        only_max[value] = only_max[value] && (max || layer);
        read[value] = true;
      }
    for (size_t s = 0; s < program_.steps.size(); ++s) {
      size_t value = step(s).output();
      bool comes_unique = step(s).op == Op::kBinaryLinearBits && only_max[step(s).inputs[0]];
      plan_.unique[value] = by_points(s) && output(s).each == 1 && output(s).kind == Kind::kBits &&
                            read[value] && only_max[value] && !comes_unique;
    }
  }

  const Program& program_;
  const Options& options_;
  std::vector<size_t> last_reader_;
  std::vector<size_t> slot_bytes_;  // by slot, of a cloud of the usual size
  std::vector<bool> free_;
  Plan plan_;
};

}  // namespace

Plan make_plan(const Program& program, const Options& options) { return Planner(program, options).make(); }

size_t points_at(const Program& program, size_t level, size_t points) {
  return program.sampling ? program.sampling->count(points, level) : points;
}

size_t rows_of(const Program& program, const Value& value, size_t points) {
  return value.rows == Rows::kPoint ? points_at(program, value.level, points) * value.each : 1;
}

bool stands_alone(Op op) { return (op >= Op::kFarthestPoints && op <= Op::kBall) || op == Op::kDensity; }

size_t least_points(size_t each) { return (kLeastBlockRows + each - 1) / each; }

}  // namespace popcloud
