// Who is near whom among points: what src/popcloud/geometry/neighbors.py means, element for element.
//
// A search is prepared once, then answers for ranges of queries [first, last), which threads may share:
// answers are the same for any cut. `rows` is always that of query 0: query r writes rows[r * k] to rows[r *
// k + k - 1]. "In order": the smaller distance first, of equal ones the smaller row first, NaN last. k
// neighbours with dilation D are numbers 0, D, 2 D, ... (k - 1) D in order.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"
#include "memory.h"
#include "points/tree.h"
#include "threads.h"

namespace popcloud {

struct PointKernels;
const PointKernels& point_kernels();  // the fastest ones for this processor; all give the same

// Points (points, 3) laid out for searches by position: d = (dx dx + dy dy) + dz dz, every operation rounded.
class PointSearch {
 public:
  PointSearch(const float* xyz, size_t points, Ledger* ledger = nullptr,
              const PointKernels& kernels = point_kernels());

  // The nearest points of queries (., 3). (k - 1) * dilation < points.
  void nearest(const float* queries, size_t first, size_t last, size_t k, size_t dilation,
               int32_t* rows) const;
  // The first k rows with d <= radius * radius around each query, in the order of rows; fewer: the first one
  // again. Returns the first query with no point around it, whose rows are 0, or `last`.
  size_t ball(const float* queries, size_t first, size_t last, float radius, size_t k, int32_t* rows) const;

  size_t points() const { return tree_.points; }

 private:
  void nearest_of_all(const float* queries, size_t first, size_t last, size_t k, size_t dilation,
                      int32_t* rows) const;

  Tree tree_;
  const PointKernels& kernels_;
};

// Points (points, channels) laid out for searches by features: d starts at half of |p|^2 (from 0, takes
// fma(p[c], p[c], s); times 0.5) and takes fma(-p[c], q[c], d), c in order.
class FeatureSearch {
 public:
  FeatureSearch(const float* features, size_t points, size_t channels, const KernelTable& table,
                Ledger* ledger = nullptr);
  void nearest(const float* queries, size_t first, size_t last, size_t k, size_t dilation,
               int32_t* rows) const;

  size_t points() const { return points_; }

 private:
  size_t points_, channels_;
  const KernelTable& table_;
  Array<float> columns_, half_;  // [panels][channels][kPanel], [points], both up to a whole panel of zeros
  Ledger* ledger_;
};

// Packed signs (points, words) laid out for searches by the number of bits that differ.
class SignSearch {
 public:
  SignSearch(const uint64_t* bits, size_t points, size_t words, const KernelTable& table,
             Ledger* ledger = nullptr);
  void nearest(const uint64_t* queries, size_t first, size_t last, size_t k, size_t dilation,
               int32_t* rows) const;

  size_t points() const { return points_; }

 private:
  size_t points_, words_;
  const KernelTable& table_;
  Array<uint64_t> columns_;  // [words][points]
  Array<uint8_t> prepared_;  // the table's own copy
  PackedMatrix matrix_{};
  Ledger* ledger_;
};

// Rows [count] of points (points, 3): row 0, then again and again the one farthest from all before, the first
// of equal ones. 1 <= count <= points.
void farthest_points(const float* xyz, size_t points, size_t count, int32_t* rows, Ledger* ledger = nullptr,
                     const PointKernels& kernels = point_kernels());

// out[r] = float(points) / the sum over all rows in order of max(0, 1 - d / (bandwidth * bandwidth)), in
// float32, all rounded; for rows [first, last).
void density(const float* xyz, size_t points, float bandwidth, size_t first, size_t last, float* out);

// weights[3 * r + i] of the neighbours rows[3 * r + i] of query r: v = 1 / d, 1e-10 <= d <= FLT_MAX, over
// their sum (v0 + v1) + v2.
void weigh_three(const float* queries, const float* xyz, size_t first, size_t last, const int32_t* rows,
                 float* weights);
// out[r * channels + c] = (w0 f[r0][c] + w1 f[r1][c]) + w2 f[r2][c], all rounded.
void interpolate(const float* features, size_t channels, const int32_t* rows, const float* weights,
                 size_t first, size_t last, float* out);

// Throws Error(kCloud) unless points > (k - 1) * dilation.
void check_nearest(size_t points, size_t k, size_t dilation);
// Throws Error(kCloud) unless 1 <= count <= points.
void check_count(size_t points, size_t count);
// Throws the Error(kCloud) of a query with no point around it.
[[noreturn]] void throw_empty_ball(size_t query, float radius);

// All queries, cut over the threads of a pool, with those checks.
template <class Search, class T>
void nearest(const Search& search, const T* queries, size_t count, size_t k, size_t dilation, Pool& pool,
             int32_t* rows) {
  check_nearest(search.points(), k, dilation);
  pool.run([&](size_t thread) {
    const Range range = part(count, 1, thread, pool.size());
    search.nearest(queries, range.first, range.last, k, dilation, rows);
  });
}
void ball(const PointSearch& search, const float* queries, size_t count, float radius, size_t k, Pool& pool,
          int32_t* rows);

}  // namespace popcloud
