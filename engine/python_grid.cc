// Geometry for popcloud._engine: what src/popcloud/geometry does in numpy, element for element.
#include "python_grid.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <string>
#include <utility>

#include "engine.h"
#include "grid/grid.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace popcloud {
namespace {

using Points = nb::ndarray<const float, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu>;
using Sites = nb::ndarray<const int32_t, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<nb::numpy, int32_t>;
using Rows = nb::ndarray<nb::numpy, uint32_t>;
using Longs = nb::ndarray<nb::numpy, int64_t>;

constexpr size_t kMostMade = size_t{1} << 25;  // sites of voxelize
constexpr size_t kMostRows = size_t{1} << 24;  // times 128 they leave the bit free that says: nobody here

void require(bool holds, const std::string& what) {
  if (!holds) throw Error(Fault::kEngine, what);
}

// Helpers start with every call: a loader process that never asks for a second thread never has one.
Pool pool_of(int threads) {
  require(threads >= 1 && threads <= 1024, "threads must be 1 to 1024, found " + std::to_string(threads));
  return Pool(threads);
}

// An array that Python owns from now on; the elements stay where they are.
template <class Out, class T>
Out give(T made, std::initializer_list<size_t> shape) {
  auto* kept = new T(std::move(made));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<T*>(p); });
  return Out(static_cast<void*>(kept->data()), shape, owner);
}

Ints give_ints(Array<int32_t> made) {
  const size_t count = made.size();
  return give<Ints>(std::move(made), {count});
}

Ints give_sites(Array<Site> made) {
  const size_t count = made.size();
  return give<Ints>(std::move(made), {count, 3});
}

Longs give_ranges(std::vector<int64_t> made) {
  const size_t count = made.size() / 2;
  return give<Longs>(std::move(made), {count, 2});
}

void check_size(int size) {
  require(size == 3 || size == 5, "kernel size " + std::to_string(size) + ": expected one of 3, 5");
}

Array<Site> copied(const Sites& sites) {
  require(sites.shape(0) <= kMostRows,
          "at most 2^24 sites, found " + std::to_string(sites.shape(0)) + "; use a larger voxel edge");
  Array<Site> copy(sites.shape(0));
  std::copy(sites.data(), sites.data() + 3 * copy.size(), reinterpret_cast<int32_t*>(copy.data()));
  return copy;
}

nb::tuple voxelize_points(const Points& xyz, double edge, size_t max_sites, int threads) {
  Voxels made;
  {
    nb::gil_scoped_release free;
    require(max_sites <= kMostMade, "max_sites must be at most 2^25, found " + std::to_string(max_sites));
    Pool pool = pool_of(threads);
    made = voxelize(xyz.data(), xyz.shape(0), edge, max_sites, pool, nullptr);
  }
  return nb::make_tuple(give_sites(std::move(made.sites)), give_ints(std::move(made.point_to_site)));
}

nb::tuple find_neighbours(const Sites& sites, int size, int threads) {
  Neighbours made;
  {
    nb::gil_scoped_release free;
    check_size(size);
    Pool pool = pool_of(threads);
    made = neighbours(copied(sites), size, Offsets().set(), pool, nullptr);
  }
  const size_t rows = made.begin.size(), entries = made.entries.size();
  return nb::make_tuple(give<Rows>(std::move(made.begin), {rows}),
                        give<Rows>(std::move(made.entries), {entries}));
}

nb::tuple submanifold(const Sites& sites, int size, int threads) {
  Pairwise pairs;
  {
    nb::gil_scoped_release free;
    check_size(size);
    Pool pool = pool_of(threads);
    const Array<Site> rows = copied(sites);
    const Neighbours made = neighbours(rows, size, Offsets().set(), pool, nullptr);
    pairs = by_offset(made.rows(0, rows.size()), static_cast<size_t>(size * size * size), pool);
  }
  return nb::make_tuple(give_ints(std::move(pairs.inputs)), give_ints(std::move(pairs.outputs)),
                        give_ranges(std::move(pairs.ranges)));
}

nb::tuple strided(const Sites& sites, int threads) {
  Array<Site> coarse;
  Pairwise pairs;
  {
    nb::gil_scoped_release free;
    Pool pool = pool_of(threads);
    const Array<Site> rows = copied(sites);
    Links links;
    coarse = parents(rows, links, pool, nullptr);
    pairs = by_offset({nullptr, links.up.data(), rows.size()}, 8, pool);
  }
  // Links lead up, this map leads down: what `up` reads from is what it writes to.
  return nb::make_tuple(give_sites(std::move(coarse)), give_ints(std::move(pairs.outputs)),
                        give_ints(std::move(pairs.inputs)), give_ranges(std::move(pairs.ranges)));
}

}  // namespace

void bind_grid(nb::module_& m) {
  m.def("voxelize", voxelize_points, "xyz"_a.noconvert(), "edge"_a, "max_sites"_a, "threads"_a = 1,
        "Return the sites (S, 3) int32 of points (N, 3) float32, and the row of each point's site, (N,) "
        "int32, as "
        "popcloud.geometry.voxels.voxelize does, with its errors.");
  m.def("neighbours", find_neighbours, "sites"_a.noconvert(), "size"_a = 3, "threads"_a = 1,
        "Return begin (S + 1,) and entries (P,) uint32: the neighbours of site r of sites (S, 3) int32 in "
        "canonical "
        "order are entries[begin[r]] to entries[begin[r + 1] - 1], each a row times 128 plus the number of "
        "its offset, "
        "which ascend. Raises ValueError for another order.");
  m.def("submanifold", submanifold, "sites"_a.noconvert(), "size"_a = 3, "threads"_a = 1,
        "Return inputs (P,), outputs (P,) int32 and ranges (size^3, 2) int64 of the kernel map of sites (S, "
        "3) int32 "
        "in canonical order, as popcloud.geometry.kernel_map.submanifold does. Raises ValueError for another "
        "order.");
  m.def("strided", strided, "sites"_a.noconvert(), "threads"_a = 1,
        "Return the parents (C, 3) int32 of sites (S, 3) int32 in canonical order, and inputs, outputs, "
        "ranges of the "
        "map to them, as popcloud.geometry.kernel_map.strided does.");
}

}  // namespace popcloud
