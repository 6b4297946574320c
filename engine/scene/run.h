// A network on a voxel grid, ready for scenes: from points to answers.
#pragma once
#include <memory>

#include "engine.h"
#include "scene/tile.h"

namespace popcloud {

struct OpenScene {
  SceneGeometry geometry;
};

// Rows of the answer, and the memory they lie in.
struct SiteAnswers {
  Array<uint8_t> memory;
  const float* rows;  // (sites of level 0, classes)
};

class SceneEngine {
 public:
  SceneEngine(const Program& program, const KernelTable& table, bool fuse);

  // Voxels, value 0 and kernel maps. Adds to the parts of `profile`, if there is one.
  SceneGeometry open(const Scene& scene, Pool& pool, SceneProfile* profile);
  SiteAnswers run(const SceneGeometry& at, Pool& pool, SceneTimes* times);
  void step(const SceneGeometry& at, size_t index, const void* const* inputs, void* const* outputs,
            Pool& pool);
  // A point's label is the class with the largest answer of its site, as KernelTable::largest says.
  void spread_labels(const SceneGeometry& at, const float* rows, Pool& pool, int64_t* labels);

  void start() { ledger_.reset(); }
  size_t peak() const;  // since start(), and what the threads keep
  size_t held() const;  // now
  size_t planned(const std::vector<size_t>& sites) const;

 private:
  size_t spaces() const;  // bytes that the threads keep
  void run_group(const SceneRun& run, const SceneGroup& group, Pool& pool, SceneTimes* times);

  const Program& program_;
  const KernelTable& table_;
  Ledger ledger_;
  std::vector<LevelOffsets> offsets_;
  std::vector<SceneLayer> layers_;
  ScenePlan plan_, alone_;  // alone_: a group per step
  std::vector<TileSpace> spaces_;
};

// A point's answer is that of its site.
void spread_answers(const SceneGeometry& at, const float* rows, size_t classes, Pool& pool, float* answers);

}  // namespace popcloud
