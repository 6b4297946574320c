#include "grid/blocks.h"

namespace popcloud {

BlockTable::BlockTable(Ledger* ledger, size_t expected) : ledger_(ledger) {
  size_t slots = 1024;
  while (slots < 2 * expected) slots *= 2;
  clear_slots(slots);
  blocks_ = Array<Block>(slots / 2, ledger_);
}

void BlockTable::clear_slots(size_t count) {
  slots_ = Array<Slot>();  // first, so that old and new are not held together
  slots_ = Array<Slot>(count, ledger_);
  for (Slot& slot : slots_) slot = {kNoKey, kNoBlock};
  mask_ = count - 1;
  shift_ = 64;
  while (count >>= 1) --shift_;
}

uint32_t BlockTable::append(uint64_t key, size_t at) {
  if (size_ == blocks_.size()) {
    grow();
    return add(key);
  }
  slots_[at] = {key, static_cast<uint32_t>(size_)};
  blocks_[size_] = {key, 0};
  return static_cast<uint32_t>(size_++);
}

void BlockTable::grow() {
  Array<Block> more(2 * blocks_.size(), ledger_);
  for (size_t i = 0; i < size_; ++i) more[i] = blocks_[i];
  blocks_ = std::move(more);
  clear_slots(2 * slots_.size());
  for (size_t i = 0; i < size_; ++i) {
    size_t at = home(blocks_[i].key);
    while (slots_[at].key != kNoKey) at = (at + 1) & mask_;
    slots_[at] = {blocks_[i].key, static_cast<uint32_t>(i)};
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
