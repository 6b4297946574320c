#include "threads.h"

#include <algorithm>
#include <fstream>
#include <set>
#include <string>

#ifdef __linux__
#include <sched.h>
#endif

namespace popcloud {
namespace {

// A step takes tens of microseconds and waking a sleeping thread takes about as long, so a helper looks for
// work this often before it sleeps: some tens of microseconds, then it costs nothing.
constexpr int kLooks = 4000;

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

int physical_cores() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    std::set<std::string> cores;  // hyperthreads of one core have the same list of siblings
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &set)) continue;
      std::string own = std::to_string(cpu), siblings;
      std::ifstream file("/sys/devices/system/cpu/cpu" + own + "/topology/thread_siblings_list");
      cores.insert(std::getline(file, siblings) && !siblings.empty() ? siblings : "cpu " + own);
    }
    if (!cores.empty()) return static_cast<int>(cores.size());
  }
#endif
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

Range part(size_t total, size_t grain, size_t index, size_t parts) {
  size_t grains = (total + grain - 1) / grain;
  size_t first = grains * index / parts * grain, last = grains * (index + 1) / parts * grain;
  return {std::min(first, total), std::min(last, total)};
}

Pool::Pool(int threads) {
  for (int i = 1; i < threads; ++i) helpers_.emplace_back([this, i] { serve(static_cast<size_t>(i)); });
}

Pool::~Pool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
  }
  wake_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void Pool::run(const std::function<void(size_t)>& work) {
  if (helpers_.empty()) return work(0);
  work_ = &work;
  failure_ = nullptr;
  busy_ = helpers_.size();
  {
    std::lock_guard<std::mutex> lock(
        mutex_);  // so that no helper falls asleep between its last look and this
    ++round_;
  }
  wake_.notify_all();
  work_guarded(0);
  for (int looks = 0; busy_ != 0; ++looks) looks < kLooks ? relax() : std::this_thread::yield();
  if (failure_) std::rethrow_exception(failure_);
}

void Pool::serve(size_t index) {
  for (uint64_t seen = 0; wait_for_work(seen);) {
    ++seen;
    work_guarded(index);
    --busy_;
  }
}

// Returns false when the pool closes.
bool Pool::wait_for_work(uint64_t seen) {
  for (int looks = 0; looks < kLooks; ++looks) {
    if (round_ != seen) return true;
    if (closing_) return false;
    relax();
  }
  std::unique_lock<std::mutex> lock(mutex_);
  wake_.wait(lock, [&] { return round_ != seen || closing_; });
  return round_ != seen;
}

void Pool::work_guarded(size_t index) {
  try {
    (*work_)(index);
  } catch (...) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

}  // namespace popcloud
