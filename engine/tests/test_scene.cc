// The engine on networks for scenes: run equals its steps one by one, every way gives the same bits, hard
// scenes are answered or refused. Exit code 1 if something does not hold.
#include <cmath>

#include "model_writer.h"
#include "scene/run.h"

using namespace popcloud;
using namespace popcloud::tests;

namespace {

// Points with their features, in memory.
struct Points {
  std::vector<float> xyz, columns;
  size_t count() const { return xyz.size() / 3; }
  Scene scene() const { return {xyz.data(), count(), columns.data(), kFeatures, true}; }
};

Points with_columns(std::vector<float> xyz) {
  Points points{std::move(xyz), {}};
  std::mt19937 rng(7);
  std::normal_distribution<float> normal;
  for (size_t i = 0; i < kFeatures * points.count(); ++i) points.columns.push_back(normal(rng));
  return points;
}

// A bent sheet: some neighbours of a site are there, others are not.
Points sheet(size_t count, float extent = 2) {
  std::mt19937 rng(3);
  std::uniform_real_distribution<float> uniform(-extent / 2, extent / 2);
  std::vector<float> xyz;
  for (size_t i = 0; i < count; ++i) {
    float x = uniform(rng), y = uniform(rng);
    xyz.insert(xyz.end(), {x, y, 0.3f * std::sin(5 * x)});
  }
  return with_columns(std::move(xyz));
}

std::vector<float> answers(Engine& engine, const Points& points) {
  std::vector<float> found(points.count() * kClasses);
  engine.answer(points.scene(), found.data());
  return found;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), 4 * a.size()) == 0;
}

void test_ways(const Bytes& network) {
  File file(network);
  Points points = sheet(1500);
  Engine plain(file.path, Options{"portable", 1, false});
  std::vector<float> wanted = answers(plain, points);
  for (const std::string& kernels : available_kernels())
    for (int threads : {1, 2, 3})
      for (bool fuse : {false, true}) {
        Engine engine(file.path, Options{kernels, threads, fuse});
        std::string way = kernels + ", " + std::to_string(threads) + " threads" + (fuse ? ", fused" : "");
        check(same(answers(engine, points), wanted), way);
        check(same(answers(engine, points), wanted), way + ", once more");
      }
}

// Runs a scene step by step, each alone; value 0 is what open() made.
std::vector<float> by_steps(Engine& engine, const OpenScene& scene) {
  std::vector<Bytes> memory(engine.values().size());
  const SceneGeometry& at = scene.geometry;
  auto first = reinterpret_cast<const uint8_t*>(at.first.data());
  memory[0].assign(first, first + 4 * kFeatures * at.sites[0]);
  for (size_t s = 0; s < engine.steps().size(); ++s) {
    std::vector<const void*> inputs;
    std::vector<void*> outputs;
    for (size_t i : engine.steps()[s].inputs) inputs.push_back(memory[i].data());
    for (size_t i : engine.steps()[s].outputs) {
      const Value& value = engine.values()[i];
      memory[i].resize(value.row_bytes() * at.sites[value.level]);
      outputs.push_back(memory[i].data());
    }
    engine.step_open(scene, s, inputs.data(), outputs.data());
  }
  std::vector<float> answer(at.sites[0] * kClasses);
  std::memcpy(answer.data(), memory[engine.steps().back().outputs[0]].data(), 4 * answer.size());
  return answer;
}

void test_steps(const Bytes& network) {
  File file(network);
  Engine engine(file.path, Options{"", 2});
  std::shared_ptr<OpenScene> scene = engine.open(sheet(700).scene());
  std::vector<float> whole(scene->geometry.sites[0] * kClasses);
  engine.run_open(*scene, whole.data());
  check(same(by_steps(engine, *scene), whole), "the steps one by one are the run");
}

