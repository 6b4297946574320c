// How fast each supported table is on one core: GMAC/s of the binary kernels, GFLOP/s of the float one.
// Arguments: [--best] [--sparse] [table ...], by default the table that this CPU would run.
//
// One binary multiply-add is one xor-and-count of two signs. Each figure is the median of many runs.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/kernels.h"
#include "memory.h"

using namespace popcloud;

namespace {

using Clock = std::chrono::steady_clock;

bool best = false;  // the shortest run instead of the median: for tuning on a machine that others use too

double seconds_of(void (*run)(void*), void* what) {
  std::vector<double> seconds;
  const auto start = Clock::now();
  while (seconds.size() < 5 ||
         (seconds.size() < 400 && Clock::now() - start < std::chrono::milliseconds(400))) {
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

// Sites of a scene, each with itself and some of its 26 neighbours, which lie near in the order of rows.
struct Scene {
  std::vector<uint32_t> begin{0}, entries;
  explicit Scene(size_t rows) {
    std::mt19937_64 rng(1);
    for (size_t r = 0; r < rows; ++r) {
      for (uint32_t o = 0; o < 27; ++o) {
        const uint64_t row = o == 13 ? r : std::min<uint64_t>(rows - 1, r + rng() % (rng() % 8 ? 32 : 2000));
        if (o == 13 || rng() % 4 == 0) entries.push_back(uint32_t(row << kOffsetBits) | o);
      }
      begin.push_back(uint32_t(entries.size()));
    }
  }
  Gather gather() const { return {begin.data(), entries.data(), begin.size() - 1}; }
};

// A binary convolution of a scene, and what follows its sums.
struct SparseJob {
  const KernelTable* table;
  const Scene* scene;
  std::vector<uint64_t> x, bits, seen;
  std::vector<uint8_t> memory;
  SignKernel w;
  Array<float> sums, shortcut, out, constants;
  std::vector<uint64_t> words[3];
  uint64_t* outputs[3];
  Finish finish;
};

constexpr size_t kTileRows = 128;  // whose sums stay in the second cache, as in a run

void run_sum_signs(void* p) {
  SparseJob& j = *static_cast<SparseJob*>(p);
  const Gather all = j.scene->gather();
  for (size_t r = 0; r < all.rows; r += kTileRows)
    j.table->sum_signs(j.x.data(), j.w, {all.begin + r, all.entries, std::min(all.rows - r, kTileRows)},
                       j.sums.data(), j.w.channels);
}
void run_finish(void* p) {
  SparseJob& j = *static_cast<SparseJob*>(p);
  const size_t rows = j.scene->gather().rows, channels = j.w.channels;
  for (size_t r = 0; r < rows; r += kTileRows) {
    Finish what = j.finish;
    uint64_t* bits[3];
    for (int i = 0; i < 3; ++i) bits[i] = j.outputs[i] + r * ((channels + 63) / 64);
    what.shortcut += r * channels, what.out += r * channels, what.bits = bits;
    j.table->finish(j.sums.data(), std::min(rows - r, kTileRows), what);
  }
}

// Into `job`, as its parts point at each other.
void make_sparse_job(const KernelTable& table, const Scene& scene, size_t inputs, size_t channels,
                     SparseJob& job) {
  std::mt19937_64 rng(1);
  const size_t rows = scene.begin.size() - 1, words = (inputs + 63) / 64, out_words = (channels + 63) / 64;
  const uint64_t mask = inputs % 64 ? (uint64_t{1} << inputs % 64) - 1 : ~uint64_t{0};
  job.table = &table, job.scene = &scene;
  job.x.resize(rows * words), job.bits.resize(27 * words * channels),
      job.seen.assign(27 * out_words, ~uint64_t{0});
  for (size_t i = 0; i < job.x.size(); ++i) job.x[i] = i % words == words - 1 ? rng() & mask : rng();
  for (size_t i = 0; i < job.bits.size(); ++i)
    job.bits[i] = i / channels % words == words - 1 ? rng() & mask : rng();
  job.w = {27, inputs, channels, job.bits.data(), job.seen.data(), nullptr};
  job.memory.resize(table.sign_kernel_bytes(job.w) + 64);
  void* prepared = job.memory.data() + (64 - reinterpret_cast<uintptr_t>(job.memory.data()) % 64) % 64;
  table.prepare_sign_kernel(job.w, prepared);
  if (job.memory.size() > 64) job.w.prepared = prepared;
  job.sums = Array<float>(kTileRows * channels), job.shortcut = Array<float>(rows * channels);
  job.out = Array<float>(rows * channels), job.constants = Array<float>(8 * channels);
  for (Array<float>* each : {&job.sums, &job.shortcut, &job.out, &job.constants})
    for (float& v : *each) v = float(rng() % 200) / 100 - 1;
  for (int i = 0; i < 3; ++i) job.words[i].resize(rows * out_words), job.outputs[i] = job.words[i].data();
  const float* c = job.constants.data();
  job.finish = {channels,
                c,
                c + channels,
                Activation::kRprelu,
                c + 2 * channels,
                job.shortcut.data(),
                nullptr,
                job.out.data(),
                3,
                c + 5 * channels,
                job.outputs};
}

void bench_sparse(const KernelTable& table) {
  const Scene scene(190000);
  const size_t shapes[][2] = {{16, 16}, {32, 32}, {48, 48}, {64, 64}, {112, 112}, {128, 128}, {192, 128}};
  std::printf("%-9s a scene of 190,000 sites, %.1f neighbours each\n", table.name,
              double(scene.entries.size()) / 190000);
  for (const auto& s : shapes) {
    SparseJob job;
    make_sparse_job(table, scene, s[0], s[1], job);
    const double giga = double(scene.entries.size()) * double(s[0]) * double(s[1]) / 1e9;
    const double sums = seconds_of(run_sum_signs, &job), rest = seconds_of(run_finish, &job);
    std::printf("%-9s %5s %5zu %5zu sum_signs %8.2f ms %8.1f GMAC/s, finish %8.2f ms\n", "", "", s[0], s[1],
                sums * 1e3, giga / sums, rest * 1e3);
  }
}

}  // namespace

int main(int count, char** names) {
  int first = 1;
  bool sparse = false;  // only the kernels of sparse layers
  for (; first < count && names[first][0] == '-'; ++first) {
    best = best || std::strcmp(names[first], "--best") == 0;
    sparse = sparse || std::strcmp(names[first], "--sparse") == 0;
  }
  std::vector<const KernelTable*> tables;
  if (first == count) tables.push_back(&best_kernels());
  for (int i = first; i < count; ++i) {
    tables.push_back(find_kernels(names[i]));
    if (!tables.back()) return std::printf("%s: unknown, or not for this CPU\n", names[i]), 2;
  }
  for (const KernelTable* table : tables) {
    if (!sparse) bench(*table);
    bench_sparse(*table);
  }
}
