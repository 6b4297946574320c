// A small pool of threads: the caller and its helpers share the parts of one piece of work, then meet again.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
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

  size_t size() const { return size_; }

  // Runs work(0) .. work(size() - 1), each once, and returns when all are done. Who is free takes the next
  // part, so a helper that sleeps or lost its core holds nobody up. The first exception is thrown again here.
  // Not to be called from within work, nor from two threads at once. After fork() the child has no helpers:
  // there the caller does all parts.
  void run(const std::function<void(size_t)>& work);

 private:
  // What waits, and what it waits with.
  struct Helpers {
    std::vector<std::thread> threads;
    std::mutex mutex;
    std::condition_variable wake;
  };

  bool in_child_of_fork() const;
  void close();
  void serve();
  bool wait_for_work();
  bool has_part() const;
  bool take_part();

  const size_t size_;
  const long owner_;  // the process that has the helpers
  const std::function<void(size_t)>* work_ = nullptr;
  std::atomic<uint64_t> ticket_;  // the round in the upper half, the next part in the lower
  std::atomic<size_t> done_{0};   // parts of this round
  std::atomic<bool> closing_{false};
  std::exception_ptr failure_;
  std::unique_ptr<Helpers> helpers_;  // last: they use all of the above
};

}  // namespace popcloud
