// How a cloud is made ready for a network: the twin of src/popcloud/cloud.py, bit for bit.
#include <algorithm>
#include <cmath>

#include "engine.h"

namespace popcloud {
namespace {

void check_finite(const float* xyz, size_t points) {
  size_t bad = 0;
  for (size_t i = 0; i < points; ++i)
    bad += !(std::isfinite(xyz[3 * i]) && std::isfinite(xyz[3 * i + 1]) && std::isfinite(xyz[3 * i + 2]));
  if (bad)
    throw Error(Fault::kCloud, std::to_string(bad) + " of " + std::to_string(points) +
                                   " points are not finite; remove them first");
}

std::vector<float> resample(const float* xyz, size_t points, size_t count) {
  if (count == 0) return {xyz, xyz + 3 * points};
  std::vector<float> out;
  out.reserve(3 * count);
  for (size_t i = 0; i < count; ++i) {
    const float* from = xyz + 3 * (points >= count ? i * points / count : i % points);
    out.insert(out.end(), from, from + 3);
  }
  return out;
}

// Sums in float64 in row order. One point alone goes to the origin.
void to_unit_sphere(std::vector<float>& xyz) {
  size_t points = xyz.size() / 3;
  double centroid[3] = {}, largest = 0;
  for (size_t i = 0; i < xyz.size(); ++i) centroid[i % 3] += static_cast<double>(xyz[i]);
  for (double& c : centroid) c /= static_cast<double>(points);
  std::vector<double> wide(xyz.size());
  for (size_t i = 0; i < xyz.size(); ++i) wide[i] = static_cast<double>(xyz[i]) - centroid[i % 3];
  for (size_t i = 0; i < wide.size(); i += 3)
    largest = std::max(largest, wide[i] * wide[i] + wide[i + 1] * wide[i + 1] + wide[i + 2] * wide[i + 2]);
  double radius = std::sqrt(largest);
  for (size_t i = 0; i < xyz.size(); ++i)
    xyz[i] = static_cast<float>(radius > 0 ? wide[i] / radius : wide[i]);
}

}  // namespace

std::vector<float> prepare(const float* xyz, size_t points, size_t count, const std::string& how) {
  if (points == 0) throw Error(Fault::kCloud, "expected at least one point, found none");
  if (how != "none" && how != "unit_sphere")
    throw Error(Fault::kCloud, "unknown normalisation '" + how + "'; valid: none, unit_sphere");
  check_finite(xyz, points);
  std::vector<float> cloud = resample(xyz, points, count);
  if (how == "unit_sphere") to_unit_sphere(cloud);
  return cloud;
}

}  // namespace popcloud
