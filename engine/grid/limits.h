// What voxelize refuses, and what it says then: the twin of the checks in voxels.py.
#pragma once
#include <cstddef>
#include <functional>
#include <string>

#include "grid/grid.h"

namespace popcloud {

// The least and the greatest coordinate of each axis.
struct Ends {
  double low[3], high[3];
};

// Throws Error(kCloud) for a cloud that is empty or not finite, an edge that is no positive number, and a
// limit that a cloud around zero can't keep.
Ends checked_ends(const float* xyz, size_t points, double edge, size_t most_sites, Pool& pool);

// What is wrong with the range of sites, or "".
std::string out_of_grid(const Ends& ends, double edge);

std::string too_many(size_t found, size_t most_sites);

// Throws Error(kCloud): the fault, and an edge of two digits that fits, about the smallest above `edge`. It
// is tried out, not estimated; `count` tells how many sites an edge gives.
[[noreturn]] void refuse_edge(const std::string& fault, const Ends& ends, double edge, size_t most_sites,
                              const std::function<size_t(double)>& count);

}  // namespace popcloud
