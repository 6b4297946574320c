#include "grid/lookup.h"

#include <algorithm>

namespace popcloud {

Steps::Steps(int size, int side, const Offsets& wanted) {
  const int reach = size / 2;
  uint32_t offset = 0;
  for (int x = -reach; x <= reach; ++x)
    for (int y = -reach; y <= reach; ++y) {
      const size_t line = count;
      for (int z = -reach; z <= reach; ++z, ++offset)
        if (wanted[offset]) one[count++] = {(x * side + y) * side + z, offset};
      add_pieces(one + line, one + count);
    }
  vectors = (vectors + 1) / 2;
}

// Adds the steps of one line along z; `vectors` counts pieces until all are there.
void Steps::add_pieces(const Step* begin, const Step* end) {
  while (begin < end) {
    const int32_t first = begin->step;
    Vector& vector = eight[vectors / 2];
    uint32_t* numbers = vector.numbers;
    if (vectors++ % 2 == 0) {
      vector.low = vector.high = first;
      std::fill(numbers, numbers + 8, kAbsent);
    } else {
      vector.high = first;
      numbers += 4;
    }
    for (; begin < end && begin->step < first + 4; ++begin) numbers[begin->step - first] = begin->number;
  }
}

Enter choose_enter() {
#if defined(__x86_64__)
  if (kAvx2.supported()) return enter_avx2;
#endif
  return enter_portable;
}

size_t enter_portable(const Around& around, const Steps& steps, size_t first, size_t last, uint32_t* begin,
                      uint32_t* entries, size_t n) {
  for (size_t row = first; row < last; ++row) {
    begin[row] = static_cast<uint32_t>(n);
    const uint32_t* from = around.table + around.at[around.places[row]];
    for (size_t k = 0; k < steps.count; ++k) {
      const uint32_t entry = from[steps.one[k].step] | steps.one[k].number;
      entries[n] = entry;
      n += entry < kAbsent;
    }
  }
  return n;
}

}  // namespace popcloud
