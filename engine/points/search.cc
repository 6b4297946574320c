// Nearest points and balls by looking at all points.
#include <algorithm>
#include <cmath>
#include <vector>

#include "points/neighbours.h"
#include "points/select.h"

namespace popcloud {
namespace {

float squared(const float* a, const float* b) {
  const float x = a[0] - b[0], y = a[1] - b[1], z = a[2] - b[2];
  return (x * x + y * y) + z * z;
}

// Writes numbers 0, D, ... (k - 1) D of pairs in order.
void pick(std::vector<double>& pairs, size_t k, size_t dilation, int32_t* rows) {
  std::partial_sort(pairs.begin(), pairs.begin() + static_cast<std::ptrdiff_t>((k - 1) * dilation + 1),
                    pairs.end());
  for (size_t j = 0; j < k; ++j) rows[j] = static_cast<int32_t>(row_of(pairs[j * dilation]));
}

}  // namespace

PointSearch::PointSearch(const float* xyz, size_t points, Ledger* ledger)
    : points_(points), xyz_(3 * points, ledger) {
  std::copy(xyz, xyz + 3 * points, xyz_.data());
}

void PointSearch::nearest(const float* queries, size_t first, size_t last, size_t k, size_t dilation,
                          int32_t* rows) const {
  std::vector<double> pairs(points_);
  for (size_t r = first; r < last; ++r) {
    for (uint32_t p = 0; p < points_; ++p)
      pairs[p] = pair_of(squared(queries + 3 * r, xyz_.data() + 3 * p), p);
    pick(pairs, k, dilation, rows + r * k);
  }
}

size_t PointSearch::ball(const float* queries, size_t first, size_t last, float radius, size_t k,
                         int32_t* rows) const {
  const float reach = radius * radius;
  size_t empty = last;
  for (size_t r = first; r < last; ++r) {
    int32_t* own = rows + r * k;
    size_t found = 0;
    for (size_t p = 0; p < points_ && found < k; ++p)
      if (squared(queries + 3 * r, xyz_.data() + 3 * p) <= reach) own[found++] = static_cast<int32_t>(p);
    if (!found) empty = std::min(empty, r);
    std::fill(own + found, own + k, found ? own[0] : 0);
  }
  return empty;
}

FeatureSearch::FeatureSearch(const float* features, size_t points, size_t channels, const KernelTable& table,
                             Ledger* ledger)
    : points_(points),
      channels_(channels),
      table_(table),
      columns_(channels * points, ledger),
      half_(points, ledger),
      ledger_(ledger) {
  for (size_t p = 0; p < points; ++p) {
    float sum = 0;
    for (size_t c = 0; c < channels; ++c) {
      const float x = features[p * channels + c];
      columns_[c * points + p] = x;
      sum = std::fma(x, x, sum);
    }
    half_[p] = sum * 0.5f;
  }
}

void FeatureSearch::nearest(const float* queries, size_t first, size_t last, size_t k, size_t dilation,
                            int32_t* rows) const {
  std::vector<double> pairs(points_);
  for (size_t r = first; r < last; ++r) {
    for (uint32_t p = 0; p < points_; ++p) {
      float key = half_[p];
      for (size_t c = 0; c < channels_; ++c)
        key = std::fma(-columns_[c * points_ + p], queries[r * channels_ + c], key);
      pairs[p] = pair_of(key, p);
    }
    pick(pairs, k, dilation, rows + r * k);
  }
}

SignSearch::SignSearch(const uint64_t* bits, size_t points, size_t words, const KernelTable& table,
                       Ledger* ledger)
    : points_(points), words_(words), table_(table), columns_(words * points, ledger), ledger_(ledger) {
  for (size_t p = 0; p < points; ++p)
    for (size_t w = 0; w < words; ++w) columns_[w * points + p] = bits[p * words + w];
  matrix_ = {columns_.data(), words, points, nullptr};
  if (const size_t bytes = table.prepared_bytes(words, points)) {
    prepared_ = Array<uint8_t>(bytes, ledger);
    table.prepare(matrix_.bits, words, points, prepared_.data());
    matrix_.prepared = prepared_.data();
  }
}

void SignSearch::nearest(const uint64_t* queries, size_t first, size_t last, size_t k, size_t dilation,
                         int32_t* rows) const {
  std::vector<double> pairs(points_);
  Array<int32_t> differ(points_, ledger_);
  for (size_t r = first; r < last; ++r) {
    table_.mismatches(queries + r * words_, 1, matrix_, {0, points_}, differ.data());
    for (uint32_t p = 0; p < points_; ++p) pairs[p] = pair_of(static_cast<float>(differ[p]), p);
    pick(pairs, k, dilation, rows + r * k);
  }
}

}  // namespace popcloud
