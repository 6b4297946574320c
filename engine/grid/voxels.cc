// Points to sites. Each thread collects the blocks of its own points; the blocks, of which there are few, are
// sorted; within a block a site's row is the number of set bits before its own.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "grid/blocks.h"
#include "grid/grid.h"
#include "grid/limits.h"

namespace popcloud {
namespace {

constexpr int kSpanBits = 20;             // a cloud spans at most 2^20 sites along an axis,
constexpr int kAxis = kSpanBits + 1 - 2;  // which are 2^19 blocks, counted from a multiple of 2^20 sites
constexpr size_t kBatch = 256;            // points at a time: what is made of them stays in the first cache
constexpr uint8_t kPlace[4] = {0, 1, 8, 9};  // two bits with two zeros between them

// Where the points of a batch lie: block and place, as Block has them.
struct Cells {
  uint64_t key[kBatch];
  uint8_t place[kBatch];
};

class Lattice {
 public:
  Lattice(const Ends& ends, double edge) : edge_(edge) {
    for (int axis = 0; axis < 3; ++axis)
      origin_[axis] = static_cast<int32_t>(std::floor(ends.low[axis] / edge)) & -(1 << kSpanBits);
  }

  void place(const float* xyz, size_t points, Cells& cells) const {
    int32_t at[3 * kBatch];
    for (size_t i = 0; i < 3 * points; ++i) {
      double quotient = static_cast<double>(xyz[i]) / edge_;
      int32_t whole = static_cast<int32_t>(quotient);
      at[i] = whole - (quotient < static_cast<double>(whole));  // the floor: conversion rounds to zero
    }
    for (size_t i = 0; i < points; ++i) {
      uint64_t x = offset(at[3 * i], 0), y = offset(at[3 * i + 1], 1), z = offset(at[3 * i + 2], 2);
      cells.key[i] = (x >> 2) << 2 * kAxis | (y >> 2) << kAxis | z >> 2;
      cells.place[i] = static_cast<uint8_t>(kPlace[x & 3] << 2 | kPlace[y & 3] << 1 | kPlace[z & 3]);
    }
  }

  Site site(uint64_t key, uint32_t place) const {
    return {coordinate(key >> 2 * kAxis, place >> 2, 0), coordinate(key >> kAxis, place >> 1, 1),
            coordinate(key, place, 2)};
  }

 private:
  uint32_t offset(int32_t at, int axis) const {
    return static_cast<uint32_t>(at) - static_cast<uint32_t>(origin_[axis]);
  }
  int32_t coordinate(uint64_t block, uint32_t place, int axis) const {
    uint64_t offset = (block & ((1 << kAxis) - 1)) << 2 | (place >> 2 & 2) | (place & 1);
    return origin_[axis] + static_cast<int32_t>(offset);
  }

