// Large arrays, counted: what a run holds, and one clear error where memory ends.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <string>
#include <utility>

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

// Bytes held now, and the most that were held at once since the last reset.
class Ledger {
 public:
  void add(size_t bytes) {
    size_t now = now_ += bytes, peak = peak_;
    while (peak < now && !peak_.compare_exchange_weak(peak, now)) {
    }
  }
  void remove(size_t bytes) { now_ -= bytes; }
  void reset() { peak_ = now_.load(); }
  size_t now() const { return now_; }
  size_t peak() const { return peak_; }

 private:
  std::atomic<size_t> now_{0}, peak_{0};
};

// `count` elements without values yet, aligned to 64 bytes; plain data only. Throws OutOfMemory.
template <class T>
class Array {
 public:
  Array() = default;
  explicit Array(size_t count, Ledger* ledger = nullptr) : size_(count), ledger_(ledger) {
    if (count > SIZE_MAX / 2 / sizeof(T)) throw OutOfMemory(SIZE_MAX / 2);
    data_ = static_cast<T*>(::operator new(bytes() + 64, std::align_val_t{64}, std::nothrow));
    if (!data_) throw OutOfMemory(bytes());
    if (ledger_) ledger_->add(bytes());
  }
  Array(Array&& other) noexcept { swap(other); }
  Array& operator=(Array&& other) noexcept {
    Array old(std::move(other));
    swap(old);
    return *this;
  }
  ~Array() {
    if (ledger_) ledger_->remove(bytes());
    ::operator delete(static_cast<void*>(data_), std::align_val_t{64});
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }
  bool empty() const { return size_ == 0; }

 private:
  void swap(Array& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(ledger_, other.ledger_);
  }

  T* data_ = nullptr;
  size_t size_ = 0;
  Ledger* ledger_ = nullptr;
};

}  // namespace popcloud
