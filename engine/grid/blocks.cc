#include "grid/blocks.h"

#include <algorithm>
#include <utility>

namespace popcloud {

BlockTable::BlockTable(Ledger* ledger, size_t expected) : ledger_(ledger) {
  size_t blocks = 1024;
  while (blocks < expected) blocks *= 2;
  clear_slots(kSlots * blocks);
  blocks_ = Array<Block>(blocks, ledger_);
}

void BlockTable::clear_slots(size_t count) {
  slots_ = Array<uint32_t>();  // first, so that old and new are not held together
  slots_ = Array<uint32_t>(count, ledger_);
  std::fill(slots_.begin(), slots_.end(), kNoBlock);
  mask_ = count - 1;
  shift_ = 64;
  while (count >>= 1) --shift_;
}

uint32_t BlockTable::append(uint64_t key, size_t at) {
  if (size_ == blocks_.size()) {
    grow();
    return add(key);
  }
  slots_[at] = static_cast<uint32_t>(size_);
  blocks_[size_] = {key, 0};
  return static_cast<uint32_t>(size_++);
}

void BlockTable::grow() {
  Array<Block> more(2 * blocks_.size(), ledger_);
  std::copy(blocks_.begin(), blocks_.end(), more.begin());
  blocks_ = std::move(more);
  clear_slots(2 * slots_.size());
  for (size_t i = 0; i < size_; ++i) {
    size_t at = home(blocks_[i].key);
    while (slots_[at] != kNoBlock) at = (at + 1) & mask_;
    slots_[at] = static_cast<uint32_t>(i);
  }
}

Array<Keyed> sorted(Array<Keyed> items, Ledger* ledger) {
  constexpr int kDigit = 11;
  constexpr size_t kValues = size_t{1} << kDigit;
  uint64_t differ = 0;
  for (const Keyed& item : items) differ |= item.key ^ items[0].key;
  Array<Keyed> other(items.size(), ledger);
  for (int shift = 0; shift < 64; shift += kDigit) {
    if (!(differ >> shift & (kValues - 1))) continue;  // all have the same digit here
    size_t next[kValues] = {}, before = 0;
    for (const Keyed& item : items) ++next[item.key >> shift & (kValues - 1)];
    for (size_t& n : next) before += std::exchange(n, before);
    for (const Keyed& item : items) other[next[item.key >> shift & (kValues - 1)]++] = item;
    std::swap(items, other);
  }
  return items;
}

}  // namespace popcloud
