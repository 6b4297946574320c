// Geometry in C++ against the plainest way to say the same: sites in a map, each neighbour looked up by
// itself. Exit code 1 if something does not hold.
#include <array>
#include <cmath>
#include <map>
#include <set>
#include <stdexcept>

#include "grid/grid.h"
#include "grid/lookup.h"
#include "model_writer.h"

using namespace popcloud;
using namespace popcloud::tests;

namespace {

using Cell = std::array<int32_t, 3>;

Cell cell(const Site& site) { return {site.x, site.y, site.z}; }

std::vector<float> cloud(size_t points, float scale, float middle, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> xyz(3 * points);
  for (float& x : xyz) x = middle + scale * normal(rng);
  return xyz;
}

void check_voxels(const std::vector<float>& xyz, double edge, const Voxels& made, const std::string& name) {
  std::set<Cell> active;
  bool right = made.point_to_site.size() == xyz.size() / 3;
  for (size_t i = 0; i < xyz.size() / 3; ++i) {
    Cell own;
    for (size_t axis = 0; axis < 3; ++axis)
      own[axis] = static_cast<int32_t>(std::floor(static_cast<double>(xyz[3 * i + axis]) / edge));
    active.insert(own);
    right = right && cell(made.sites[static_cast<size_t>(made.point_to_site[i])]) == own;
  }
  check(right && made.sites.size() == active.size(),
        name + ": each point lies in its site, no site is empty");
}

// The entries of all sites, looked up one by one.
std::vector<uint32_t> looked_up(const Array<Site>& sites, int size, const Offsets& wanted,
                                std::vector<uint32_t>& begin) {
  std::map<Cell, uint32_t> row_of;
  for (uint32_t row = 0; row < sites.size(); ++row) row_of[cell(sites[row])] = row;
  std::vector<uint32_t> entries;
  for (const Site& site : sites) {
    begin.push_back(static_cast<uint32_t>(entries.size()));
    for (int k = 0; k < size * size * size; ++k) {
      const int reach = size / 2;
      const auto found = row_of.find(
          {site.x + k / (size * size) - reach, site.y + k / size % size - reach, site.z + k % size - reach});
      if (wanted[static_cast<size_t>(k)] && found != row_of.end())
        entries.push_back(found->second << kOffsetBits | static_cast<uint32_t>(k));
    }
  }
  begin.push_back(static_cast<uint32_t>(entries.size()));
  return entries;
}

bool equal(const Array<uint32_t>& made, const std::vector<uint32_t>& wanted) {
  return made.size() == wanted.size() && std::equal(wanted.begin(), wanted.end(), made.begin());
}

void check_neighbours(const Array<Site>& sites, const std::string& name) {
  std::mt19937 rng(5);
  for (int size : {3, 5})
    for (int share :
         {0, 1, 30, 60, 100}) {  // per cent of the offsets; the one in the middle is there from 1 on
      Offsets wanted;
      const size_t offsets = static_cast<size_t>(size * size * size);
      for (size_t k = 0; k < offsets; ++k) wanted[k] = rng() % 100 < static_cast<unsigned>(share);
      if (share) wanted.set(offsets / 2);
      std::vector<uint32_t> begin;
      const std::vector<uint32_t> entries = looked_up(sites, size, wanted, begin);
      for (int threads : {1, 2, 3}) {
        Pool pool(threads);
        Ledger ledger;
        const Neighbours made = neighbours(sites, size, wanted, pool, &ledger);
        check(equal(made.begin, begin) && equal(made.entries, entries),
              name + ": neighbours of " + std::to_string(offsets) + " offsets, " + std::to_string(share) +
                  " % of them, " + std::to_string(threads) + " threads");
      }
    }
}

// Every way to look up writes the same. A table that is full, one that is empty, and any between.
void test_look_ups() {
  constexpr int kSide = 12;
  std::mt19937 rng(7);
  const int32_t middle[1] = {(6 * kSide + 6) * kSide + 6};
  const uint16_t places[1] = {0};
  for (unsigned share : {0u, 10u, 50u, 90u, 100u}) {
    std::vector<uint32_t> table(kSide * kSide * kSide + kSlack, kAbsent);
    for (size_t i = 0; i < table.size(); ++i)
      if (rng() % 100 < share) table[i] = static_cast<uint32_t>(i) << kOffsetBits;
    Offsets wanted;
    for (size_t k = 0; k < kMostOffsets; ++k) wanted[k] = rng() % 3 > 0;
    const Steps steps(5, kSide, wanted);
    std::vector<uint32_t> plain(kMostOffsets + kSlack), fast(kMostOffsets + kSlack);
    uint32_t begin = 7;
    const Around around{table.data(), middle, places};
    const size_t n = enter_portable(around, steps, 0, 1, &begin, plain.data(), 0);
    const size_t m = choose_enter()(around, steps, 0, 1, &begin, fast.data(), 0);
    check(
        n == m && std::equal(plain.begin(), plain.begin() + static_cast<long>(n), fast.begin()) && begin == 0,
        "look-ups in a table, " + std::to_string(share) + " % full");
  }
}

void check_links(const Array<Site>& sites, const std::string& name) {
  for (int threads : {1, 2, 3}) {
    Pool pool(threads);
    Ledger ledger;
    Links links;
    const Array<Site> coarse = parents(sites, links, pool, &ledger);
    bool right = links.first_child[0] == 0 && links.first_child[coarse.size()] == sites.size();
    std::set<Cell> distinct;
    for (uint32_t row = 0; row < coarse.size(); ++row) {
      distinct.insert(cell(coarse[row]));
      right = right && links.first_child[row] < links.first_child[row + 1];
      for (uint32_t i = links.first_child[row]; i < links.first_child[row + 1]; ++i) {
        const Site& site = sites[i];
        const uint32_t code = static_cast<uint32_t>(4 * (site.x & 1) + 2 * (site.y & 1) + (site.z & 1));
        right = right && links.up[i] == (row << kOffsetBits | code) &&
                cell(coarse[row]) == Cell{site.x >> 1, site.y >> 1, site.z >> 1};
      }
    }
    check(right && distinct.size() == coarse.size(),
          name + ": children and parents, " + std::to_string(threads) + " threads");
  }
}

void check_cloud(const std::vector<float>& xyz, double edge, const std::string& name) {
  Pool one(1);
  const Voxels first = voxelize(xyz.data(), xyz.size() / 3, edge, kMostSites, one, nullptr);
  check_voxels(xyz, edge, first, name);
  for (int threads : {2, 3}) {
    Pool pool(threads);
    Ledger ledger;
    const Voxels made = voxelize(xyz.data(), xyz.size() / 3, edge, kMostSites, pool, &ledger);
    bool same =
        made.sites.size() == first.sites.size() &&
        std::equal(first.point_to_site.begin(), first.point_to_site.end(), made.point_to_site.begin());
    for (size_t i = 0; same && i < made.sites.size(); ++i) same = cell(made.sites[i]) == cell(first.sites[i]);
    check(same, name + ": the same sites with " + std::to_string(threads) + " threads");
  }
  check_neighbours(first.sites, name);
  check_links(first.sites, name);
}

template <class Thrown>
void check_refused(const std::vector<float>& xyz, double edge, size_t most, const std::string& line) {
  Pool pool(2);
  try {
    voxelize(xyz.data(), xyz.size() / 3, edge, most, pool, nullptr);
    check(false, "not refused: " + line);
  } catch (const Thrown& error) {
    check(std::string(error.what()).find(line) != std::string::npos, line + ", found: " + error.what());
  }
}

void test_refusals() {
  const float nan = std::nanf("");
  check_refused<Error>({}, 1, 8, "expected at least one point, found none");
  check_refused<Error>({0, nan, 0, 1, 1, 1}, 1, 8, "1 of 2 points are not finite");
  check_refused<Error>({0, 0, 0}, -0.5, 8, "voxel edge -0.5: expected a positive number of metres");
  check_refused<Error>({0, 0, 0}, 1, 7, "max_sites 7: expected at least 8");
  check_refused<Error>({0, 0, 0, 1e7f, 0, 0}, 1e-3, 8, "puts a point 1e+10 sites from zero");
  check_refused<Error>({-1e6f, 0, 0, 1e6f, 0, 0}, 1, 8, "spreads the cloud over 2000001 sites along an axis");
  check_refused<Error>(cloud(500, 1, 0, 1), 1e-3, 100,
                       "gives 500 sites, at most 100 are allowed; an edge of");
  Pool pool(1);
  Array<Site> sites(2);
  sites[0] = {1, 0, 0};
  sites[1] = {0, 0, 0};
  try {
    neighbours(sites, 3, Offsets().set(), pool, nullptr);
    check(false, "sites in no order are refused");
  } catch (const std::invalid_argument&) {
    check(true, "sites in no order are refused");
  }
}

}  // namespace

int main() {
  check_cloud(cloud(1, 1, 0, 1), 0.1, "one point");
  check_cloud(cloud(300, 0, 0.5f, 2), 1, "all points in one voxel");
  check_cloud(cloud(3000, 1, 0, 3), 0.25, "around zero");
  check_cloud(cloud(3000, 1, 0, 4), 0.04, "few neighbours");
  check_cloud(cloud(1000, 20, 1e7f, 5), 2, "10^7 m away");
  check_cloud(cloud(1000, 20, -1e7f, 6), 2, "-10^7 m away");
  check_cloud(cloud(1000, 1e6f, 0, 7), 50, "far apart");
  test_look_ups();
  test_refusals();
  return finish();
}
