#include "scene/run.h"

#include <algorithm>

#include "scene/features.h"

namespace popcloud {
namespace {

constexpr size_t kTilesPerThread = 4;  // so that threads end about together
constexpr size_t kFewestRows = 32;     // below these, meeting again costs more than the work
constexpr size_t kPointGrain = 4096;

// Calls work(i) for each i in [0, count), each once; who is free takes the next.
template <class Work>
void share(Pool& pool, size_t count, const Work& work) {
  std::atomic<size_t> next{0};
  auto take = [&](size_t thread) {
    for (size_t i = next++; i < count; i = next++) work(i, thread);
  };
  if (count > 1)
    pool.run(take);
  else
    take(0);
}

// Seconds since the last call.
class Lap {
 public:
  double operator()() {
    const Clock::time_point now = Clock::now(), before = std::exchange(last_, now);
    return std::chrono::duration<double>(now - before).count();
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point last_ = Clock::now();
};

// The tiles of a group over the sites of its level. Tiles of families end where a family does.
class Tiles {
 public:
  Tiles(const SceneGroup& group, const SceneGeometry& at, size_t threads)
      : sites_(at.sites[group.level]),
        links_(group.families ? &at.links[group.level] : nullptr),
        rows_(group.tile_rows) {
    if (threads > 1) {
      const size_t even = sites_ / (threads * kTilesPerThread) / 16 * 16 + 16;
      rows_ = std::min(rows_, std::max(even, kFewestRows));
    }
  }

  size_t count() const { return (sites_ + rows_ - 1) / rows_; }

  SceneRun::Rows operator[](size_t i) const {
    const size_t first = std::min(i * rows_, sites_), last = std::min(first + rows_, sites_);
    if (!links_) return {first, last, 0, 0};
    const size_t p = parent_from(first), q = parent_from(last);
    return {links_->first_child[p], links_->first_child[q], p, q};
  }

 private:
  // The first parent whose children start at `row` or behind.
  size_t parent_from(size_t row) const {
    const Array<uint32_t>& first = links_->first_child;
    return static_cast<size_t>(std::lower_bound(first.begin(), first.end(), row) - first.begin());
  }

