// What is said of points one by one: densities and weights; and the checks of searches.
#include "points/neighbours.h"

#include <algorithm>
#include <cfloat>
#include <cstdio>
#include <string>
#include <vector>

#include "engine.h"
#include "points/kernels.h"

namespace popcloud {
namespace {

float squared(const float* a, const float* b) {
  const float x = a[0] - b[0], y = a[1] - b[1], z = a[2] - b[2];
  return (x * x + y * y) + z * z;
}

}  // namespace

void density(const float* xyz, size_t points, float bandwidth, size_t first, size_t last, float* out) {
  point_kernels().density(xyz, points, bandwidth, first, last, out);
}

void weigh_three(const float* queries, const float* xyz, size_t first, size_t last, const int32_t* rows,
                 float* weights) {
  for (size_t r = first; r < last; ++r) {
    float v[3];
    for (size_t i = 0; i < 3; ++i)
      v[i] = 1.0f / std::min(std::max(squared(queries + 3 * r, xyz + 3 * rows[3 * r + i]), 1e-10f), FLT_MAX);
    const float sum = (v[0] + v[1]) + v[2];
    for (size_t i = 0; i < 3; ++i) weights[3 * r + i] = v[i] / sum;
  }
}

void interpolate(const float* features, size_t channels, const int32_t* rows, const float* weights,
                 size_t first, size_t last, float* out) {
  for (size_t r = first; r < last; ++r) {
    const float* from[3];
    for (size_t i = 0; i < 3; ++i) from[i] = features + static_cast<size_t>(rows[3 * r + i]) * channels;
    const float *w = weights + 3 * r, *a = from[0], *b = from[1], *c = from[2];
    for (size_t k = 0; k < channels; ++k) out[r * channels + k] = (w[0] * a[k] + w[1] * b[k]) + w[2] * c[k];
  }
}

void check_nearest(size_t points, size_t k, size_t dilation) {
  if (k < 1 || dilation < 1)
    throw Error(Fault::kEngine, "k nearest: expected k and dilation of at least 1, found " +
                                    std::to_string(k) + " and " + std::to_string(dilation));
  if ((k - 1) > (SIZE_MAX - 1) / dilation || (k - 1) * dilation >= points)
    throw Error(Fault::kCloud, "k nearest: k = " + std::to_string(k) + " with dilation " +
                                   std::to_string(dilation) + " needs at least " +
                                   std::to_string((k - 1) * dilation + 1) + " points, found " +
                                   std::to_string(points) + "; use a smaller k or a larger cloud");
}

void check_count(size_t points, size_t count) {
  if (count < 1 || count > points)
    throw Error(Fault::kCloud, std::to_string(count) + " farthest points: expected 1 to " +
                                   std::to_string(points) + ", as many as the cloud has");
}

void throw_empty_ball(size_t query, float radius) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", static_cast<double>(radius));
  throw Error(Fault::kCloud, std::string("ball: no point lies within ") + text + " of query " +
                                 std::to_string(query) + "; use a larger radius");
}

void ball(const PointSearch& search, const float* queries, size_t count, float radius, size_t k, Pool& pool,
          int32_t* rows) {
  std::vector<size_t> empty(pool.size(), count);
  pool.run([&](size_t thread) {
    const Range range = part(count, 1, thread, pool.size());
    const size_t found = search.ball(queries, range.first, range.last, radius, k, rows);
    if (found < range.last) empty[thread] = found;
  });
  const size_t first = *std::min_element(empty.begin(), empty.end());
  if (first < count) throw_empty_ball(first, radius);
}

}  // namespace popcloud
