// The part of the engine that runs scenes.
#include <algorithm>

#include "parts.h"

namespace popcloud {
namespace {

double median(std::vector<double> times) {
  auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

// Of each number of the profiles, the median.
SceneProfile medians(const std::vector<SceneProfile>& runs) {
  SceneProfile middle = runs[0];
  auto over = [&](auto part) {
    std::vector<double> times;
    for (const SceneProfile& run : runs) times.push_back(part(run));
    return median(std::move(times));
  };
  for (double SceneProfile::* part :
       {&SceneProfile::voxelise, &SceneProfile::sort, &SceneProfile::features, &SceneProfile::maps,
        &SceneProfile::convolutions, &SceneProfile::epilogues, &SceneProfile::classifier,
        &SceneProfile::other_steps, &SceneProfile::points})
    middle.*part = over([&](const SceneProfile& run) { return run.*part; });
  for (size_t s = 0; s < middle.steps.size(); ++s)
    middle.steps[s] = over([&](const SceneProfile& run) { return run.steps[s]; });
  return middle;
}

SceneProfile time_once(SceneEngine& engine, const Program& program, const Scene& scene, Pool& pool) {
  SceneProfile profile{};
  SceneTimes times;
  times.steps.assign(program.steps.size(), 0.0);
  const SceneGeometry at = engine.open(scene, pool, &profile);
  const SiteAnswers answers = engine.run(at, pool, &times);
  const auto start = std::chrono::steady_clock::now();
  std::vector<int64_t> labels(scene.points);
  engine.spread_labels(at, answers.rows, pool, labels.data());
  profile.points = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  profile.convolutions = times.convolutions, profile.epilogues = times.epilogues;
  profile.classifier = is_convolution(program.steps.back().op) ? 0 : times.steps.back();
  profile.other_steps = -profile.convolutions - profile.epilogues - profile.classifier;
  for (double seconds : times.steps) profile.other_steps += seconds;
  profile.steps = std::move(times.steps), profile.sites = at.sites;
  return profile;
}

}  // namespace

const Grid* Engine::grid() const { return parts_->program.grid ? &*parts_->program.grid : nullptr; }
const std::vector<std::string>& Engine::features() const { return parts_->program.features; }

void Engine::answer(const Scene& scene, float* answers) {
  Parts& p = *parts_;
  std::lock_guard<std::mutex> lock(p.turn);
  SceneEngine& engine = p.on_scenes();
  engine.start();
  const SceneGeometry at = engine.open(scene, p.pool, nullptr);
  const SiteAnswers found = engine.run(at, p.pool, nullptr);
  spread_answers(at, found.rows, p.program.classes.size(), p.pool, answers);
}

void Engine::label(const Scene& scene, int64_t* labels) {
  Parts& p = *parts_;
  std::lock_guard<std::mutex> lock(p.turn);
  SceneEngine& engine = p.on_scenes();
  engine.start();
  const SceneGeometry at = engine.open(scene, p.pool, nullptr);
  const SiteAnswers found = engine.run(at, p.pool, nullptr);
  engine.spread_labels(at, found.rows, p.pool, labels);
}

std::shared_ptr<OpenScene> Engine::open(const Scene& scene) {
  Parts& p = *parts_;
  std::lock_guard<std::mutex> lock(p.turn);
  SceneEngine& engine = p.on_scenes();
  engine.start();
  return std::make_shared<OpenScene>(OpenScene{engine.open(scene, p.pool, nullptr)});
}

void Engine::run_open(const OpenScene& scene, float* answers) {
  Parts& p = *parts_;
  std::lock_guard<std::mutex> lock(p.turn);
  SceneEngine& engine = p.on_scenes();
  engine.start();
  const SiteAnswers found = engine.run(scene.geometry, p.pool, nullptr);
  std::copy(found.rows, found.rows + scene.geometry.sites[0] * p.program.classes.size(), answers);
}

void Engine::step_open(const OpenScene& scene, size_t index, const void* const* inputs,
                       void* const* outputs) {
  Parts& p = *parts_;
  std::lock_guard<std::mutex> lock(p.turn);
  if (index >= p.program.steps.size())
    throw Error(Fault::kEngine, "step " + std::to_string(index) + " does not exist; the model has " +
                                    std::to_string(p.program.steps.size()));
  p.on_scenes().step(scene.geometry, index, inputs, outputs, p.pool);
}

SceneProfile Engine::profile_scene(const Scene& scene, int repeats) {
  Parts& p = *parts_;
  std::lock_guard<std::mutex> lock(p.turn);
  SceneEngine& engine = p.on_scenes();
  Pool alone(1);
  std::vector<SceneProfile> runs;
  for (int i = 0; i < std::max(1, repeats); ++i) runs.push_back(time_once(engine, p.program, scene, alone));
  return medians(runs);
}

size_t Engine::peak() {
  std::lock_guard<std::mutex> lock(parts_->turn);
  return parts_->on_scenes().peak();
}

size_t Engine::planned(const std::vector<size_t>& sites) const { return parts_->on_scenes().planned(sites); }

}  // namespace popcloud
