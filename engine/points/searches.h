// The ops that answer for all points of a level at once: searches for points, and DENSITY.
#pragma once
#include <string>

#include "ops.h"
#include "threads.h"

namespace popcloud {

// A search's inputs and how many rows each has, the second one 0 where there is none, and its answer's rows.
struct Search {
  const void *queries, *points;
  size_t query_rows, point_rows;
  void* output;
  size_t output_rows;
};

// Runs it, over the threads of `pool` or here where that is null. `name` is the layer's, for errors. Throws
// Error(kCloud) if there are too few points, none in a ball, or a position that is not finite.
void run_search(const Layer& layer, const KernelTable& table, const std::string& name, const Search& search,
                Pool* pool);

}  // namespace popcloud
