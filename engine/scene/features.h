// What a network on a voxel grid reads of each point, and its means over sites: the fast twin of
// src/popcloud/geometry/inputs.py and of mean_features in voxels.py.
#pragma once
#include <string>
#include <vector>

#include "engine.h"
#include "grid/grid.h"

namespace popcloud {

// Is the column of this name made from the points themselves ("one", "height")?
bool is_computed(const std::string& name);

// Throws Error(kCloud), as inputs.py does, unless the scene has the columns of these names and all are
// finite.
void check_features(const Scene& scene, const std::vector<std::string>& names);

// Value 0 (sites, names): means over the points of each site, column by column, so that computed columns of
// all points are never there together.
Array<float> first_value(const Scene& scene, const std::vector<std::string>& names, const Voxels& voxels,
                         Pool& pool, Ledger* ledger);

}  // namespace popcloud
