// Large arrays, counted: what a run holds, and one clear error where memory ends.
#pragma once
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace popcloud {

// Says how many bytes were asked for.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(size_t bytes)
      : what_("out of memory: " + std::to_string(bytes) +
              " bytes could not be had; run the cloud in smaller tiles, or with a larger voxel edge") {}
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  std::string what_;
};

// Memory for the arrays of one engine. What an array gives back is kept for the next one: asking the system
// again for memory that it has to clear first would take a tenth of a run. Counts bytes, kept ones too.
class Ledger {
 public:
  struct Block {
    void* data;
    size_t bytes;
  };

  Ledger() = default;
  Ledger(const Ledger&) = delete;
  ~Ledger() { drop(0, SIZE_MAX); }

  Block take(size_t bytes);  // of at least so many. Throws OutOfMemory
  void give(const Block& block);
  void reset();  // from now on `peak` counts anew
  size_t peak() const;
  size_t held() const;

 private:
  void* fetch(size_t bytes);
  void drop(size_t above, size_t below);

  mutable std::mutex mutex_;
  std::vector<Block> free_;
  size_t blocks_ = 0, held_ = 0, peak_ = 0;
};

// Aligned to 64 bytes, with 64 bytes behind that may be read. Throws OutOfMemory.
void* allocate(size_t bytes);
void release(void* data);

// `count` elements without values yet, aligned to 64 bytes; plain data only. Throws OutOfMemory.
template <class T>
class Array {
 public:
  Array() = default;
  explicit Array(size_t count, Ledger* ledger = nullptr) : size_(count), ledger_(ledger) {
    if (count > SIZE_MAX / 2 / sizeof(T)) throw OutOfMemory(SIZE_MAX / 2);
    block_ = ledger ? ledger->take(bytes()) : Ledger::Block{allocate(bytes()), bytes()};
  }
  Array(Array&& other) noexcept { swap(other); }
  Array& operator=(Array&& other) noexcept {
    Array old(std::move(other));
    swap(old);
    return *this;
  }
  ~Array() {
    if (ledger_)
      ledger_->give(block_);
    else
      release(block_.data);
  }

  // Keeps the first `count` elements, and the memory.
  void shrink(size_t count) { size_ = count; }

  T* data() { return static_cast<T*>(block_.data); }
  const T* data() const { return static_cast<const T*>(block_.data); }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size_; }
  T& operator[](size_t i) { return data()[i]; }
  const T& operator[](size_t i) const { return data()[i]; }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }
  bool empty() const { return size_ == 0; }

 private:
  void swap(Array& other) noexcept {
    std::swap(block_, other.block_);
    std::swap(size_, other.size_);
    std::swap(ledger_, other.ledger_);
  }

  Ledger::Block block_{nullptr, 0};
  size_t size_ = 0;
  Ledger* ledger_ = nullptr;
};

}  // namespace popcloud