  const size_t sites_;
  const Links* links_;
  size_t rows_;
};

void check_points(const Scene& scene) {
  if (scene.points < 1 || scene.points > INT32_MAX)
    throw Error(Fault::kCloud, "a scene has " + std::to_string(scene.points) +
                                   " points, expected 1 to 2^31 - 1; run it in tiles");
}

}  // namespace

SceneEngine::SceneEngine(const Program& program, const KernelTable& table, bool fuse)
    : program_(program),
      table_(table),
      offsets_(level_offsets(program)),
      layers_(scene_layers(program, offsets_, table)),
      plan_(make_scene_plan(program, layers_, fuse)),
      alone_(make_scene_plan(program, layers_, false)) {}

SceneGeometry SceneEngine::open(const Scene& scene, Pool& pool, SceneProfile* profile) {
  check_points(scene);
  check_features(scene, program_.features);
  SceneProfile nobody{};
  SceneProfile& times = profile ? *profile : nobody;
  Lap lap;
  Voxels voxels = voxelize(scene.xyz, scene.points, program_.grid->edge, kMostSites, pool, &ledger_);
  times.voxelise += lap() - voxels.sorting, times.sort += voxels.sorting;
  SceneGeometry at;
  at.first = first_value(scene, program_.features, voxels, pool, &ledger_);
  times.features += lap();
  Array<Site> sites = std::move(voxels.sites);
  for (size_t level = 0;; ++level) {
    at.sites.push_back(sites.size());
    const LevelOffsets& offsets = offsets_[level];
    at.lists.push_back(offsets.wanted.any() ? neighbours(sites, offsets.size, offsets.wanted, pool, &ledger_)
                                            : Neighbours{});
    if (level + 1 == program_.grid->levels) break;
    at.links.emplace_back();
    sites = parents(sites, at.links.back(), pool, &ledger_);
  }
  times.maps += lap();
  at.point_to_site = std::move(voxels.point_to_site);
  return at;
}

SiteAnswers SceneEngine::run(const SceneGeometry& at, Pool& pool, SceneTimes* times) {
  const Arena arena = lay_out(program_, plan_, at.sites);
  Array<uint8_t> memory(arena.bytes, &ledger_);
  SceneRun run{program_, layers_, table_, at, plan_, std::vector<uint8_t*>(program_.values.size())};
  for (size_t v = 1; v < program_.values.size(); ++v)
    if (plan_.scratch[v] == kStored) run.stored[v] = memory.data() + arena.offset[v];
  run.stored[0] = reinterpret_cast<uint8_t*>(const_cast<float*>(at.first.data()));  // nobody writes it
  for (const SceneGroup& group : plan_.groups) run_group(run, group, pool, times);
  const uint8_t* answer = run.stored[program_.steps.back().output()];
  return {std::move(memory), reinterpret_cast<const float*>(answer)};
}

void SceneEngine::step(const SceneGeometry& at, size_t index, const void* const* inputs, void* const* outputs,
                       Pool& pool) {
  const Step& step = program_.steps[index];
  SceneRun run{program_, layers_, table_, at, alone_, std::vector<uint8_t*>(program_.values.size())};
  for (size_t i = 0; i < step.inputs.size(); ++i)
    run.stored[step.inputs[i]] = const_cast<uint8_t*>(static_cast<const uint8_t*>(inputs[i]));
  for (size_t i = 0; i < step.outputs.size(); ++i)
    run.stored[step.outputs[i]] = static_cast<uint8_t*>(outputs[i]);
  run_group(run, alone_.groups[index], pool, nullptr);
}

void SceneEngine::run_group(const SceneRun& run, const SceneGroup& group, Pool& pool, SceneTimes* times) {
  spaces_.resize(std::max(spaces_.size(), pool.size()));
  const Tiles tiles(group, run.at, pool.size());
  share(pool, tiles.count(), [&](size_t i, size_t thread) {
    const SceneRun::Rows rows = tiles[i];
    spaces_[thread].times = times;
    if (rows.first < rows.last) run_tile(run, group, rows, spaces_[thread]);
  });
}

size_t SceneEngine::peak() const { return ledger_.peak() + spaces(); }
size_t SceneEngine::held() const { return ledger_.held() + spaces(); }

size_t SceneEngine::spaces() const {
  size_t bytes = 0;
  for (const TileSpace& space : spaces_) bytes += space.bytes();
  return bytes;
}

size_t SceneEngine::planned(const std::vector<size_t>& sites) const {
  if (sites.size() != program_.grid->levels)
    throw Error(Fault::kEngine, "sites of " + std::to_string(sites.size()) + " levels, expected " +
                                    std::to_string(program_.grid->levels));
  return lay_out(program_, plan_, sites).bytes;
}

void spread_answers(const SceneGeometry& at, const float* rows, size_t classes, Pool& pool, float* answers) {
  const size_t points = at.point_to_site.size();
  share(pool, (points + kPointGrain - 1) / kPointGrain, [&](size_t i, size_t) {
    for (size_t p = i * kPointGrain; p < std::min(points, (i + 1) * kPointGrain); ++p) {
      const float* row = rows + static_cast<size_t>(at.point_to_site[p]) * classes;
      std::copy(row, row + classes, answers + p * classes);
    }
  });
}

void SceneEngine::spread_labels(const SceneGeometry& at, const float* rows, Pool& pool, int64_t* labels) {
  const size_t points = at.point_to_site.size(), sites = at.sites[0], classes = program_.classes.size();
  Array<int32_t> of_site(sites, &ledger_);
  share(pool, (sites + kPointGrain - 1) / kPointGrain, [&](size_t i, size_t) {
    const size_t first = i * kPointGrain, count = std::min(sites - first, kPointGrain);
    table_.largest(rows + first * classes, count, classes, of_site.data() + first);
  });
  share(pool, (points + kPointGrain - 1) / kPointGrain, [&](size_t i, size_t) {
    for (size_t p = i * kPointGrain; p < std::min(points, (i + 1) * kPointGrain); ++p)
      labels[p] = of_site[static_cast<size_t>(at.point_to_site[p])];
  });
}

}  // namespace popcloud
