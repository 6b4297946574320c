// How fast each supported table is on one core: GMAC/s of the binary kernels, GFLOP/s of the float one.
// Arguments: [--best] [table ...], by default the table that this CPU would run.
//
// One binary multiply-add is one xor-and-count of two signs. Each figure is the median of many runs.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/kernels.h"

using namespace popcloud;

namespace {

using Clock = std::chrono::steady_clock;

bool best = false;  // the shortest run instead of the median: for tuning on a machine that others use too

double seconds_of(void (*run)(void*), void* what) {
  std::vector<double> seconds;
  const auto start = Clock::now();
  while (seconds.size() < 5 ||
         (seconds.size() < 400 && Clock::now() - start < std::chrono::milliseconds(250))) {
    const auto begin = Clock::now();
    run(what);
    seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[best ? 0 : seconds.size() / 2];
}

struct Job {
  const KernelTable* table;
  size_t rows;
  PackedMatrix w;
  std::vector<uint64_t> x, bits, out;
  std::vector<int32_t> limit, least, where;
  std::vector<uint8_t> memory;
  std::vector<float> fx, fw, fout;
};

Job make_job(const KernelTable& table, size_t rows, size_t inputs, size_t channels) {
  std::mt19937_64 rng(1);
  const size_t words = (inputs + 63) / 64;
  Job job{&table,
          rows,
          {nullptr, words, channels, nullptr},
          std::vector<uint64_t>(rows * words),
          std::vector<uint64_t>(words * channels),
          std::vector<uint64_t>(rows * ((channels + 63) / 64)),
          std::vector<int32_t>(channels, int32_t(inputs / 2)),
          std::vector<int32_t>(channels),
          std::vector<int32_t>(channels),
          {},
          std::vector<float>(rows * inputs),
          std::vector<float>(inputs * channels),
          std::vector<float>(rows * channels)};
  for (uint64_t& v : job.x) v = rng();
  for (uint64_t& v : job.bits) v = rng();
  for (float& v : job.fx) v = float(rng() % 200) / 100 - 1;
  for (float& v : job.fw) v = float(rng() % 200) / 100 - 1;
  job.w.bits = job.bits.data();
  job.memory.resize(table.prepared_bytes(words, channels) + 64);
  job.w.prepared = job.memory.data() + (64 - reinterpret_cast<uintptr_t>(job.memory.data()) % 64) % 64;
  table.prepare(job.w.bits, words, channels, const_cast<void*>(job.w.prepared));
  return job;
}

void run_threshold(void* p) {
  Job& j = *static_cast<Job*>(p);
  j.table->threshold(j.x.data(), j.rows, j.w, {0, j.w.channels}, j.limit.data(), j.out.data());
}
void run_minimum(void* p) {
  Job& j = *static_cast<Job*>(p);
  j.table->minimum(j.x.data(), j.rows, j.w, {0, j.w.channels}, j.least.data(), nullptr);
}
void run_where(void* p) {
  Job& j = *static_cast<Job*>(p);
  j.table->minimum(j.x.data(), j.rows, j.w, {0, j.w.channels}, j.least.data(), j.where.data());
}
void run_mismatches(void* p) {
  Job& j = *static_cast<Job*>(p);
  j.table->mismatches(j.x.data(), j.rows, j.w, {0, j.w.channels}, reinterpret_cast<int32_t*>(j.fout.data()));
}
void run_linear(void* p) {
  Job& j = *static_cast<Job*>(p);
  j.table->linear(j.fx.data(), j.rows, j.fx.size() / j.rows, j.fw.data(), nullptr, j.w.channels,
                  Activation::kRelu, j.fout.data());
}

void bench(const KernelTable& table) {
  std::printf("%-9s %5s %5s %5s %10s %10s %10s %10s  GMAC/s\n", table.name, "rows", "K", "C", "threshold",
              "minimum", "where", "mismatches");
  const size_t shapes[][3] = {{1024, 64, 64},    {1024, 64, 128},   {1024, 64, 1024},
                              {1024, 128, 128},  {1024, 128, 1024}, {1024, 256, 512},
                              {1024, 1024, 512}, {1, 1024, 512},    {1, 256, 4096}};
  for (const auto& s : shapes) {
    Job job = make_job(table, s[0], s[1], s[2]);
    const double giga = double(s[0]) * double(s[1]) * double(s[2]) / 1e9;
    std::printf("%-9s %5zu %5zu %5zu %10.1f %10.1f %10.1f %10.1f\n", "", s[0], s[1], s[2],
                giga / seconds_of(run_threshold, &job), giga / seconds_of(run_minimum, &job),
                giga / seconds_of(run_where, &job), giga / seconds_of(run_mismatches, &job));
  }
  const size_t floats[][3] = {{1024, 3, 64},  {1024, 64, 64}, {1024, 128, 1024},
                              {1, 1024, 512}, {1, 256, 4096}, {1, 256, 40}};
  for (const auto& s : floats) {
    Job job = make_job(table, s[0], s[1], s[2]);
    const double flop = 2 * double(s[0]) * double(s[1]) * double(s[2]) / 1e9;
    std::printf("%-9s %5zu %5zu %5zu linear %.1f GFLOP/s\n", "", s[0], s[1], s[2],
                flop / seconds_of(run_linear, &job));
  }
}

}  // namespace

int main(int count, char** names) {
  best = count > 1 && std::strcmp(names[1], "--best") == 0;
  if (count == 1 + best) bench(best_kernels());
  for (int i = 1 + best; i < count; ++i) {
    const KernelTable* table = find_kernels(names[i]);
    if (!table) return std::printf("%s: unknown, or not for this CPU\n", names[i]), 2;
    bench(*table);
  }
}
