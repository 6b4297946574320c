// Blocks of sites: found by a hash of their coordinates, put in order by a sort of their Morton keys.
#pragma once
#include <cstdint>

#include "memory.h"

namespace popcloud {

// A cube of 4^3 sites, aligned to its own size.
struct Block {
  uint64_t key;    // its coordinates, side by side
  uint64_t sites;  // bit p: there is a site at place p, the Morton code of the place within the block
};

// Numbers blocks in the order in which they are first met.
class BlockTable {
 public:
  explicit BlockTable(Ledger* ledger, size_t expected = 1024);

  // The number of the block with that key; a new, empty block if there was none.
  uint32_t add(uint64_t key) {
    for (size_t at = home(key);; at = (at + 1) & mask_) {
      const uint32_t number = slots_[at];
      if (number == kNoBlock) return append(key, at);
      if (blocks_[number].key == key) return number;
    }
  }

  // The number of the block with that key, kNoBlock if there is none.
  uint32_t find(uint64_t key) const {
    for (size_t at = home(key);; at = (at + 1) & mask_)
      if (slots_[at] == kNoBlock || blocks_[slots_[at]].key == key) return slots_[at];
  }

  size_t size() const { return size_; }
  Block& operator[](size_t number) { return blocks_[number]; }
  const Block& operator[](size_t number) const { return blocks_[number]; }

  static constexpr uint32_t kNoBlock = UINT32_MAX;

 private:
  static constexpr size_t kSlots = 4;  // per block, at least

  size_t home(uint64_t key) const { return (key * 0x9E3779B97F4A7C15) >> shift_; }
  uint32_t append(uint64_t key, size_t at);
  void clear_slots(size_t count);
  void grow();

  Ledger* ledger_;
  size_t size_ = 0, mask_ = 0;
  int shift_ = 0;
  Array<uint32_t> slots_;  // a power of two of block numbers: small, so that they stay in the cache
  Array<Block> blocks_;
};

// A number with two zeros before each of its lowest 21 bits.
inline uint64_t spread(uint64_t bits) {
  bits = (bits | bits << 32) & 0x1F00000000FFFF;
  bits = (bits | bits << 16) & 0x1F0000FF0000FF;
  bits = (bits | bits << 8) & 0x100F00F00F00F00F;
  bits = (bits | bits << 4) & 0x10C30C30C30C30C3;
  return (bits | bits << 2) & 0x1249249249249249;
}

// Bits that are set. Without the processor's own instruction, which not every x86 has.
inline uint32_t count_bits(uint64_t bits) {
  bits -= bits >> 1 & 0x5555555555555555;
  bits = (bits & 0x3333333333333333) + (bits >> 2 & 0x3333333333333333);
  return static_cast<uint32_t>(((bits + (bits >> 4)) & 0x0F0F0F0F0F0F0F0F) * 0x0101010101010101 >> 56);
}

struct Keyed {
  uint64_t key, index;
};

// The items by ascending key, equal ones in the order they had.
Array<Keyed> sorted(Array<Keyed> items, Ledger* ledger);

}  // namespace popcloud
