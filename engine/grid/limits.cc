#include "grid/limits.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <vector>

#include "engine.h"

namespace popcloud {
namespace {

constexpr double kMostSpan = 1 << 20, kFarthest = 1 << 30;
constexpr size_t kFewest = 8;  // a cloud around zero has sites in eight octants, whatever the edge

std::string text(const char* format, int digits, double number) {
  char line[400];
  std::snprintf(line, sizeof line, format, digits, number);
  return line;
}

// As Python writes a float: the shortest that reads back as the same, in full below 1e16.
std::string python_float(double number) {
  if (!std::isfinite(number)) return std::isnan(number) ? "nan" : number > 0 ? "inf" : "-inf";
  int digits = 0;
  while (digits < 16 && std::strtod(text("%.*e", digits, number).c_str(), nullptr) != number) ++digits;
  std::string scientific = text("%.*e", digits, number);
  int exponent = std::atoi(scientific.c_str() + scientific.find('e') + 1);
  bool plain = exponent >= -4 && exponent < 16;
  return plain ? text("%.*f", std::max(digits - exponent, 1), number) : scientific;
}

// Of the points of one thread: the ends of x, y, z, and 0, or NaN if a coordinate is not finite.
struct Extent {
  float low[3], high[3], odd;
};

// Points are taken four at a time, so that all lanes of a register have work.
Extent extent_of(const float* xyz, size_t points) {
  constexpr size_t kLanes = 12;
  float low[kLanes], high[kLanes], odd[kLanes];
  for (size_t lane = 0; lane < kLanes; ++lane) low[lane] = high[lane] = xyz[lane % 3], odd[lane] = 0;
  auto see = [&](float value, size_t lane) {
    low[lane] = value < low[lane] ? value : low[lane];
    high[lane] = value > high[lane] ? value : high[lane];
    odd[lane] += value * 0.0f;
  };
  size_t i = 0;
  for (; i + kLanes <= 3 * points; i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) see(xyz[i + lane], lane);
  for (; i < 3 * points; ++i) see(xyz[i], i % 3);
  Extent extent{{low[0], low[1], low[2]}, {high[0], high[1], high[2]}, 0};
  for (size_t lane = 0; lane < kLanes; ++lane) {
    extent.low[lane % 3] = std::min(extent.low[lane % 3], low[lane]);
    extent.high[lane % 3] = std::max(extent.high[lane % 3], high[lane]);
    extent.odd += odd[lane];
  }
  return extent;
}

[[noreturn]] void refuse_points(const float* xyz, size_t points) {
  size_t bad = 0;
  for (size_t i = 0; i < points; ++i)
    bad += !(std::isfinite(xyz[3 * i]) && std::isfinite(xyz[3 * i + 1]) && std::isfinite(xyz[3 * i + 2]));
  throw Error(Fault::kCloud, "cloud: " + std::to_string(bad) + " of " + std::to_string(points) +
                                 " points are not finite; remove them first");
}

double farthest_of(const Ends& ends) {
  double farthest = 0;
  for (int axis = 0; axis < 3; ++axis)
    farthest = std::max({farthest, std::fabs(ends.low[axis]), std::fabs(ends.high[axis])});
  return farthest;
}

double span_of(const Ends& ends) {
  double span = 0;
  for (int axis = 0; axis < 3; ++axis) span = std::max(span, ends.high[axis] - ends.low[axis]);
  return span;
}

// The smallest decimal number of two digits that is not below `edge`, as text.
std::string rounded_up(double edge) {
  double unit = std::pow(10.0, std::floor(std::log10(edge)) - 1);
  double up = std::strtod(text("%.*g", 2, std::ceil(edge / unit) * unit).c_str(), nullptr);
  return text("%.*g", 6, up);
}

std::string fitting_edge(const Ends& ends, double edge, size_t most_sites,
                         const std::function<size_t(double)>& count) {
  edge = std::max({edge, farthest_of(ends) / kFarthest, span_of(ends) / kMostSpan});
  for (;;) {
    std::string line = rounded_up(edge);
    edge = std::strtod(line.c_str(), nullptr);
    double ratio = 0;
    if (out_of_grid(ends, edge).empty()) {
      ratio = static_cast<double>(count(edge)) / static_cast<double>(most_sites);
      if (ratio <= 1) return line;
    }
    edge *= std::max(std::pow(ratio, 1.0 / 3), 1.02);  // sites fall with the edge's cube at most
  }
}

}  // namespace

Ends checked_ends(const float* xyz, size_t points, double edge, size_t most_sites, Pool& pool) {
  if (points == 0) throw Error(Fault::kCloud, "cloud: expected at least one point, found none");
  std::vector<Extent> extents(pool.size());
  pool.run([&](size_t thread) {
    Range range = part(points, 4, thread, pool.size());
    if (range.first == range.last) range = {0, 1};  // few points: one is seen twice, which changes no end
    extents[thread] = extent_of(xyz + 3 * range.first, range.last - range.first);
  });
  Ends ends;
  float odd = 0;
  for (int axis = 0; axis < 3; ++axis) ends.low[axis] = ends.high[axis] = static_cast<double>(xyz[axis]);
  for (const Extent& extent : extents) {
    for (int axis = 0; axis < 3; ++axis) {
      ends.low[axis] = std::min(ends.low[axis], static_cast<double>(extent.low[axis]));
      ends.high[axis] = std::max(ends.high[axis], static_cast<double>(extent.high[axis]));
    }
    odd += extent.odd;
  }
  if (odd != 0) refuse_points(xyz, points);
  if (!(edge > 0 && std::isfinite(edge)))
    throw Error(Fault::kCloud, "voxel edge " + python_float(edge) + ": expected a positive number of metres");
  if (most_sites < kFewest)
    throw Error(Fault::kCloud, "max_sites " + std::to_string(most_sites) + ": expected at least " +
                                   std::to_string(kFewest) + ", which a cloud around zero needs");
  return ends;
}

std::string out_of_grid(const Ends& ends, double edge) {
  Ends sites;
  for (int axis = 0; axis < 3; ++axis) {
    sites.low[axis] = std::floor(ends.low[axis] / edge);
    sites.high[axis] = std::floor(ends.high[axis] / edge);
  }
  double farthest = -std::numeric_limits<double>::infinity();
  for (int axis = 0; axis < 3; ++axis) farthest = std::max({farthest, -sites.low[axis], sites.high[axis]});
  if (farthest > kFarthest)
    return "puts a point " + text("%.*g", 3, farthest) + " sites from zero, at most " +
           text("%.*f", 0, kFarthest) + " are allowed";
  double span = span_of(sites) + 1;
  if (span > kMostSpan)
    return "spreads the cloud over " + text("%.*f", 0, span) + " sites along an axis, at most " +
           text("%.*f", 0, kMostSpan) + " are allowed";
  return "";
}

std::string too_many(size_t found, size_t most_sites) {
  return "gives " + std::to_string(found) + " sites, at most " + std::to_string(most_sites) + " are allowed";
}

void refuse_edge(const std::string& fault, const Ends& ends, double edge, size_t most_sites,
                 const std::function<size_t(double)>& count) {
  throw Error(Fault::kCloud, "voxel edge " + text("%.*g", 6, edge) + " m " + fault + "; an edge of " +
                                 fitting_edge(ends, edge, most_sites, count) + " m fits");
}

}  // namespace popcloud
