#include "sparse.h"

#include <algorithm>
#include <string>

#include "engine.h"

namespace popcloud {
namespace {

// Bytes of inputs and outputs that a tile of output rows touches: they stay in the second cache while the
// offsets pass by, and the weights of all offsets are read once per tile.
constexpr size_t kTileBytes = 256 << 10;
constexpr size_t kFewestRows = 128, kMostRows = 4096;

size_t tile_rows(size_t channels) {
  return std::clamp(kTileBytes / (sizeof(float) * std::max<size_t>(channels, 1)), kFewestRows, kMostRows);
}

// The pairs of offset k whose output row is in [first, last).
Pairs within(const KernelMap& map, size_t k, size_t first, size_t last) {
  const int32_t *begin = map.outputs + map.ranges[2 * k], *end = map.outputs + map.ranges[2 * k + 1];
  begin = std::lower_bound(begin, end, static_cast<int64_t>(first));
  end = std::lower_bound(begin, end, static_cast<int64_t>(last));
  return {map.inputs + (begin - map.outputs), begin, static_cast<size_t>(end - begin)};
}

// Calls work(i) for each i in [0, count), each once; who is free takes the next.
template <class Work>
void share(Pool& pool, size_t count, const Work& work) {
  std::atomic<size_t> next{0};
  pool.run([&](size_t) {
    for (size_t i = next++; i < count; i = next++) work(i);
  });
}

void refuse(const std::string& what) { throw Error(Fault::kEngine, "kernel map: " + what); }

void check_range(const KernelMap& map, size_t k) {
  const int64_t begin = map.ranges[2 * k], end = map.ranges[2 * k + 1];
  if (begin < 0 || end < begin || static_cast<uint64_t>(end) > map.pairs)
    refuse("range " + std::to_string(k) + " is [" + std::to_string(begin) + ", " + std::to_string(end) +
           ") of " + std::to_string(map.pairs) + " pairs");
}

// Signs instead of comparisons, so that any vector instruction set will do: the highest bit of the answer
// says whether a row is negative or >= rows.
uint32_t outside(const int32_t* row, size_t count, size_t rows) {
  if (rows == 0 && count > 0) return ~0u;
  const uint32_t last = static_cast<uint32_t>(rows) - 1;
  uint32_t bad = 0;
  for (size_t i = 0; i < count; ++i)
    bad |= static_cast<uint32_t>(row[i]) | (last - static_cast<uint32_t>(row[i]));
  return bad;
}

// The highest bit of the answer says whether a row is negative, not greater than the one before, or >= rows.
uint32_t disordered(const int32_t* row, size_t count, size_t rows) {
  if (count == 0) return 0;
  uint32_t bad = outside(row, 1, rows) | outside(row + count - 1, 1, rows);
  for (size_t i = 1; i < count; ++i)
    bad |= static_cast<uint32_t>(row[i]) |
           (static_cast<uint32_t>(row[i]) - static_cast<uint32_t>(row[i - 1]) - 1);
  return bad;
}

}  // namespace

void check_map(const KernelMap& map, size_t input_rows, size_t output_rows) {
  constexpr uint32_t kSign = 1u << 31;
  if (std::max(input_rows, output_rows) > kSign) refuse("more than 2^31 rows");
  for (size_t k = 0; k < map.offsets; ++k) {
    check_range(map, k);
    const size_t begin = static_cast<size_t>(map.ranges[2 * k]),
                 count = static_cast<size_t>(map.ranges[2 * k + 1]) - begin;
    if (outside(map.inputs + begin, count, input_rows) & kSign)
      refuse("an input row of offset " + std::to_string(k) + " is not one of " + std::to_string(input_rows));
    if (disordered(map.outputs + begin, count, output_rows) & kSign)
      refuse("the output rows of offset " + std::to_string(k) + " must ascend within the " +
             std::to_string(output_rows) + "; sort the pairs of each offset by output row");
  }
}

void sparse_conv(const KernelTable& table, Pool& pool, const KernelMap& map, FloatRows x, const float* w,
                 size_t channels, float* y, size_t y_stride, size_t rows) {
  const size_t tile = tile_rows(x.channels + channels);
  share(pool, (rows + tile - 1) / tile, [&](size_t i) {
    for (size_t k = 0; k < map.offsets; ++k)
      table.sparse_conv(x, w + k * x.channels * channels, channels, within(map, k, i * tile, (i + 1) * tile),
                        y, y_stride);
  });
}

void sparse_weight_grad(const KernelTable& table, Pool& pool, const KernelMap& map, FloatRows x, FloatRows dy,
                        size_t rows, float* dw) {
  const size_t tile = tile_rows(x.channels + dy.channels);
  // Several offsets share a walk over the rows; several walks per thread keep the threads evenly busy.
  const size_t walks = pool.size() == 1 ? 1 : std::min(map.offsets, 4 * pool.size());
  share(pool, walks, [&](size_t i) {
    const Range offsets = part(map.offsets, 1, i, walks);
    for (size_t first = 0; first < rows; first += tile)
      for (size_t k = offsets.first; k < offsets.last; ++k)
        table.sparse_weight_grad(x, dy, within(map, k, first, first + tile),
                                 dw + k * x.channels * dy.channels);
  });
}

}  // namespace popcloud
