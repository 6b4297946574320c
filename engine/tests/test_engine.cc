// The engine on a network for clouds: run equals its steps one by one, every way gives the same bits. Exit
// code 1 if something does not hold.
#include <algorithm>
#include <atomic>

#include "model_writer.h"
#include "shortcuts.h"
#include "threads.h"

using namespace popcloud;
using namespace popcloud::tests;

namespace {

std::vector<Cloud> make_clouds(std::vector<std::vector<float>>& xyz) {
  std::mt19937 rng(3);
  std::normal_distribution<float> normal;
  std::vector<Cloud> clouds;
  for (size_t points : {1, 17, 400, 1000}) {
    std::vector<float> cloud(3 * points);
    for (float& x : cloud) x = normal(rng);
    for (size_t i = 3; i + 3 < cloud.size(); i += 6)
      std::copy_n(&cloud[i - 3], 3, &cloud[i]);  // equal neighbours
    xyz.push_back(cloud);
  }
  for (const auto& cloud : xyz) clouds.push_back({cloud.data(), cloud.size() / 3});
  return clouds;
}

// Runs one cloud step by step, each alone.
std::vector<float> by_steps(Engine& engine, const Cloud& cloud) {
  std::vector<Bytes> memory(engine.values().size());
  auto xyz = reinterpret_cast<const uint8_t*>(cloud.xyz);
  memory[0].assign(xyz, xyz + 12 * cloud.points);
  for (size_t s = 0; s < engine.steps().size(); ++s) {
    const Wiring& wiring = engine.steps()[s];
    const Value& value = engine.values()[wiring.outputs[0]];
    memory[wiring.outputs[0]].resize(value.row_bytes() * (value.rows == Rows::kPoint ? cloud.points : 1));
    std::vector<const void*> inputs;
    for (size_t i : wiring.inputs) inputs.push_back(memory[i].data());
    engine.step(s, inputs.data(), cloud.points, memory[wiring.outputs[0]].data());
  }
  std::vector<float> answer(engine.classes().size());
  std::memcpy(answer.data(), memory[engine.steps().back().outputs[0]].data(), 4 * answer.size());
  return answer;
}

void test_ways() {
  File file;
  Bytes bytes = cloud_network(2);
  file.write(bytes, bytes.size());
  std::vector<std::vector<float>> xyz;
  std::vector<Cloud> clouds = make_clouds(xyz);
  Engine plain(file.path, Options{"portable", 1, false, false, false});
  std::vector<float> wanted;
  for (const Cloud& cloud : clouds)
    for (float y : by_steps(plain, cloud)) wanted.push_back(y);
  for (const std::string& kernels : available_kernels())
    for (int threads : {1, 2, 3})
      for (int ways = 0; ways < 8; ++ways) {
        Engine engine(file.path,
                      Options{kernels, threads, (ways & 1) != 0, (ways & 2) != 0, (ways & 4) != 0});
        std::vector<float> answers(wanted.size());
        engine.run(clouds.data(), clouds.size(), answers.data());
        check(std::memcmp(answers.data(), wanted.data(), 4 * wanted.size()) == 0,
              kernels + ", " + std::to_string(threads) + " threads, ways " + std::to_string(ways));
        engine.run(&clouds[3], 1, answers.data());  // alone: cut by rows and channels
        check(std::memcmp(answers.data(), &wanted[3 * kClasses], 4 * kClasses) == 0, "one cloud alone");
      }
}

void test_refusals() {
  File file;
  Bytes bytes = cloud_network(2);
  file.write(bytes, bytes.size());
  auto refused = [&](auto&& call, Fault fault) {
    try {
      call();
      check(false, "refused");
    } catch (const Error& error) {
      check(error.fault() == fault, error.what());
    }
  };
  float none = 0;
  Cloud empty{&none, 0};
  Engine engine(file.path);
  refused([&] { engine.run(&empty, 1, &none); }, Fault::kCloud);
  refused([&] { engine.step(1000, nullptr, 1, nullptr); }, Fault::kEngine);
  refused([&] { Engine(file.path, Options{"mmx"}); }, Fault::kEngine);
  refused([&] { Engine(file.path, Options{"", -1}); }, Fault::kEngine);
  refused([&] { Engine("/nowhere/model.popc"); }, Fault::kFile);
  refused([&] { prepare(&none, 0, 10, "none"); }, Fault::kCloud);
}

void test_threads() {
  for (int threads : {1, 2, 5}) {
    Pool pool(threads);
    std::atomic<int> sum{0};
    for (int round = 0; round < 300; ++round) pool.run([&](size_t i) { sum += static_cast<int>(i) + 1; });
    check(sum == 300 * threads * (threads + 1) / 2, "each part is done once a round");
    bool thrown = false;
    try {
      pool.run([](size_t i) {
        if (i == 0) throw Error(Fault::kEngine, "on purpose");
      });
    } catch (const Error&) {
      thrown = true;
    }
    check(thrown, "an exception comes back");
  }
  for (size_t total : {0, 1, 63, 64, 65, 1000})
    for (size_t parts : {1, 2, 3, 7}) {
      size_t next = 0;
      for (size_t i = 0; i < parts; ++i) {
        Range range = part(total, 64, i, parts);
        check(
            range.first == next && range.first <= range.last && (range.last % 64 == 0 || range.last == total),
            "parts follow each other");
        next = range.last;
      }
      check(next == total, "parts make the whole");
    }
}

void test_unique_rows() {
  Scratch scratch;
  for (size_t words : {1, 3})
    for (size_t kinds : {1, 5, 1000000}) {
      std::mt19937_64 rng(kinds);
      std::vector<uint64_t> x(500 * words), seen;
      for (size_t r = 0; r < 500; ++r) std::fill_n(&x[r * words], words, rng() % kinds);
      for (size_t r = 0; r < 500; ++r)
        if (std::find(seen.begin(), seen.end(), x[r * words]) == seen.end()) seen.push_back(x[r * words]);
      size_t kept = unique_rows(x.data(), 500, words, scratch);
      bool same = kept == seen.size();
      for (size_t r = 0; same && r < kept; ++r) same = x[r * words] == seen[r];
      check(same, "each row once, in order of first occurrence");
    }
}

}  // namespace

int main() {
  test_threads();
  test_unique_rows();
  test_ways();
  test_refusals();
  return finish();
}
