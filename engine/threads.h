// A small pool of threads: the caller and its helpers each run one function once, then meet again.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace popcloud {

// Physical cores this process may run on; at least 1. Two hyperthreads of one core count once: they share its
// vector units, which is all that this engine uses.
int physical_cores();

// Part `index` of `parts` of [0, total), cut at multiples of `grain`: the same cut for the same numbers.
struct Range {
  size_t first, last;
};
Range part(size_t total, size_t grain, size_t index, size_t parts);

class Pool {
 public:
  explicit Pool(int threads);  // starts threads - 1 helpers; the caller of run() is the last of them
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  size_t size() const { return helpers_.size() + 1; }

  // Runs work(0) .. work(size() - 1), one per thread, and returns when all are done. The first exception is
  // thrown again here. Not to be called from within work, nor from two threads at once.
  void run(const std::function<void(size_t)>& work);

 private:
  void serve(size_t index);
  bool wait_for_work(uint64_t seen);
  void work_guarded(size_t index);

  std::vector<std::thread> helpers_;
  const std::function<void(size_t)>* work_ = nullptr;
  std::atomic<uint64_t> round_{0};  // grows by one when there is work
  std::atomic<size_t> busy_{0};     // helpers that still work in this round
  std::atomic<bool> closing_{false};
  std::exception_ptr failure_;
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace popcloud
