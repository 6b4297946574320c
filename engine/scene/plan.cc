#include "scene/plan.h"

#include <algorithm>

namespace popcloud {
namespace {

// Half of a second-level cache of 256 KB, the smallest that is common: the other half is for what is read.
constexpr size_t kTileBytes = 128 << 10;
constexpr size_t kFewestRows = 64, kMostRows = 1024;
constexpr size_t kNone = SIZE_MAX;

class Planner {
 public:
  Planner(const Program& program, const std::vector<SceneLayer>& layers, bool fuse)
      : program_(program), layers_(layers), fuse_(fuse), group_of_(program.steps.size(), kNone) {
    readers_.resize(program.values.size());
    for (size_t s = 0; s < program.steps.size(); ++s)
      for (size_t i = 0; i < program.steps[s].inputs.size(); ++i)
        readers_[program.steps[s].inputs[i]].push_back({s, i});
  }

  ScenePlan make() {
    for (size_t s = program_.steps.size(); s-- > 0;) {
      group_of_[s] = fuse_ && !ends_a_family(s) ? group_to_join(s) : kNone;
      if (group_of_[s] == kNone) group_of_[s] = s;  // a group is called after its last step
    }
    families_.assign(program_.steps.size(), kNone);
    if (fuse_) gather_families();
    for (size_t s = 0; s < program_.steps.size(); ++s)
      if (group_of_[s] == s) add_group(s);
    find_lifetimes();
    for (SceneGroup& group : plan_.groups) size_up(group);
    return std::move(plan_);
  }

 private:
  struct Reader {
    size_t step, input;
  };

  const Value& value(size_t v) const { return program_.values[v]; }
  const Step& step(size_t s) const { return program_.steps[s]; }
  size_t level(size_t s) const { return value(step(s).output()).level; }

  // Does the step read row r of this input for its row r, and no other one?
  bool row_by_row(const Reader& reader) const {
    const Op op = step(reader.step).op;
    if (op == Op::kSiteMean || op == Op::kUnpool || (is_convolution(op) && reader.input == 0)) return false;
    return value(step(reader.step).inputs[reader.input]).level == level(reader.step);
  }

  // The group that alone reads all that step s writes, row by row; none if there is no such.
  size_t group_to_join(size_t s) const {
    size_t found = kNone;
    for (size_t v : step(s).outputs)
      for (const Reader& reader : readers_[v]) {
        const size_t group = group_of_[reader.step];
        if (!row_by_row(reader) || (found != kNone && found != group)) return kNone;
        found = group;
      }
    return s + 1 == program_.steps.size() ? kNone : found;
  }

  // A mean over children that is the only reader of its input can run with the step that makes the children.
  bool ends_a_family(size_t s) const {
    const size_t input = step(s).inputs[0];
    return step(s).op == Op::kSiteMean && readers_[input].size() == 1 && input != 0;
  }

  void gather_families() {
    for (size_t s = 0; s + 1 < program_.steps.size(); ++s) {
      if (!ends_a_family(s)) continue;
      const size_t maker = maker_of(step(s).inputs[0]);
      if (group_of_[maker] == kNone) continue;  // a mean of means: it walks alone
      families_[s] = group_of_[maker];
      group_of_[s] = kNone;
    }
  }

  size_t maker_of(size_t v) const {
    for (size_t s = 0;; ++s)
      if (std::find(step(s).outputs.begin(), step(s).outputs.end(), v) != step(s).outputs.end()) return s;
  }

  void add_group(size_t root) {
    SceneGroup group;
    group.level = level(root);
    for (size_t s = 0; s <= root; ++s)
      if (group_of_[s] == root) group.steps.push_back(s);
    for (size_t s = 0; s < families_.size(); ++s)
      if (families_[s] == root) group.steps.push_back(s), group.families = true;
    plan_.groups.push_back(std::move(group));
  }

  void find_lifetimes() {
    const size_t values = program_.values.size();
    plan_.written.assign(values, 0), plan_.read.assign(values, 0), plan_.scratch.assign(values, kStored);
    for (size_t g = 0; g < plan_.groups.size(); ++g)
      for (size_t s : plan_.groups[g].steps) {
        for (size_t v : step(s).outputs) plan_.written[v] = plan_.read[v] = g;
        for (size_t v : step(s).inputs) plan_.read[v] = std::max(plan_.read[v], g);
      }
    plan_.read[program_.steps.back().output()] = plan_.groups.size();
  }

  // Values that nobody outside the group reads live in its tiles.
  void size_up(SceneGroup& group) {
    size_t widest = 0;
    for (size_t s : group.steps) {
      widest = std::max(widest, layers_[s].channels);
      if (group.steps.size() == 1) continue;
      for (size_t v : step(s).outputs)
        if (plan_.read[v] == plan_.written[v] && !readers_[v].empty() &&
            v != program_.steps.back().output()) {
          plan_.scratch[v] = group.row_bytes;
          group.row_bytes += value(v).row_bytes();
        }
    }
    group.row_bytes += sizeof(float) * widest;
    group.tile_rows = std::clamp(kTileBytes / group.row_bytes / 16 * 16, kFewestRows, kMostRows);
  }

  const Program& program_;
  const std::vector<SceneLayer>& layers_;
  const bool fuse_;
  std::vector<std::vector<Reader>> readers_;  // by value
  std::vector<size_t> group_of_;              // by step: the last step of its group
  std::vector<size_t> families_;              // by step: the group that it ends
  ScenePlan plan_;
};

struct Block {
  size_t offset, bytes;
};

// The lowest gap of `bytes` between blocks in use.
size_t lowest_gap(std::vector<Block>& used, size_t bytes) {
  std::sort(used.begin(), used.end(), [](const Block& a, const Block& b) { return a.offset < b.offset; });
  size_t at = 0;
  for (const Block& block : used) {
    if (block.offset >= at + bytes) break;
    at = std::max(at, block.offset + block.bytes);
  }
  return at;
}

}  // namespace

ScenePlan make_scene_plan(const Program& program, const std::vector<SceneLayer>& layers, bool fuse) {
  return Planner(program, layers, fuse).make();
}

Arena lay_out(const Program& program, const ScenePlan& plan, const std::vector<size_t>& sites) {
  const size_t values = program.values.size();
  auto bytes_of = [&](size_t v) {
    const Value& value = program.values[v];
    return (value.row_bytes() * sites[value.level] + 63) / 64 * 64;
  };
  std::vector<size_t> order;
  for (size_t v = 1; v < values; ++v)
    if (plan.scratch[v] == kStored) order.push_back(v);
  // The largest first: what is small then fills the gaps.
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return bytes_of(a) > bytes_of(b); });
  Arena arena;
  arena.offset.assign(values, 0);
  for (size_t i = 0; i < order.size(); ++i) {
    std::vector<Block> used;
    for (size_t j = 0; j < i; ++j) {
      const size_t v = order[j];
      if (plan.written[v] <= plan.read[order[i]] && plan.written[order[i]] <= plan.read[v])
        used.push_back({arena.offset[v], bytes_of(v)});
    }
    arena.offset[order[i]] = lowest_gap(used, bytes_of(order[i]));
    arena.bytes = std::max(arena.bytes, arena.offset[order[i]] + bytes_of(order[i]));
  }
  return arena;
}

}  // namespace popcloud
