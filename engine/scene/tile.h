// Run one group of steps over some rows of sites.
#pragma once
#include <chrono>
#include <vector>

#include "scene/plan.h"

namespace popcloud {

// The geometry of one scene, as a network asks for it, and what goes into the network.
struct SceneGeometry {
  std::vector<size_t> sites;      // by level
  std::vector<Neighbours> lists;  // by level; without entries where no layer stays on the level
  std::vector<Links> links;       // links[l] is between levels l and l + 1
  Array<int32_t> point_to_site;
  Array<float> first;  // value 0: (sites[0], features)
};

// Seconds, where somebody wants to know.
struct SceneTimes {
  double convolutions = 0, epilogues = 0;
  std::vector<double> steps;
};

// What all tiles of one run share.
struct SceneRun {
  const Program& program;
  const std::vector<SceneLayer>& layers;
  const KernelTable& table;
  const SceneGeometry& at;
  const ScenePlan& plan;
  std::vector<uint8_t*> stored;  // by value: where its rows start; null for those in tiles

  // Rows [first, last) of the group's level, and the parents of those rows.
  struct Rows {
    size_t first, last, first_parent, last_parent;
  };
};

// What one thread needs.
struct TileSpace {
  Buffer values, sums, entries, begin, pairs;
  Scratch scratch;
  SceneTimes* times = nullptr;

  size_t bytes() const {
    return values.bytes() + sums.bytes() + entries.bytes() + begin.bytes() + pairs.bytes() + scratch.bytes();
  }
};

void run_tile(const SceneRun& run, const SceneGroup& group, const SceneRun::Rows& rows, TileSpace& space);

}  // namespace popcloud
