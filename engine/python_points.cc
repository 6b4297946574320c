// Neighbours of points for popcloud._engine: what src/popcloud/geometry/neighbors.py does in numpy, element
// for element. An array of two dimensions is one cloud, one of three is clouds of equal size, each for
// itself.
#include "python_points.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <string>
#include <utility>
#include <vector>

#include "engine.h"
#include "points/neighbours.h"
#include "program.h"
#include "python_arrays.h"

namespace popcloud {
namespace {

using namespace nb::literals;

template <class T>
using Clouds = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;

// Clouds of equal size that lie one after the other.
template <class T>
struct Batch {
  Batch(const Clouds<T>& array, const char* name) : data(array.data()), batched(array.ndim() == 3) {
    require(array.ndim() == 2 || batched,
            std::string(name) + " must have 2 or 3 dimensions, found " + std::to_string(array.ndim()));
    clouds = batched ? array.shape(0) : 1;
    rows = array.shape(array.ndim() - 2), columns = array.shape(array.ndim() - 1);
  }

  const T* cloud(size_t b) const { return data + b * rows * columns; }
  // The shape of an answer with other columns, and with other rows.
  std::vector<size_t> with(size_t other) const { return with(rows, other); }
  std::vector<size_t> with(size_t lines, size_t other) const {
    return batched ? std::vector<size_t>{clouds, lines, other} : std::vector<size_t>{lines, other};
  }

