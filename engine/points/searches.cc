#include "points/searches.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <string>

#include "points/neighbours.h"

namespace popcloud {
namespace {

constexpr size_t kLeastShared = 64;  // queries, below which meeting again costs more than the work

// work(first, last) for all of [0, count), cut over the threads.
template <class Work>
void share(size_t count, Pool* pool, const Work& work) {
  if (!pool || count < kLeastShared) return work(size_t{0}, count);
  pool->run([&](size_t thread) {
    const Range range = part(count, 1, thread, pool->size());
    if (range.first < range.last) work(range.first, range.last);
  });
}

template <class Searcher, class T>
void nearest_of(const Layer& layer, const Searcher& searcher, const Search& search, Pool* pool) {
  const size_t k = layer.channels, dilation = static_cast<size_t>(layer.integers[0]);
  auto queries = static_cast<const T*>(search.queries);
  auto rows = static_cast<int32_t*>(search.output);
  share(search.query_rows, pool,
        [&](size_t first, size_t last) { searcher.nearest(queries, first, last, k, dilation, rows); });
}

void balls(const Layer& layer, const Search& search, Pool* pool) {
  const PointSearch searcher(static_cast<const float*>(search.points), search.point_rows);
  auto queries = static_cast<const float*>(search.queries);
  auto rows = static_cast<int32_t*>(search.output);
  std::mutex mutex;
  size_t empty = search.query_rows;  // the first query with nothing around it
  share(search.query_rows, pool, [&](size_t first, size_t last) {
    const size_t found = searcher.ball(queries, first, last, layer.number, layer.channels, rows);
    if (found == last) return;
    std::lock_guard<std::mutex> lock(mutex);
    empty = std::min(empty, found);
  });
  if (empty < search.query_rows) throw_empty_ball(empty, layer.number);
}

// Throws Error(kCloud) if a position (rows, 3) that the network made is infinite or NaN: nothing is near or
// far then.
void check_positions(const void* positions, size_t rows) {
  auto x = static_cast<const float*>(positions);
  for (size_t i = 0; i < 3 * rows; ++i)
    if (!std::isfinite(x[i]))
      throw Error(Fault::kCloud,
                  "position " + std::to_string(i / 3) + " is not finite; expected what float32 holds");
}

void look(const Layer& layer, const KernelTable& table, const Search& search, Pool* pool) {
  auto points = static_cast<const float*>(search.points);
  if (layer.op >= Op::kNearest && layer.op <= Op::kNearestSigns)
    check_nearest(search.point_rows, layer.channels, static_cast<size_t>(layer.integers[0]));
  if (layer.op != Op::kNearestFeatures && layer.op != Op::kNearestSigns) {
    check_positions(search.queries, search.query_rows);
    check_positions(search.points, search.point_rows);
  }
  switch (layer.op) {
    case Op::kFarthestPoints:
      return farthest_points(static_cast<const float*>(search.queries), search.query_rows, search.output_rows,
                             static_cast<int32_t*>(search.output));
    case Op::kNearest:
      return nearest_of<PointSearch, float>(layer, PointSearch(points, search.point_rows), search, pool);
    case Op::kNearestFeatures: {
      const FeatureSearch searcher(points, search.point_rows, layer.inputs, table);
      return nearest_of<FeatureSearch, float>(layer, searcher, search, pool);
    }
    case Op::kNearestSigns: {
      const SignSearch searcher(static_cast<const uint64_t*>(search.points), search.point_rows,
                                words_of(layer.inputs), table);
      return nearest_of<SignSearch, uint64_t>(layer, searcher, search, pool);
    }
    case Op::kBall:
      return balls(layer, search, pool);
    default:
      return share(search.query_rows, pool, [&](size_t first, size_t last) {
        density(static_cast<const float*>(search.queries), search.query_rows, layer.number, first, last,
                static_cast<float*>(search.output));
      });
  }
}

}  // namespace

void run_search(const Layer& layer, const KernelTable& table, const std::string& name, const Search& search,
                Pool* pool) {
  try {
    look(layer, table, search, pool);
  } catch (const Error& error) {
    throw Error(error.fault(), "layer '" + name + "': " + error.what());
  }
}

}  // namespace popcloud
