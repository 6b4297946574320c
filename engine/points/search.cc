// Searches over many queries: near places in space by a tree, the others by all keys at once.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "points/kernels.h"
#include "points/neighbours.h"
#include "points/order.h"

namespace popcloud {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr size_t kMostKept = 512;               // pairs kept in order; more are sorted when all are there
constexpr size_t kBlockKeys = size_t{1} << 16;  // keys at a time, 256 KiB
constexpr size_t kMostRows = 60;                // queries at a time
constexpr size_t kTogether = 12;                // rows that a product of matrices likes to have

float squared(const float* a, const float* b) {
  const float x = a[0] - b[0], y = a[1] - b[1], z = a[2] - b[2];
  return (x * x + y * y) + z * z;
}

size_t whole_panels(size_t points) { return (points + kPanel - 1) / kPanel * kPanel; }

// Numbers 0, D, ... (k - 1) D of pairs in order.
void pick(const double* pairs, size_t k, size_t dilation, int32_t* rows) {
  for (size_t j = 0; j < k; ++j) rows[j] = static_cast<int32_t>(row_of(pairs[j * dilation]));
}

// The same of all pairs, in no order yet.
void sort_and_pick(std::vector<double>& pairs, size_t k, size_t dilation, int32_t* rows) {
  const auto end = pairs.begin() + static_cast<std::ptrdiff_t>((k - 1) * dilation + 1);
  if (end != pairs.end()) std::nth_element(pairs.begin(), end - 1, pairs.end());
  std::sort(pairs.begin(), end);
  pick(pairs.data(), k, dilation, rows);
}

// A little more than what no neighbour of the next query is farther than: as far as its predecessor's last
// neighbour is from that, and that from it (triangle inequality); the rest is for roundings.
float reach_of(const Smallest& best, const float* before, const float* query) {
  const float far = std::sqrt(key_of(best.pairs[best.count - 1])) + std::sqrt(squared(before, query));
  return far * far * 1.00001f + 1e-30f;
}

// Keys of some queries at a time: make(first row, rows, keys), then choose(keys of a row, points, stride,
// best). Keys of a row lie together, or, `in_panels`, in each panel of all rows.
template <class T, class Make, class Choose>
void by_keys(size_t points, size_t first, size_t last, size_t k, size_t dilation, int32_t* rows,
             bool in_panels, Ledger* ledger, const Make& make, const Choose& choose) {
  const size_t wanted = (k - 1) * dilation + 1;
  const size_t some = std::min(kMostRows, std::max<size_t>(1, kBlockKeys / points));
  const size_t step = some < kTogether ? some : some / kTogether * kTogether;
  Array<T> keys(step * whole_panels(points), ledger);
  Smallest best(std::min(wanted, kMostKept));
  std::vector<double> pairs(wanted > kMostKept ? points : 0);
  for (size_t r = first; r < last; r += step) {
    const size_t count = std::min(step, last - r);
    make(r, count, keys.data());
    const size_t apart = in_panels ? kPanel : points, stride = in_panels ? count * kPanel : kPanel;
    for (size_t i = 0; i < count; ++i) {
      const T* own = keys.data() + i * apart;
      if (wanted > kMostKept) {
        for (size_t p = 0; p < points; ++p)
          pairs[p] =
              pair_of(static_cast<float>(own[p / kPanel * stride + p % kPanel]), static_cast<uint32_t>(p));
        sort_and_pick(pairs, k, dilation, rows + (r + i) * k);
      } else {
        best.start(kNan);
        choose(own, points, stride, best);
        pick(best.pairs, k, dilation, rows + (r + i) * k);
      }
    }
  }
}

}  // namespace

PointSearch::PointSearch(const float* xyz, size_t points, Ledger* ledger, const PointKernels& kernels)
    : tree_(xyz, points, ledger), kernels_(kernels) {}