  double edge_;
  int32_t origin_[3];
};

uint64_t morton(uint64_t key) {
  constexpr uint64_t kMask = (1 << kAxis) - 1;
  return spread(key >> 2 * kAxis) << 2 | spread(key >> kAxis & kMask) << 1 | spread(key & kMask);
}

// Adds the points' sites to the table. Writes block number times 64 plus place to `where`, if it is not null.
// Stops, with a table that is too large, where there are more blocks than `most`.
void collect(const Lattice& lattice, const float* xyz, size_t points, size_t most, BlockTable& table,
             uint32_t* where) {
  Cells cells;
  uint64_t last_key = UINT64_MAX;
  uint32_t number = 0;
  for (size_t first = 0; first < points && table.size() <= most; first += kBatch) {
    size_t count = std::min(kBatch, points - first);
    lattice.place(xyz + 3 * first, count, cells);
    for (size_t i = 0; i < count; ++i) {
      if (cells.key[i] != last_key) number = table.add(last_key = cells.key[i]);
      table[number].sites |= uint64_t{1} << cells.place[i];
      if (where) where[first + i] = number << 6 | cells.place[i];
    }
  }
}

// The tables of all threads' points.
using Tables = std::vector<BlockTable>;

Tables collect_all(const Lattice& lattice, const float* xyz, size_t points, size_t most, uint32_t* where,
                   Pool& pool, Ledger* ledger) {
  Tables tables;
  for (size_t thread = 0; thread < pool.size(); ++thread) tables.emplace_back(ledger);
  pool.run([&](size_t thread) {
    Range range = part(points, kBatch, thread, pool.size());
    collect(lattice, xyz + 3 * range.first, range.last - range.first, most, tables[thread],
            where ? where + range.first : nullptr);
  });
  return tables;
}

// The blocks of all tables in Morton order, each once, with all of its sites.
struct Merged {
  Array<Block> blocks;
  Array<uint32_t> first;  // (count + 1): the row of each block's first site
  size_t count = 0;
};

// Numbers the sites. A block of the tables becomes: key = the row of its first site, sites = those of all
// tables.
Merged merge(Tables& tables, Ledger* ledger) {
  size_t total = 0, at = 0;
  for (const BlockTable& table : tables) total += table.size();
  Array<Keyed> order(total, ledger);
  Array<Block*> all(total, ledger);
  for (BlockTable& table : tables)
    for (size_t i = 0; i < table.size(); ++i, ++at) {
      all[at] = &table[i];
      order[at] = {morton(table[i].key), at};
    }
  order = sorted(std::move(order), ledger);
  Merged merged{Array<Block>(total, ledger), Array<uint32_t>(total + 1, ledger)};
  uint64_t sites = 0;
  for (size_t begin = 0, end = 0; begin < total; begin = end) {
    Block block{all[order[begin].index]->key, 0};
    while (end < total && order[end].key == order[begin].key) block.sites |= all[order[end++].index]->sites;
    for (size_t i = begin; i < end; ++i) *all[order[i].index] = {sites, block.sites};
    merged.first[merged.count] = static_cast<uint32_t>(sites);
    merged.blocks[merged.count++] = block;
    sites += count_bits(block.sites);
  }
  merged.first[merged.count] = static_cast<uint32_t>(sites);
  return merged;
}

size_t count_sites(const Ends& ends, const float* xyz, size_t points, double edge, Pool& pool,
                   Ledger* ledger) {
  Tables tables = collect_all(Lattice(ends, edge), xyz, points, SIZE_MAX, nullptr, pool, ledger);
  Merged merged = merge(tables, ledger);
  return merged.first[merged.count];
}

Array<Site> sites_of(const Lattice& lattice, const Merged& merged, Pool& pool, Ledger* ledger) {
  Array<Site> sites(merged.first[merged.count], ledger);
  pool.run([&](size_t thread) {
    Range range = part(merged.count, 1, thread, pool.size());
    for (size_t i = range.first; i < range.last; ++i) {
      Site* out = sites.data() + merged.first[i];
      for (uint64_t left = merged.blocks[i].sites; left; left &= left - 1)
        *out++ = lattice.site(merged.blocks[i].key, static_cast<uint32_t>(__builtin_ctzll(left)));
    }
  });
  return sites;
}

// From block number and place, as collect left them, to rows of sites.
void number_points(Tables& tables, Array<int32_t>& point_to_site, Pool& pool) {
  pool.run([&](size_t thread) {
    Range range = part(point_to_site.size(), kBatch, thread, pool.size());
    BlockTable& table = tables[thread];
    for (size_t i = range.first; i < range.last; ++i) {
      uint32_t where = static_cast<uint32_t>(point_to_site[i]);
      const Block& block = table[where >> 6];
      uint64_t before = block.sites & ((uint64_t{1} << (where & 63)) - 1);
      point_to_site[i] = static_cast<int32_t>(block.key + count_bits(before));
    }
  });
}

bool within(const Tables& tables, size_t most) {
  return std::all_of(tables.begin(), tables.end(), [&](const auto& table) { return table.size() <= most; });
}

}  // namespace

Voxels voxelize(const float* xyz, size_t points, double edge, size_t most_sites, Pool& pool, Ledger* ledger) {
  const Ends ends = checked_ends(xyz, points, edge, most_sites, pool);
  auto count = [&](double tried) { return count_sites(ends, xyz, points, tried, pool, ledger); };
  std::string fault = out_of_grid(ends, edge);
  if (fault.empty()) {
    const Lattice lattice(ends, edge);
    Array<int32_t> where(points, ledger);
    Tables tables = collect_all(lattice, xyz, points, most_sites, reinterpret_cast<uint32_t*>(where.data()),
                                pool, ledger);
    if (within(tables, most_sites)) {
      const auto start = std::chrono::steady_clock::now();
      Merged merged = merge(tables, ledger);
      if (merged.first[merged.count] <= most_sites) {
        Array<Site> sites = sites_of(lattice, merged, pool, ledger);
        const std::chrono::duration<double> sorting = std::chrono::steady_clock::now() - start;
        number_points(tables, where, pool);
        return {std::move(sites), std::move(where), sorting.count()};
      }
    }
    fault = too_many(count(edge), most_sites);
  }
  refuse_edge(fault, ends, edge, most_sites, count);
}

}  // namespace popcloud
