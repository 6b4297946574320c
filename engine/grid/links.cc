// From a level to the next coarser one. Sites are in Morton order, so the children of a parent are a run.
#include <algorithm>
#include <vector>

#include "grid/grid.h"

namespace popcloud {
namespace {

constexpr size_t kGrain = 1024;

Site parent_of(const Site& site) { return {site.x >> 1, site.y >> 1, site.z >> 1}; }

bool starts_run(const Array<Site>& sites, size_t i) {
  if (i == 0) return true;
  Site one = parent_of(sites[i - 1]), two = parent_of(sites[i]);
  return one.x != two.x || one.y != two.y || one.z != two.z;
}

// How many runs start before each thread's part; the last number is that of all runs.
std::vector<size_t> runs_before(const Array<Site>& sites, Pool& pool) {
  std::vector<size_t> before(pool.size() + 1);
  pool.run([&](size_t thread) {
    Range range = part(sites.size(), kGrain, thread, pool.size());
    size_t runs = 0;
    for (size_t i = range.first; i < range.last; ++i) runs += starts_run(sites, i);
    before[thread + 1] = runs;
  });
  for (size_t i = 0; i < pool.size(); ++i) before[i + 1] += before[i];
  return before;
}

}  // namespace

Array<Site> parents(const Array<Site>& sites, Links& links, Pool& pool, Ledger* ledger) {
  std::vector<size_t> before = runs_before(sites, pool);
  Array<Site> coarse(before.back(), ledger);
  links = {Array<uint32_t>(coarse.size() + 1, ledger), Array<uint32_t>(sites.size(), ledger)};
  pool.run([&](size_t thread) {
    Range range = part(sites.size(), kGrain, thread, pool.size());
    size_t row = before[thread];
    for (size_t i = range.first; i < range.last; ++i) {
      if (starts_run(sites, i)) {
        coarse[row] = parent_of(sites[i]);
        links.first_child[row++] = static_cast<uint32_t>(i);
      }
      uint32_t code = static_cast<uint32_t>((sites[i].x & 1) << 2 | (sites[i].y & 1) << 1 | (sites[i].z & 1));
      links.up[i] = static_cast<uint32_t>(row - 1) << kOffsetBits | code;
    }
  });
  links.first_child[coarse.size()] = static_cast<uint32_t>(sites.size());
  return coarse;
}

}  // namespace popcloud
