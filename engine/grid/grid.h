// Active sites of a cloud and who is whose neighbour: the fast twin of src/popcloud/geometry, equal to it
// element for element, for any number of threads.
#pragma once
#include <bitset>
#include <vector>

#include "kernels/kernels.h"
#include "memory.h"
#include "threads.h"

namespace popcloud {

constexpr size_t kMostSites = size_t{1} << 22;  // of one level; rows of sites fit the entries of a Gather

struct Site {
  int32_t x, y, z;
};

// voxels.py, voxelize: sites in Morton order, and the row of each point's site.
struct Voxels {
  Array<Site> sites;
  Array<int32_t> point_to_site;
  double sorting;  // seconds that putting the sites in order took
};

// Throws Error(kCloud) for what voxels.voxelize refuses, in the same words. xyz is (points, 3), most_sites at
// most 2^25.
Voxels voxelize(const float* xyz, size_t points, double edge, size_t most_sites, Pool& pool, Ledger* ledger);

// Between a level and the next coarser one. Children of a site are side by side.
struct Links {
  Array<uint32_t> first_child;  // (coarse + 1): the children of site i are rows first_child[i] .. [i + 1] - 1
  Array<uint32_t> up;           // (fine): the parent's row times 128 plus 4 (x & 1) + 2 (y & 1) + (z & 1)
};

// kernel_map.py, strided: the parents of sites, in Morton order, and how the two levels hang together.
Array<Site> parents(const Array<Site>& sites, Links& links, Pool& pool, Ledger* ledger);

// The neighbours of each site as a Gather wants them: entries of a row ascend in their offset.
struct Neighbours {
  Array<uint32_t> begin;  // (sites + 1)
  Array<uint32_t> entries;

  Gather rows(size_t first, size_t last) const {
    return {begin.data() + first, entries.data(), last - first};
  }
};

using Offsets = std::bitset<kMostOffsets>;

// kernel_map.py, submanifold: active sites among the size^3 around each site, size 3 or 5, numbered in
// lexicographic order, x slowest; only those in `wanted`. Throws std::invalid_argument for sites that are not
// unique and in Morton order, or spread over more than 2^20 along an axis.
Neighbours neighbours(const Array<Site>& sites, int size, const Offsets& wanted, Pool& pool, Ledger* ledger);

// The entries of a Gather as pairs sorted by offset, as KernelMap of kernel_map.py has them, for Python.
struct Pairwise {
  Array<int32_t> inputs, outputs;
  std::vector<int64_t> ranges;  // (offsets, 2)
};
Pairwise by_offset(const Gather& rows, size_t offsets, Pool& pool, Ledger* ledger = nullptr);

}  // namespace popcloud
