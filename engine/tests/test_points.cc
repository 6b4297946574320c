// The engine on a network on points: run equals its steps one by one, every way gives the same bits, and what
// can't be searched is refused. Exit code 1 if something does not hold.
#include <algorithm>
#include <cmath>

#include "model_writer.h"
#include "points/rows.h"
#include "points/sigmoid.h"

using namespace popcloud;
using namespace popcloud::tests;

namespace {

constexpr size_t kColumns = 4;

std::vector<float> make_cloud(size_t points, unsigned seed) {
  std::mt19937 rng(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> cloud(kColumns * points);
  for (float& x : cloud) x = uniform(rng);
  for (size_t p = 1; p < points; p += 3)  // equal neighbours
    std::copy_n(&cloud[kColumns * (p - 1)], kColumns, &cloud[kColumns * p]);
  return cloud;
}

// Runs one cloud step by step, each alone.
std::vector<float> by_steps(Engine& engine, const Cloud& cloud) {
  std::vector<Bytes> memory(engine.values().size());
  auto bytes = reinterpret_cast<const uint8_t*>(cloud.xyz);
  memory[0].assign(bytes, bytes + 4 * kColumns * cloud.points);
  for (size_t s = 0; s < engine.steps().size(); ++s) {
    const Wiring& wiring = engine.steps()[s];
    const size_t output = wiring.outputs[0];
    memory[output].resize(engine.values()[output].row_bytes() * engine.rows(output, cloud.points));
    std::vector<const void*> inputs;
    for (size_t i : wiring.inputs) inputs.push_back(memory[i].data());
    engine.step(s, inputs.data(), cloud.points, memory[output].data());
  }
  const Bytes& last = memory[engine.steps().back().outputs[0]];
  std::vector<float> answer(last.size() / 4);
  std::memcpy(answer.data(), last.data(), last.size());
  return answer;
}

void test_ways(const File& file) {
  std::vector<std::vector<float>> rows{make_cloud(40, 1), make_cloud(41, 2), make_cloud(300, 3)};
  std::vector<Cloud> clouds;
  for (const auto& cloud : rows) clouds.push_back({cloud.data(), cloud.size() / kColumns});
  Engine plain(file.path, Options{"portable", 1, false, false, false});
  check(plain.per_point() && plain.columns() == kColumns && plain.sampling()->ratios.size() == 2,
        "the engine says what the file says");
  std::vector<float> wanted;
  for (const Cloud& cloud : clouds)
    for (float y : by_steps(plain, cloud)) wanted.push_back(y);
  check(wanted.size() == (40 + 41 + 300) * plain.classes().size(), "a row per point");
  for (const std::string& kernels : available_kernels())
    for (int threads : {1, 2, 3})
      for (bool fuse : {false, true}) {
        Engine engine(file.path, Options{kernels, threads, fuse});
        std::vector<float> answers(wanted.size());
        for (size_t count : {size_t{3}, size_t{1}}) {  // spread over the threads; cut by points
          engine.run(clouds.data(), count, answers.data());
          check(std::memcmp(answers.data(), wanted.data(),
                            4 * (count == 3 ? wanted.size() : 40 * engine.classes().size())) == 0,
                kernels + ", " + std::to_string(threads) + " threads, fused " + std::to_string(fuse));
        }
      }
}

void test_refusals(const File& file) {
  Engine engine(file.path);
  std::vector<float> few = make_cloud(4, 1), answers(4 * engine.classes().size());
  auto refused = [&](auto&& call, const std::string& wanted) {
    try {
      call();
      check(false, "refused: " + wanted);
    } catch (const Error& error) {
      check(error.fault() == Fault::kCloud && std::string(error.what()).find(wanted) != std::string::npos,
            error.what());
    }
  };
  const Cloud cloud{few.data(), 4};
  refused([&] { engine.run(&cloud, 1, answers.data()); }, "layer 'value ");
  std::vector<float> far = make_cloud(40, 1);
  for (size_t p = 0; p < 40;
       ++p)  // everybody alone, and the queries are points: no ball is empty; NaN has none
    far[kColumns * p] = p ? static_cast<float>(100 * p) : std::nanf("");
  answers.resize(40 * engine.classes().size());
  const Cloud lost{far.data(), 40};
  refused([&] { engine.run(&lost, 1, answers.data()); }, "layer 'value ");

  // Step 2 gathers the rows of points that step 1 has found.
  const size_t index = engine.steps()[2].inputs[1];
  std::vector<int32_t> numbers(engine.rows(index, 40), 40);
  std::vector<float> xyz(120), out(120);
  const void* inputs[] = {xyz.data(), numbers.data()};
  refused([&] { engine.step(2, inputs, 40, out.data()); }, "expected rows of 0 to 39, found 40");
}

// Floats around 0, among them NaN and infinity.
std::vector<float> floats(size_t count, std::mt19937& rng) {
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (float& y : x) y = rng() % 50 ? normal(rng) : rng() % 2 ? INFINITY : std::nanf("");
  return x;
}

// The same bits, but for those of a NaN.
bool same(const std::vector<float>& a, const std::vector<float>& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (std::memcmp(&a[i], &b[i], 4) != 0 && (a[i] == a[i] || b[i] == b[i])) return false;
  return true;
}

// The inner loops of two instruction sets, on rows of `channels`, of the neighbours of one point.
void test_rows(const RowKernels& one, const RowKernels& other, size_t rows, size_t channels) {
  std::mt19937 rng(static_cast<unsigned>(1000 * rows + channels));
  const std::vector<float> x = floats(rows * channels, rng), m = floats(rows * 19, rng);
  const std::vector<float> scale = floats(channels, rng), bias = floats(channels, rng),
                           row = floats(rows, rng);
  const std::string shape = std::to_string(rows) + " x " + std::to_string(channels);
  for (size_t wide : {1, 7, 8, 9, 16, 19}) {
    std::vector<float> a(channels * wide, -1), b(channels * wide, -2);
    one.product(x.data(), m.data(), rows, channels, wide, a.data());
    other.product(x.data(), m.data(), rows, channels, wide, b.data());
    check(same(a, b), "product of " + shape);
  }
  std::vector<int32_t> picks(7);
  for (int32_t& pick : picks) pick = static_cast<int32_t>(rng() % rows);
  std::vector<uint64_t> signs(7 * words_of(channels), 1), others(signs.size(), 2);
  for (const float* own : {x.data(), static_cast<const float*>(nullptr)}) {
    one.edges(x.data(), picks.data(), 7, own, channels, scale.data(), signs.data());
    other.edges(x.data(), picks.data(), 7, own, channels, scale.data(), others.data());
    check(signs == others, "edges of " + shape);
  }
  std::vector<int32_t> counts(channels), limits(channels);
  for (size_t c = 0; c < channels; ++c)
    counts[c] = static_cast<int32_t>(rng() % 3), limits[c] = static_cast<int32_t>(rng() % 3);
  one.above(counts.data(), limits.data(), channels, signs.data());
  other.above(counts.data(), limits.data(), channels, others.data());
  check(signs == others, "counts above limits of " + shape);
  for (Activation act : {Activation::kNone, Activation::kRelu, Activation::kHardtanh}) {
    std::vector<float> a(rows * channels), b;
    for (float& y : a) {
      const auto count = static_cast<int32_t>(rng() % 101);
      std::memcpy(&y, &count, 4);
    }
    b = a;
    const Affine affine{100, scale.data(), bias.data(), act};
    one.finish(a.data(), rows, channels, channels, affine, act == Activation::kNone ? row.data() : nullptr);
    other.finish(b.data(), rows, channels, channels, affine, act == Activation::kNone ? row.data() : nullptr);
    check(same(a, b), "finished counts of " + shape);
    for (size_t inputs : {1, 8, 12, 31, 32})
      for (size_t each : {size_t{1}, channels}) {
        const size_t words = words_of(channels / each * inputs);
        std::vector<uint64_t> bits(rows * words);
        for (uint64_t& word : bits) word = rng() * uint64_t{0x9E3779B97F4A7C15};
        std::vector<uint32_t> weight(channels);
        for (uint32_t& w : weight) w = static_cast<uint32_t>(rng() & (~uint64_t{0} >> (64 - inputs)));
        const SignGroups groups{inputs, each, channels, weight.data()};
        one.groups(bits.data(), rows, words, groups, affine, a.data());
        other.groups(bits.data(), rows, words, groups, affine, b.data());
        check(same(a, b), "groups of " + shape);
      }
  }
}

void test_sigmoid() {
  std::vector<float> x{0.0f, -1000.0f, 1000.0f, 1.0f, std::nanf("")};
  sigmoid(x.data(), x.size());
  check(x[0] == 0.5f && x[1] == 0 && x[2] == 1 && std::fabs(x[3] - 0.7310586f) < 1e-7f && x[4] != x[4],
        "sigmoid");
}

}  // namespace

int main() {
  File file;
  Bytes bytes = points_network(5);
  file.write(bytes, bytes.size());
  test_ways(file);
  test_refusals(file);
  test_sigmoid();
  for (const std::string& kernels : available_kernels())
    for (size_t rows : {1, 2, 5, 33})
      for (size_t channels : {1, 3, 8, 17, 64, 65, 130})
        test_rows(row_kernels(choose_kernels(kernels)), kRowsPortable, rows, channels);
  return finish();
}
