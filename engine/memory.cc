#include "memory.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>

namespace popcloud {
namespace {

constexpr std::align_val_t kAlignment{64};
constexpr size_t kBehind = 64;
constexpr size_t kHuge = size_t{2} << 20;  // bytes of a huge page

// Pages of 2 MB instead of 4 KB: the system hands out 512 times fewer, and rows far apart are found faster.
void ask_for_huge_pages(void* data, size_t bytes) {
#ifdef __linux__
  const auto first = (reinterpret_cast<uintptr_t>(data) + kHuge - 1) / kHuge * kHuge;
  const auto last = (reinterpret_cast<uintptr_t>(data) + bytes) / kHuge * kHuge;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // a wish, no need
#else
  static_cast<void>(data), static_cast<void>(bytes);
#endif
}

}  // namespace

void* allocate(size_t bytes) {
  void* data = ::operator new(bytes + kBehind, kAlignment, std::nothrow);
  if (!data) throw OutOfMemory(bytes);
  if (bytes >= 2 * kHuge) ask_for_huge_pages(data, bytes);
  return data;
}

void release(void* data) { ::operator delete(data, kAlignment); }

Ledger::Block Ledger::take(size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  // The smallest that is large enough, and not so large that most of it would lie idle.
  auto best = free_.end();
  for (auto block = free_.begin(); block != free_.end(); ++block)
    if (block->bytes >= bytes && block->bytes / 2 <= bytes)
      if (best == free_.end() || block->bytes < best->bytes) best = block;
  if (best != free_.end()) {
    const Block block = *best;
    free_.erase(best);
    return block;
  }
  // A scene larger than the one before: what is too small for it would pile up.
  drop(bytes / 2, bytes);
  free_.reserve(blocks_ + 1);  // so that giving back never fails
  const Block block{fetch(bytes), bytes};
  ++blocks_;
  held_ += bytes;
  peak_ = std::max(peak_, held_);
  return block;
}

void Ledger::give(const Block& block) {
  if (!block.data) return;
  std::lock_guard<std::mutex> lock(mutex_);
  free_.push_back(block);
}

void Ledger::reset() {
  std::lock_guard<std::mutex> lock(mutex_);
  peak_ = held_;
}

size_t Ledger::peak() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return peak_;
}

size_t Ledger::held() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return held_;
}

// What is kept of other sizes may be what is missing.
void* Ledger::fetch(size_t bytes) {
  try {
    return allocate(bytes);
  } catch (const OutOfMemory&) {
    if (free_.empty()) throw;
  }
  drop(0, SIZE_MAX);
  return allocate(bytes);
}

// Lets go of free blocks of these sizes.
void Ledger::drop(size_t above, size_t below) {
  for (size_t i = free_.size(); i-- > 0;)
    if (free_[i].bytes >= above && free_[i].bytes < below) {
      --blocks_;
      held_ -= free_[i].bytes;
      release(free_[i].data);
      free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(i));
    }
}

}  // namespace popcloud
