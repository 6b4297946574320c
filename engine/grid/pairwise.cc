// Entries row by row to pairs offset by offset: a counting sort that keeps the rows' order.
#include <algorithm>
#include <vector>

#include "grid/grid.h"

namespace popcloud {
namespace {

constexpr size_t kGrain = 256;

using Places = std::vector<std::vector<size_t>>;  // [thread][offset]

Range entries_of(const Gather& rows, size_t row) {
  if (!rows.begin) return {row, row + 1};
  return {rows.begin[row], rows.begin[row + 1]};
}

// How many entries of each offset the rows of each thread have.
Places counts(const Gather& rows, size_t offsets, Pool& pool) {
  Places counted(pool.size(), std::vector<size_t>(offsets));
  pool.run([&](size_t thread) {
    Range range = part(rows.rows, kGrain, thread, pool.size());
    if (range.first == range.last) return;
    size_t first = entries_of(rows, range.first).first, last = entries_of(rows, range.last - 1).last;
    for (size_t i = first; i < last; ++i) ++counted[thread][rows.entries[i] & kOffsetMask];
  });
  return counted;
}

}  // namespace

Pairwise by_offset(const Gather& rows, size_t offsets, Pool& pool, Ledger* ledger) {
  Places next = counts(rows, offsets, pool);
  std::vector<int64_t> ranges;
  size_t total = 0;
  for (size_t offset = 0; offset < offsets; ++offset) {
    ranges.push_back(static_cast<int64_t>(total));
    for (std::vector<size_t>& thread : next) total += std::exchange(thread[offset], total);
    ranges.push_back(static_cast<int64_t>(total));
  }
  Pairwise pairs{Array<int32_t>(total, ledger), Array<int32_t>(total, ledger), std::move(ranges)};
  pool.run([&](size_t thread) {
    Range range = part(rows.rows, kGrain, thread, pool.size());
    size_t* at = next[thread].data();
    for (size_t row = range.first; row < range.last; ++row) {
      Range entries = entries_of(rows, row);
      for (size_t i = entries.first; i < entries.last; ++i) {
        size_t to = at[rows.entries[i] & kOffsetMask]++;
        pairs.inputs[to] = static_cast<int32_t>(rows.entries[i] >> kOffsetBits);
        pairs.outputs[to] = static_cast<int32_t>(row);
      }
    }
  });
  return pairs;
}

}  // namespace popcloud
