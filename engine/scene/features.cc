#include "scene/features.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace popcloud {
namespace {

constexpr size_t kLowest = 100;  // as inputs.py has it: one point in so many lies below the ground
constexpr float kTenMetres = 0.1f;
constexpr size_t kBatch = 1024;  // points of which a thread picks its own at a time
constexpr size_t kAhead = 12;    // points whose sums are fetched before they are needed
constexpr uint32_t kHalf = 1u << 16;

std::string shape_text(size_t rows, size_t columns) {
  return "(" + std::to_string(rows) + ", " + std::to_string(columns) + ")";
}

bool finite(const Scene& scene) {
  const float* end = scene.features + scene.points * scene.columns;
  float odd = 0;  // 0, or NaN
  for (const float* at = scene.features; at < end; ++at) odd += *at * 0.0f;
  return odd == 0;
}

[[noreturn]] void refuse_not_finite(size_t bad, size_t points) {
  throw Error(Fault::kCloud, "features: " + std::to_string(bad) + " of " + std::to_string(points) +
                                 " points have some that are not finite; set those or drop the points");
}

void check_finite(const Scene& scene) {
  if (finite(scene)) return;
  size_t bad = 0;
  for (size_t i = 0; i < scene.points; ++i) {
    const float* row = scene.features + i * scene.columns;
    bad += !std::all_of(row, row + scene.columns, [](float value) { return std::isfinite(value); });
  }
  refuse_not_finite(bad, scene.points);
}

// All columns are given: the sentences of mean_features.
void check_ready(const Scene& scene, size_t columns) {
  if (scene.columns != columns)
    throw Error(Fault::kCloud, "features: expected shape " + shape_text(scene.points, columns) +
                                   ", one row a point, found " + shape_text(scene.points, scene.columns));
  check_finite(scene);
}

// A whole number for each float, in the floats' order, and back.
uint32_t to_ordered(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits ^ (bits >> 31 ? UINT32_MAX : 1u << 31);
}

float from_ordered(uint32_t ordered) {
  uint32_t bits = ordered ^ (ordered >> 31 ? 1u << 31 : UINT32_MAX);
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Which of 2^16 classes the item of this rank is in; the rank becomes that within the class. `class_of` gives
// the class of item i, or kHalf for none.
template <class ClassOf>
uint32_t class_at(size_t count, size_t& rank, Pool& pool, const ClassOf& class_of) {
  std::vector<std::vector<uint32_t>> counts(pool.size(), std::vector<uint32_t>(kHalf + 1));
  pool.run([&](size_t thread) {
    Range range = part(count, 1, thread, pool.size());
    uint32_t* counted = counts[thread].data();
    for (size_t i = range.first; i < range.last; ++i) ++counted[class_of(i)];
  });
  for (uint32_t number = 0;; ++number) {
    size_t here = 0;
    for (const auto& counted : counts) here += counted[number];
    if (rank < here) return number;
    rank -= here;
  }
}

// The height of rank points / 100, the lowest being rank 0: its upper half is found first, then the lower.
float ground_of(const Scene& scene, Pool& pool) {
  auto ordered = [&](size_t i) { return to_ordered(scene.xyz[3 * i + 2]); };
  size_t rank = scene.points / kLowest;
  uint32_t upper = class_at(scene.points, rank, pool, [&](size_t i) { return ordered(i) >> 16; });
  uint32_t lower = class_at(scene.points, rank, pool, [&](size_t i) {
    uint32_t number = ordered(i);
    return number >> 16 == upper ? number & (kHalf - 1) : kHalf;
  });
  return from_ordered(upper << 16 | lower);
}

// A column of all points: (data[i * stride] - shift) * factor. Shift 0 and factor 1 change no bit of a float.
struct Column {
  const float* data;
  size_t stride;
  float shift, factor;
  size_t place;  // in value 0

  float at(size_t point) const { return (data[point * stride] - shift) * factor; }
};

// All but those of ones.
std::vector<Column> columns_of(const Scene& scene, const std::vector<std::string>& names, Pool& pool) {
  std::vector<Column> columns;
  size_t own = 0;
  for (size_t place = 0; place < names.size(); ++place) {
    if (scene.ready || !is_computed(names[place]))
      columns.push_back({scene.features + own++, scene.columns, 0, 1, place});
    else if (names[place] == "height")
      columns.push_back({scene.xyz + 2, 3, ground_of(scene, pool), kTenMetres, place});
  }
  return columns;
}

void add_point(const std::vector<Column>& columns, size_t point, double* sums) {
  for (const Column& column : columns) *sums++ += static_cast<double>(column.at(point));
}

// Sums of the columns over the points of the sites in `sites`, in the order of the points, which each thread
// therefore goes through for itself; and how many points there are.
void sum_sites(const std::vector<Column>& columns, const Array<int32_t>& point_to_site, Range sites,
               double* sums, uint32_t* counts) {
  std::fill(sums + sites.first * columns.size(), sums + sites.last * columns.size(), 0.0);
  std::fill(counts + sites.first, counts + sites.last, 0u);
  const uint32_t first = static_cast<uint32_t>(sites.first),
                 number = static_cast<uint32_t>(sites.last) - first;
  uint32_t own[kBatch];
  for (size_t begin = 0; begin < point_to_site.size(); begin += kBatch) {
    size_t end = std::min(begin + kBatch, point_to_site.size()), taken = 0;
    for (size_t i = begin; i < end; ++i) {
      own[taken] = static_cast<uint32_t>(i - begin);
      taken += static_cast<uint32_t>(point_to_site[i]) - first < number;
    }
    for (size_t i = 0; i < taken; ++i) {
      // Points lie in any order, and their sums far apart.
      const size_t ahead = begin + own[std::min(i + kAhead, taken - 1)];
      __builtin_prefetch(sums + static_cast<size_t>(point_to_site[ahead]) * columns.size());
      size_t point = begin + own[i], site = static_cast<size_t>(point_to_site[point]);
      ++counts[site];
      add_point(columns, point, sums + site * columns.size());
    }
  }
}

// Writes the means of the sites in `sites`; false if one is not finite.
bool write_means(const std::vector<Column>& columns, Range sites, const double* sums, const uint32_t* counts,
                 size_t width, float* means) {
  double odd = 0;
  for (size_t site = sites.first; site < sites.last; ++site) {
    std::fill(means + site * width, means + (site + 1) * width, 1.0f);  // of ones; the others follow
    for (size_t c = 0; c < columns.size(); ++c) {
      double sum = sums[site * columns.size() + c];
      odd += sum * 0;
      means[site * width + columns[c].place] = static_cast<float>(sum / counts[site]);
    }
  }
  return odd == 0;
}

}  // namespace

bool is_computed(const std::string& name) { return name == "one" || name == "height"; }

void check_features(const Scene& scene, const std::vector<std::string>& names) {
  if (scene.ready) return check_ready(scene, names.size());
  std::string own;
  size_t count = 0;
  for (const std::string& name : names)
    if (!is_computed(name)) own += (count++ ? ", " : "") + name;
  if (count == 0) return;
  if (scene.columns != count || !scene.features)
    throw Error(Fault::kCloud, "features: expected shape " + shape_text(scene.points, count) + ": " + own +
                                   ", found " + shape_text(scene.points, scene.columns) +
                                   "; pass a PointCloud with these features");
  check_finite(scene);
}

Array<float> first_value(const Scene& scene, const std::vector<std::string>& names, const Voxels& voxels,
                         Pool& pool, Ledger* ledger) {
  const std::vector<Column> columns = columns_of(scene, names, pool);
  const size_t sites = voxels.sites.size();
  Array<float> means(sites * names.size(), ledger);
  Array<double> sums(sites * columns.size(), ledger);
  Array<uint32_t> counts(sites, ledger);
  std::vector<char> finite(pool.size());
  pool.run([&](size_t thread) {
    Range range = part(sites, 16, thread, pool.size());
    sum_sites(columns, voxels.point_to_site, range, sums.data(), counts.data());
    finite[thread] = write_means(columns, range, sums.data(), counts.data(), names.size(), means.data());
  });
  if (std::all_of(finite.begin(), finite.end(), [](char each) { return each; })) return means;
  size_t bad = 0;  // heights that no float can hold, from a cloud as large as all floats
  for (size_t i = 0; i < scene.points; ++i)
    bad += !std::all_of(columns.begin(), columns.end(),
                        [&](auto& column) { return std::isfinite(column.at(i)); });
  refuse_not_finite(bad, scene.points);
}

}  // namespace popcloud