void test_labels() {
  File file(scene_network(1));
  Engine engine(file.path);
  Points points = sheet(900);
  std::vector<float> found = answers(engine, points);
  std::vector<int64_t> labels(points.count());
  engine.label(points.scene(), labels.data());
  for (size_t i = 0; i < points.count(); ++i) {
    auto row = found.begin() + static_cast<std::ptrdiff_t>(i * kClasses);
    check(labels[i] == std::max_element(row, row + kClasses) - row, "a label is the largest answer's class");
  }
  check(engine.peak() > 0, "memory is counted");
}

void test_hard_scenes() {
  File file(scene_network(2));
  Engine engine(file.path, Options{"", 2}), plain(file.path, Options{"portable", 1, false});
  const std::vector<std::vector<float>> hard = {
      {0, 0, 0},                                             // one point
      {1, 2, 3, 1, 2, 3, 1, 2, 3},                           // thrice the same
      {0.01f, 0.01f, 0.01f, 0.02f, 0.03f, 0.04f, 0, 0, 0},   // all in one site
      {0, 0, 0, 0.15f, 0.15f, 0.15f},                        // one site on the coarse level
      {0, 0, 0, 50, 50, 50, -50, 20, 1},                     // nobody has a neighbour
      {1e4f, -1e4f, 1e4f, 1e4f + 0.2f, -1e4f, 1e4f - 0.3f},  // far from zero
  };
  for (const std::vector<float>& xyz : hard) {
    Points points = with_columns(xyz);
    check(same(answers(engine, points), answers(plain, points)),
          "a hard scene of " + std::to_string(xyz.size()));
  }
}

template <class Call>
void refused(Call call, Fault fault, const std::string& what) {
  try {
    call();
    check(false, what + " is refused");
  } catch (const Error& error) {
    check(error.fault() == fault && !std::strchr(error.what(), '\n'), error.what());
  }
}

void test_refusals() {
  File file(scene_network(2)), other(cloud_network(2));
  Engine engine(file.path), clouds(other.path);
  float numbers[3 * kFeatures] = {};
  float far[6] = {-1e7f, 0, 0, 1e7f, 0, 0}, none[3] = {NAN, 0, 0}, columns[2 * kFeatures] = {NAN};
  std::vector<float> out(3 * kClasses);
  auto answer = [&](const Scene& scene) { return [&, scene] { engine.answer(scene, out.data()); }; };
  refused(answer({numbers, 0, numbers, kFeatures, true}), Fault::kCloud, "a scene without points");
  refused(answer({none, 1, numbers, kFeatures, true}), Fault::kCloud, "a point that is not finite");
  refused(answer({far, 2, numbers, kFeatures, true}), Fault::kCloud, "a scene wider than the grid");
  refused(answer({numbers, 1, numbers, kFeatures - 1, true}), Fault::kCloud, "a column too few");
  refused(answer({numbers, 1, nullptr, 0, false}), Fault::kCloud, "no columns");
  refused(answer({numbers, 2, columns, kFeatures, true}), Fault::kCloud, "a feature that is not finite");
  Cloud cloud{numbers, 3};
  refused([&] { engine.run(&cloud, 1, out.data()); }, Fault::kEngine, "a cloud");
  refused([&] { engine.profile(cloud, 1); }, Fault::kEngine, "a cloud to profile");
  refused([&] { clouds.answer({numbers, 3}, out.data()); }, Fault::kEngine,
          "a scene for a network on clouds");
  std::shared_ptr<OpenScene> scene = engine.open({numbers, 3, numbers, kFeatures, true});
  refused([&] { engine.step_open(*scene, 1000, nullptr, nullptr); }, Fault::kEngine,
          "a step that does not exist");
}

}  // namespace

int main() {
  for (const Bytes& network :
       {scene_network(1), scene_network(2, 3), scene_network(3, 5, 64), scene_network(4, 3, 4)}) {
    test_ways(network);
    test_steps(network);
  }
  test_labels();
  test_hard_scenes();
  test_refusals();
  return finish();
}
