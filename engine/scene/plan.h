// What can be decided before a network on a grid sees a scene: which steps run together, tile of rows by tile
// of rows, and which values are ever stored whole.
#pragma once
#include <vector>

#include "scene/layers.h"

namespace popcloud {

constexpr size_t kStored = SIZE_MAX;

// Steps that walk over the sites of a level together. A step whose answer is only read row by row, all by one
// group, joins that group, and its answer lives as long as a tile. The mean over the sites of a parent joins
// the group that makes the sites, if tiles don't cut families apart.
struct SceneGroup {
  std::vector<size_t> steps;  // in the order in which they run
  size_t level = 0;           // of the rows that are walked
  bool families = false;      // tiles hold all children of their parents
  size_t row_bytes = 0;       // of the values that live in the tile, and of the sums
  size_t tile_rows = 0;       // at most; with families, up to 7 more
};

struct ScenePlan {
  std::vector<SceneGroup> groups;     // in the order in which they run
  std::vector<size_t> scratch;        // by value: bytes per row of those before it in the tile, or kStored
  std::vector<size_t> written, read;  // by value: the groups that write it and that read it last
};

// Groups of one step each where `fuse` is false.
ScenePlan make_scene_plan(const Program& program, const std::vector<SceneLayer>& layers, bool fuse);

// Where stored values lie in one piece of memory, used again by lifetime.
struct Arena {
  std::vector<size_t> offset;  // by value, bytes; 0 for those in tiles, and value 0
  size_t bytes = 0;
};

// `sites` by level.
Arena lay_out(const Program& program, const ScenePlan& plan, const std::vector<size_t>& sites);

}  // namespace popcloud
