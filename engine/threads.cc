#include "threads.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <system_error>

#include "engine.h"

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

Pool::Pool(int threads)
    : size_(static_cast<size_t>(threads)),
      owner_(getpid()),
      ticket_(size_),  // no part is left of round 0
      helpers_(new Helpers) {
  try {
    for (int i = 1; i < threads; ++i) helpers_->threads.emplace_back([this] { serve(); });
  } catch (const std::system_error&) {
    close();
    throw Error(Fault::kEngine,
                "the system does not allow " + std::to_string(threads) + " threads; ask for fewer");
  } catch (...) {  // memory has ended; threads that nobody joins would end the process
    close();
    throw;
  }
}

Pool::~Pool() {
  if (in_child_of_fork()) {
    // Joining threads that are not there would wait for ever, and so would destroying what they wait for.
    static_cast<void>(helpers_.release());
    return;
  }
  close();
}

void Pool::close() {
  {
    std::lock_guard<std::mutex> lock(helpers_->mutex);
    closing_ = true;
  }
  helpers_->wake.notify_all();
  for (std::thread& helper : helpers_->threads) helper.join();
}

bool Pool::in_child_of_fork() const { return size_ > 1 && getpid() != owner_; }

void Pool::run(const std::function<void(size_t)>& work) {
  if (size_ == 1) return work(0);
  if (in_child_of_fork()) {
    for (size_t i = 0; i < size_; ++i) work(i);
    return;
  }
  work_ = &work;
  failure_ = nullptr;
  done_ = 0;
  {
    // Under the lock, so that no helper falls asleep between its last look and this.
    std::lock_guard<std::mutex> lock(helpers_->mutex);
    ticket_ = ((ticket_ >> 32) + 1) << 32;
  }
  helpers_->wake.notify_all();
  while (take_part()) continue;
  for (int looks = 0; done_ != size_; ++looks) looks < kLooks ? relax() : std::this_thread::yield();
  if (failure_) std::rethrow_exception(failure_);
}

void Pool::serve() {
  while (wait_for_work())
    while (take_part()) continue;
}

bool Pool::has_part() const { return (ticket_ & UINT32_MAX) < size_; }

// Returns false when the pool closes.
bool Pool::wait_for_work() {
  for (int looks = 0; looks < kLooks; ++looks) {
    if (closing_) return false;
    if (has_part()) return true;
    relax();
  }
  std::unique_lock<std::mutex> lock(helpers_->mutex);
  helpers_->wake.wait(lock, [&] { return has_part() || closing_; });
  return !closing_;
}

// Does the next part; false if none is left. run() does not return before a part that was taken is done, and
// a ticket names its round, so whoever got a part may read work_.
bool Pool::take_part() {
  uint64_t ticket = ticket_;
  do {
    if ((ticket & UINT32_MAX) >= size_) return false;
  } while (!ticket_.compare_exchange_weak(ticket, ticket + 1));
  try {
    size_t part = ticket & UINT32_MAX;
    (*work_)(part);
  } catch (...) {
    std::lock_guard<std::mutex> lock(helpers_->mutex);
    if (!failure_) failure_ = std::current_exception();
  }
  ++done_;
  return true;
}

}  // namespace popcloud
