// Neighbours of points by all kernels against the plainest loops. Exit code 1 if something does not hold.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "model_writer.h"
#include "points/kernels.h"
#include "points/neighbours.h"

using namespace popcloud;
using namespace popcloud::tests;

namespace {

using Floats = std::vector<float>;
using Rows = std::vector<int32_t>;

Floats normal(size_t points, float scale, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> draw(0, scale);
  Floats xyz(3 * points);
  for (float& x : xyz) x = draw(rng);
  return xyz;
}

// Points on a lattice of so many steps a side: many equal distances, and duplicates.
Floats lattice(size_t points, unsigned side, unsigned seed) {
  std::mt19937 rng(seed);
  Floats xyz(3 * points);
  for (float& x : xyz) x = static_cast<float>(rng() % side);
  return xyz;
}

Floats with(Floats xyz, size_t index, float value) {
  xyz[index] = value;
  return xyz;
}

float squared(const float* a, const float* b) {
  const float x = a[0] - b[0], y = a[1] - b[1], z = a[2] - b[2];
  return (x * x + y * y) + z * z;
}

// Rows in the order of keys, NaN last.
template <class T>
Rows in_order(const std::vector<T>& keys) {
  Rows rows(keys.size());
  std::iota(rows.begin(), rows.end(), 0);
  std::stable_sort(rows.begin(), rows.end(), [&](int32_t a, int32_t b) {
    const T x = keys[static_cast<size_t>(a)], y = keys[static_cast<size_t>(b)];
    return x < y || (x == x && y != y);
  });
  return rows;
}

Floats distances(const float* query, const Floats& xyz) {
  Floats d;
  for (size_t p = 0; p < xyz.size() / 3; ++p) d.push_back(squared(query, xyz.data() + 3 * p));
  return d;
}

void check_nearest_points(const Floats& queries, const Floats& xyz, const PointKernels& kernels,
                          const std::string& name) {
  const PointSearch search(xyz.data(), xyz.size() / 3, nullptr, kernels);
  const size_t count = queries.size() / 3;
  for (size_t k : {1, 3, 20, 600})
    for (size_t dilation : {1, 3}) {
      if ((k - 1) * dilation >= search.points()) continue;
      Rows wanted(count * k), rows(count * k, -1);
      for (size_t r = 0; r < count; ++r) {
        const Rows order = in_order(distances(queries.data() + 3 * r, xyz));
        for (size_t j = 0; j < k; ++j) wanted[r * k + j] = order[j * dilation];
      }
      for (size_t cut : {count, count / 2, size_t{1}}) {  // in two ranges
        std::fill(rows.begin(), rows.end(), -1);
        search.nearest(queries.data(), 0, cut, k, dilation, rows.data());
        search.nearest(queries.data(), cut, count, k, dilation, rows.data());
        check(rows == wanted, name + ": " + std::to_string(k) + " nearest points");
      }
    }
}

void check_balls(const Floats& queries, const Floats& xyz, const PointKernels& kernels,
                 const std::string& name) {
  const PointSearch search(xyz.data(), xyz.size() / 3, nullptr, kernels);
  const size_t count = queries.size() / 3;
  for (float radius : {0.3f, 1.0f, 50.0f})
    for (size_t k : {1, 8, 33}) {
      Rows wanted(count * k), rows(count * k, -1);
      size_t empty = count;
      for (size_t r = count; r--;) {
        const Floats d = distances(queries.data() + 3 * r, xyz);
        Rows inside;
        for (size_t p = 0; p < d.size(); ++p)
          if (d[p] <= radius * radius) inside.push_back(static_cast<int32_t>(p));
        if (inside.empty()) empty = r, inside.push_back(0);
        for (size_t j = 0; j < k; ++j) wanted[r * k + j] = inside[j < inside.size() ? j : 0];
      }
      check(search.ball(queries.data(), 0, count, radius, k, rows.data()) == empty && rows == wanted,
            name + ": balls of " + std::to_string(k));
    }
}

void check_farthest(const Floats& xyz, size_t count, const PointKernels& kernels, const std::string& name) {
  const size_t points = xyz.size() / 3;
  Floats least(points, std::numeric_limits<float>::infinity());
  Rows wanted{0}, rows(count);
  while (wanted.size() < count) {
    const Floats d = distances(xyz.data() + 3 * wanted.back(), xyz);
    for (size_t p = 0; p < points; ++p) least[p] = d[p] < least[p] ? d[p] : least[p];
    wanted.push_back(static_cast<int32_t>(std::max_element(least.begin(), least.end()) - least.begin()));
  }
  farthest_points(xyz.data(), points, count, rows.data(), nullptr, kernels);
  check(rows == wanted, name + ": farthest points");
}

void check_densities(const Floats& xyz, const PointKernels& kernels, const std::string& name) {
  const size_t points = xyz.size() / 3;
  Floats wanted(points), found(points);
  for (size_t r = 0; r < points; ++r) {
    float sum = 0;
    for (float d : distances(xyz.data() + 3 * r, xyz)) {
      const float near = 1.0f - d / (0.7f * 0.7f);
      sum += near > 0 ? near : 0.0f;
    }
    wanted[r] = static_cast<float>(points) / sum;
  }
  kernels.density(xyz.data(), points, 0.7f, 0, points / 3, found.data());
  kernels.density(xyz.data(), points, 0.7f, points / 3, points, found.data());
  check(std::equal(wanted.begin(), wanted.end(), found.begin(),
                   [](float a, float b) { return a == b || (a != a && b != b); }),
        name + ": densities");
}

void check_cloud(const Floats& xyz, const PointKernels& kernels, const std::string& name) {
  Floats queries(xyz.begin(),
                 xyz.begin() + static_cast<std::ptrdiff_t>(3 * std::min<size_t>(xyz.size() / 3, 40)));
  const Floats others = normal(20, 3, 9);
  queries.insert(queries.end(), others.begin(), others.end());
  check_nearest_points(queries, xyz, kernels, name);
  check_balls(queries, xyz, kernels, name);
  check_densities(xyz, kernels, name);
  for (size_t count : {size_t{1}, (xyz.size() / 3 + 1) / 2}) check_farthest(xyz, count, kernels, name);
}

// Keys in panels that are `stride` apart, with NaN between them.
Floats apart(const Floats& keys, size_t stride) {
  Floats spread((keys.size() + kPanel - 1) / kPanel * stride, std::nanf(""));
  for (size_t i = 0; i < keys.size(); ++i) spread[i / kPanel * stride + i % kPanel] = keys[i];
  return spread;
}

// The keys that features are chosen by: negative ones, zeros of both signs, NaN.
void check_keys(const PointKernels& kernels) {
  std::mt19937 rng(3);
  for (size_t count : {1, 7, 8, 500, 1001}) {
    Floats keys(count);
    std::vector<int32_t> whole(count);
    for (float& key : keys) key = static_cast<float>(rng() % 200) - 100;
    for (int32_t& key : whole) key = static_cast<int32_t>(rng() % 100);
    for (size_t i = 5; i < count; i += 50) keys[i] = -0.0f, keys[i / 2] = std::nanf("");
    if (count == 500) std::fill(keys.begin() + 15, keys.end(), std::nanf(""));
    const Rows order = in_order(keys), whole_order = in_order(whole);
    for (size_t k = 1; k <= count; k = k == 9 ? 20 : 3 * k) {
      Smallest best(k);
      best.start(std::nanf(""));
      kernels.smallest(keys.data(), count, kPanel, best);
      bool right = true;
      for (size_t j = 0; j < k; ++j) right = right && static_cast<int32_t>(row_of(best.pairs[j])) == order[j];
      check(right, "the smallest of keys");
      best.start(std::nanf(""));
      kernels.smallest(apart(keys, 3 * kPanel).data(), count, 3 * kPanel, best);
      for (size_t j = 0; j < k; ++j) right = right && static_cast<int32_t>(row_of(best.pairs[j])) == order[j];
      check(right, "the smallest of keys in panels apart");
      best.start(std::nanf(""));
      kernels.fewest(whole.data(), count, kPanel, best);
      for (size_t j = 0; j < k; ++j)
        right = right && static_cast<int32_t>(row_of(best.pairs[j])) == whole_order[j];
      check(right, "the smallest of whole keys");
    }
  }
}

void check_norms(const PointKernels& kernels) {
  const Floats columns = normal(77, 1, 4);
  Floats half(77);
  kernels.half_norms(columns.data(), 77, 3, half.data());
  bool right = true;
  for (size_t p = 0; p < 77; ++p) {
    float sum = 0;
    for (size_t c = 0; c < 3; ++c) sum = std::fma(columns[77 * c + p], columns[77 * c + p], sum);
    right = right && half[p] == sum * 0.5f;
  }
  check(right, "half of the norms");
}

void test_kernels(const PointKernels& kernels) {
  const float nan = std::nanf(""), infinity = std::numeric_limits<float>::infinity();
  check_cloud(normal(1, 1, 1), kernels, "one point");
  check_cloud(normal(17, 1, 2), kernels, "a leaf and a point");
  check_cloud(normal(1000, 1, 3), kernels, "normal");
  check_cloud(lattice(700, 6, 4), kernels, "lattice");
  check_cloud(Floats(3 * 150, 0.1f), kernels, "all in one place");
  check_cloud(normal(200, 1e20f, 5), kernels, "distances that float32 can't hold");
  check_cloud(normal(200, 1e-22f, 6), kernels, "distances of next to nothing");
  check_cloud(with(normal(300, 1, 7), 500, nan), kernels, "a point that is no number");
  check_cloud(with(with(normal(300, 1, 8), 31, nan), 700, infinity), kernels, "points that are not finite");
  check_farthest(normal(5000, 1, 10), 700, kernels, "many points");
  check_farthest(lattice(5000, 9, 11), 800, kernels, "many points on a lattice");
  check_farthest(with(normal(5000, 1e20f, 12), 900, nan), 20, kernels, "many points, and far");
  check_keys(kernels);
  check_norms(kernels);
}

template <class Call>
void check_refused(const Call& call, const std::string& part) {
  try {
    call();
    check(false, "refused: " + part);
  } catch (const Error& error) {
    check(error.fault() == Fault::kCloud && std::string(error.what()).find(part) != std::string::npos,
          std::string("refused: ") + error.what());
  }
}

void test_refusals() {
  check_refused([] { check_nearest(12, 5, 3); }, "k = 5 with dilation 3 needs at least 13 points, found 12");
  check_refused([] { check_count(3, 4); }, "4 farthest points: expected 1 to 3");
  const Floats xyz = lattice(30, 3, 1), queries = {0, 0, 0, 1, 1, 1, 90, 0, 0, 91, 0, 0};
  const PointSearch search(xyz.data(), 30);
  for (int threads : {1, 2, 3}) {
    Pool pool(threads);
    Rows rows(4 * 5);
    check_refused([&] { ball(search, queries.data(), 4, 2.5f, 5, pool, rows.data()); },
                  "no point lies within 2.5 of query 2; use a larger radius");
  }
}

}  // namespace

int main() {
  for (auto kernels = all_point_kernels(); *kernels; ++kernels)
    if ((*kernels)->supported()) test_kernels(**kernels);
  test_refusals();
  return finish();
}