  const T* data;
  bool batched;
  size_t clouds, rows, columns;
};

template <class T>
Batch<T> positions(const Clouds<T>& array, const char* name) {
  const Batch<T> batch(array, name);
  require(batch.columns == 3 && batch.rows >= 1,
          std::string(name) + " must be (N, 3) or (B, N, 3), N >= 1, found " + std::to_string(batch.rows) +
              " rows of " + std::to_string(batch.columns));
  return batch;
}

template <class A, class B>
void check_pair(const Batch<A>& a, const Batch<B>& b) {
  require(a.batched == b.batched && a.clouds == b.clouds, "both arrays must have as many clouds, found " +
                                                              std::to_string(a.clouds) + " and " +
                                                              std::to_string(b.clouds));
}

template <class T>
void check_columns(const Batch<T>& queries, const Batch<T>& points) {
  check_pair(queries, points);
  require(queries.columns == points.columns, "queries and points must have as many columns, found " +
                                                 std::to_string(queries.columns) + " and " +
                                                 std::to_string(points.columns));
}

// Helpers start with every call: a loader process that never asks for a second thread never has one.
Pool pool_of(int threads) {
  require(threads >= 1 && threads <= 1024, "threads must be 1 to 1024, found " + std::to_string(threads));
  return Pool(threads);
}

// Shares clouds out.
template <class Work>
void share(Pool& pool, size_t clouds, const Work& work) {
  pool.run([&](size_t thread) {
    for (size_t b = thread; b < clouds; b += pool.size()) work(b);
  });
}

// Cuts the rows of one cloud over the threads; shares out several.
template <class Work>
void cut(Pool& pool, size_t clouds, size_t rows, const Work& work) {
  if (clouds > 1) return share(pool, clouds, [&](size_t b) { work(b, 0, rows); });
  pool.run([&](size_t thread) {
    const Range range = part(rows, 1, thread, pool.size());
    if (clouds) work(0, range.first, range.last);
  });
}

template <class T, class Make>
Out<int32_t> search(const Batch<T>& queries, const Batch<T>& points, size_t k, size_t dilation, int threads,
                    const Make& make) {
  check_columns(queries, points);
  check_nearest(points.rows, k, dilation);
  Fresh<int32_t> rows(queries.with(k));
  {
    nb::gil_scoped_release free;
    Pool pool = pool_of(threads);
    if (queries.clouds == 1)
      nearest(make(points.data), queries.data, queries.rows, k, dilation, pool, rows.get());
    else
      share(pool, queries.clouds, [&](size_t b) {
        make(points.cloud(b))
            .nearest(queries.cloud(b), 0, queries.rows, k, dilation, rows.get() + b * queries.rows * k);
      });
  }
  return rows.give();
}

Out<int32_t> nearest_points(const Clouds<float>& queries, const Clouds<float>& points, size_t k,
                            size_t dilation, int threads) {
  const auto asked = positions(queries, "queries"), among = positions(points, "points");
  return search(asked, among, k, dilation, threads,
                [&](const float* xyz) { return PointSearch(xyz, among.rows); });
}

Out<int32_t> nearest_features(const Clouds<float>& queries, const Clouds<float>& points, size_t k,
                              size_t dilation, int threads, const std::string& kernels) {
  const KernelTable& table = choose_kernels(kernels);
  const Batch<float> asked(queries, "queries"), among(points, "points");
  return search(asked, among, k, dilation, threads, [&](const float* features) {
    return FeatureSearch(features, among.rows, among.columns, table);
  });
}

Out<int32_t> nearest_signs(const Clouds<uint64_t>& queries, const Clouds<uint64_t>& points, size_t k,
                           size_t dilation, int threads, const std::string& kernels) {
  const KernelTable& table = choose_kernels(kernels);
  const Batch<uint64_t> asked(queries, "queries"), among(points, "points");
  require(among.columns >= 1 && among.columns <= 1024,
          "signs must have 1 to 1024 words a row, found " + std::to_string(among.columns));
  return search(asked, among, k, dilation, threads,
                [&](const uint64_t* bits) { return SignSearch(bits, among.rows, among.columns, table); });
}

Out<int32_t> balls(const Clouds<float>& queries, const Clouds<float>& points, float radius, size_t k,
                   int threads) {
  const auto asked = positions(queries, "queries"), among = positions(points, "points");
  check_pair(asked, among);
  require(k >= 1, "ball: expected k of at least 1, found 0");
  Fresh<int32_t> rows(asked.with(k));
  {
    nb::gil_scoped_release free;
    Pool pool = pool_of(threads);
    if (asked.clouds == 1)
      ball(PointSearch(among.data, among.rows), asked.data, asked.rows, radius, k, pool, rows.get());
    else
      share(pool, asked.clouds, [&](size_t b) {
        const PointSearch search(among.cloud(b), among.rows);
        const size_t empty =
            search.ball(asked.cloud(b), 0, asked.rows, radius, k, rows.get() + b * asked.rows * k);
        if (empty < asked.rows) throw_empty_ball(empty, radius);
      });
  }
  return rows.give();
}

Out<int32_t> farthest(const Clouds<float>& points, size_t count, int threads) {
  const auto among = positions(points, "points");
  check_count(among.rows, count);
  Fresh<int32_t> rows(among.batched ? std::vector<size_t>{among.clouds, count} : std::vector<size_t>{count});
  {
    nb::gil_scoped_release free;
    Pool pool = pool_of(threads);
    share(pool, among.clouds,
          [&](size_t b) { farthest_points(among.cloud(b), among.rows, count, rows.get() + b * count); });
  }
  return rows.give();
}

Out<float> densities(const Clouds<float>& points, float bandwidth, int threads) {
  const auto among = positions(points, "points");
  Fresh<float> out(among.batched ? std::vector<size_t>{among.clouds, among.rows}
                                 : std::vector<size_t>{among.rows});
  {
    nb::gil_scoped_release free;
    Pool pool = pool_of(threads);
    cut(pool, among.clouds, among.rows, [&](size_t b, size_t first, size_t last) {
      density(among.cloud(b), among.rows, bandwidth, first, last, out.get() + b * among.rows);
    });
  }
  return out.give();
}

std::pair<Out<int32_t>, Out<float>> three_nearest(const Clouds<float>& queries, const Clouds<float>& points,
                                                  int threads) {
  const auto asked = positions(queries, "queries"), among = positions(points, "points");
  Out<int32_t> rows = nearest_points(queries, points, 3, 1, threads);
  Fresh<float> weights(asked.with(3));
  {
    nb::gil_scoped_release free;
    for (size_t b = 0; b < asked.clouds; ++b)
      weigh_three(asked.cloud(b), among.cloud(b), 0, asked.rows, rows.data() + b * asked.rows * 3,
                  weights.get() + b * asked.rows * 3);
  }
  return {std::move(rows), weights.give()};
}

Out<float> interpolated(const Clouds<float>& features, const Clouds<int32_t>& rows,
                        const Clouds<float>& weights, int threads) {
  const Batch<float> from(features, "features"), by(weights, "weights");
  const Batch<int32_t> which(rows, "rows");
  check_pair(from, by), check_pair(from, which);
  require(which.columns == 3 && by.columns == 3 && which.rows == by.rows,
          "rows and weights must be (Q, 3) both");
  for (size_t i = 0; i < which.clouds * which.rows * 3; ++i)
    require(which.data[i] >= 0 && static_cast<size_t>(which.data[i]) < from.rows,
            "rows must be those of features, less than " + std::to_string(from.rows) + ", found " +
                std::to_string(which.data[i]));
  Fresh<float> out(which.with(from.columns));
  {
    nb::gil_scoped_release free;
    Pool pool = pool_of(threads);
    cut(pool, from.clouds, which.rows, [&](size_t b, size_t first, size_t last) {
      interpolate(from.cloud(b), from.columns, which.cloud(b), by.cloud(b), first, last,
                  out.get() + b * which.rows * from.columns);
    });
  }
  return out.give();
}

}  // namespace

void bind_points(nb::module_& m) {
  m.def("nearest", nearest_points, "queries"_a.noconvert(), "points"_a.noconvert(), "k"_a, "dilation"_a = 1,
        "threads"_a = 1, "As popcloud.geometry.neighbors.nearest; (B, Q, 3) and (B, P, 3) give (B, Q, k).");
  m.def("nearest_features", nearest_features, "queries"_a.noconvert(), "points"_a.noconvert(), "k"_a,
        "dilation"_a = 1, "threads"_a = 1, "kernels"_a = "",
        "As popcloud.geometry.neighbors.nearest_features; also of (B, Q, C) and (B, P, C).");
  m.def("nearest_signs", nearest_signs, "queries"_a.noconvert(), "points"_a.noconvert(), "k"_a,
        "dilation"_a = 1, "threads"_a = 1, "kernels"_a = "",
        "As popcloud.geometry.neighbors.nearest_signs; also of (B, Q, W) and (B, P, W).");
  m.def("ball", balls, "queries"_a.noconvert(), "points"_a.noconvert(), "radius"_a, "k"_a, "threads"_a = 1,
        "As popcloud.geometry.neighbors.ball; (B, Q, 3) and (B, P, 3) give (B, Q, k).");
  m.def("farthest_points", farthest, "points"_a.noconvert(), "count"_a, "threads"_a = 1,
        "As popcloud.geometry.neighbors.farthest_points; (B, N, 3) gives (B, count).");
  m.def("density", densities, "points"_a.noconvert(), "bandwidth"_a, "threads"_a = 1,
        "As popcloud.geometry.neighbors.density; (B, P, 3) gives (B, P).");
  m.def("three_nearest", three_nearest, "queries"_a.noconvert(), "points"_a.noconvert(), "threads"_a = 1,
        "As popcloud.geometry.neighbors.three_nearest; also of (B, Q, 3) and (B, P, 3).");
  m.def("interpolate", interpolated, "features"_a.noconvert(), "rows"_a.noconvert(), "weights"_a.noconvert(),
        "threads"_a = 1, "As popcloud.geometry.neighbors.interpolate; also of (B, P, C) and (B, Q, 3).");
}

}  // namespace popcloud
