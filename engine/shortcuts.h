// Two ways to look at fewer rows or channels for exactly the same answer.
#pragma once
#include "ops.h"

namespace popcloud {

// Moves the distinct rows of x, (rows, words), to its front, in the order of their first occurrence, and
// returns how many there are. A handful of hyperplanes cuts a surface into few cells, so neighbouring points
// often have equal signs. Gives up, keeping more rows than needed, where the first rows show that there is
// little to save.
size_t unique_rows(uint64_t* x, size_t rows, size_t words, Scratch& scratch);

// BINARY_MAX_BITS that forgets a channel as soon as one row decides it: a row with mismatches <= limit makes
// the bit 0 whatever follows. Looks at a few rows, gathers the weights of the channels still open, and goes
// on with those.
void pool_max_bits_early(const Layer& layer, const KernelTable& table, const uint64_t* x, size_t rows,
                         Channels at, uint64_t* out, Scratch& scratch);

}  // namespace popcloud