void PointSearch::nearest(const float* queries, size_t first, size_t last, size_t k, size_t dilation,
                          int32_t* rows) const {
  const size_t wanted = (k - 1) * dilation + 1;
  if (wanted > kMostKept) return nearest_of_all(queries, first, last, k, dilation, rows);
  Smallest best(wanted);
  const float* before = nullptr;
  for (uint32_t r : in_space(queries, first, last)) {
    const float* query = queries + 3 * size_t{r};
    best.start(before ? reach_of(best, before, query) : kNan);
    kernels_.nearest(tree_, query, best);
    if (best.short_of()) {
      best.start(kNan);
      kernels_.nearest(tree_, query, best);
    }
    pick(best.pairs, k, dilation, rows + r * k);
    before = query;
  }
}

void PointSearch::nearest_of_all(const float* queries, size_t first, size_t last, size_t k, size_t dilation,
                                 int32_t* rows) const {
  std::vector<double> pairs(tree_.points);
  for (size_t r = first; r < last; ++r) {
    for (size_t p = 0; p < tree_.points; ++p) {
      const Leaf& leaf = tree_.leaves[p / kLeafSize];
      const size_t lane = p % kLeafSize;
      const float at[3] = {leaf.at[0][lane], leaf.at[1][lane], leaf.at[2][lane]};
      pairs[p] = pair_of(squared(queries + 3 * r, at), leaf.rows[lane]);
    }
    sort_and_pick(pairs, k, dilation, rows + r * k);
  }
}

size_t PointSearch::ball(const float* queries, size_t first, size_t last, float radius, size_t k,
                         int32_t* rows) const {
  const size_t kept = std::min(k, tree_.points);
  Array<uint32_t> found(kept + 2 * kWidth);
  uint32_t* own = found.data() + kWidth;
  size_t empty = last;
  for (uint32_t r : in_space(queries, first, last)) {
    own[-1] = 0;
    std::fill(own, own + kept + kWidth, kNoRow);
    kernels_.ball(tree_, queries + 3 * size_t{r}, radius * radius, kept, own);
    if (own[0] == kNoRow) empty = std::min<size_t>(empty, r), own[0] = 0;
    for (size_t j = 0; j < k; ++j)
      rows[r * k + j] = static_cast<int32_t>(j < kept && own[j] != kNoRow ? own[j] : own[0]);
  }
  return empty;
}

FeatureSearch::FeatureSearch(const float* features, size_t points, size_t channels, const KernelTable& table,
                             Ledger* ledger)
    : points_(points),
      channels_(channels),
      table_(table),
      columns_(channels * whole_panels(points), ledger),
      half_(whole_panels(points), ledger),
      ledger_(ledger) {
  for (size_t first = 0; first < points; first += kPanel) {
    float* panel = columns_.data() + first * channels;
    const size_t count = std::min(kPanel, points - first);
    if (count < kPanel) std::fill_n(panel, kPanel * channels, 0.0f);
    for (size_t p = 0; p < count; ++p)
      for (size_t c = 0; c < channels; ++c) panel[c * kPanel + p] = features[(first + p) * channels + c];
    point_kernels().half_norms(panel, kPanel, channels, half_.data() + first);
  }
}

// fma(-p, q, d) is fma(-q, p, d): a product of matrices, added to half the norms. By panels, whose columns
// stay in the first cache; rows of a whole cloud may all want the same place there.
void FeatureSearch::nearest(const float* queries, size_t first, size_t last, size_t k, size_t dilation,
                            int32_t* rows) const {
  std::vector<float> turned;
  by_keys<float>(
      points_, first, last, k, dilation, rows, true, ledger_,
      [&](size_t r, size_t count, float* keys) {
        turned.assign(queries + r * channels_, queries + (r + count) * channels_);
        for (float& x : turned) x = -x;
        for (size_t p = 0; p < points_; p += kPanel)
          table_.linear(turned.data(), count, channels_, columns_.data() + p * channels_, half_.data() + p,
                        kPanel, Activation::kNone, keys + p * count);
      },
      point_kernels().smallest);
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
  by_keys<int32_t>(
      points_, first, last, k, dilation, rows, false, ledger_,
      [&](size_t r, size_t count, int32_t* keys) {
        table_.mismatches(queries + r * words_, count, matrix_, {0, points_}, keys);
      },
      point_kernels().fewest);
}

}  // namespace popcloud
