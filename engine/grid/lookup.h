// The inner loop of neighbours.cc: which of the wanted places around a site have a row in a table.
#pragma once
#include <cstddef>
#include <cstdint>

#include "grid/grid.h"

namespace popcloud {

constexpr uint32_t kAbsent = 1u << 31;  // in a table: nothing here; a row times 128 has not this bit

// What to read around a site, from the site on: offset number `number` lies `step` further on in the table.
// And the same four by four, two such pieces to a vector: the lanes of a piece lie side by side; a lane that
// is not wanted has a number with kAbsent.
struct Steps {
  struct Step {
    int32_t step;
    uint32_t number;
  };
  struct Vector {
    int32_t low, high;
    uint32_t numbers[8];
  };

  // Of a cube of size^3 offsets in a table of side^3 rows, x slowest.
  Steps(int size, int side, const Offsets& wanted);

  size_t count = 0, vectors = 0;
  Step one[kMostOffsets];
  Vector eight[kMostOffsets];

 private:
  void add_pieces(const Step* begin, const Step* end);
};

// Sites whose neighbours are looked up: row r lies at table[at[places[r]]].
struct Around {
  const uint32_t* table;
  const int32_t* at;
  const uint16_t* places;
};

// Writes the entries of rows first to last - 1 one after the other from entries[n] on, and to begin[row]
// where each row's start. Returns the end. Entries are written before they are known to be any: behind the
// last one there must be room for all offsets and kSlack more, and behind the table for kSlack rows.
using Enter = size_t (*)(const Around& around, const Steps& steps, size_t first, size_t last, uint32_t* begin,
                         uint32_t* entries, size_t n);
constexpr size_t kSlack = 8;

// The fastest one for this processor; all write the same.
Enter choose_enter();

size_t enter_portable(const Around& around, const Steps& steps, size_t first, size_t last, uint32_t* begin,
                      uint32_t* entries, size_t n);
#if defined(__x86_64__)
size_t enter_avx2(const Around& around, const Steps& steps, size_t first, size_t last, uint32_t* begin,
                  uint32_t* entries, size_t n);
#endif

}  // namespace popcloud
