// An order of places in space, for those who ask one after the other.
#pragma once
#include <cstddef>
#include <cstdint>

#include "memory.h"

namespace popcloud {

// Rows first to last - 1 of xyz in Morton order of their cells, 1024 along each axis of the box around them:
// who follows is near, and finds in the cache what it needs. Nothing but speed depends on it.
Array<uint32_t> in_space(const float* xyz, size_t first, size_t last);

}  // namespace popcloud
