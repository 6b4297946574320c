// The engine: load, run, step, profile.
#include <algorithm>
#include <mutex>

#include "parts.h"

namespace popcloud {
namespace {

constexpr size_t kMostPoints = size_t{1} << 24;  // up to there float32 counts rows exactly

void check_cloud(const Cloud& cloud) {
  if (cloud.points < 1 || cloud.points > kMostPoints)
    throw Error(Fault::kCloud,
                "a cloud has " + std::to_string(cloud.points) + " points, expected 1 to 2^24; resample it");
}

// Indices that come from outside are rows of what they point to.
void check_indices(const Program& program, const Step& step, size_t points, const void* const* inputs) {
  if (step.op != Op::kGather) return;
  const Value& index = program.values[step.inputs[1]];
  const size_t rows = rows_of(program, program.values[step.inputs[0]], points);
  const size_t count = rows_of(program, index, points) * index.channels;
  auto numbers = static_cast<const int32_t*>(inputs[1]);
  for (size_t i = 0; i < count; ++i)
    if (numbers[i] < 0 || static_cast<size_t>(numbers[i]) >= rows)
      throw Error(Fault::kCloud, "value '" + index.name + "': expected rows of 0 to " +
                                     std::to_string(rows - 1) + ", found " + std::to_string(numbers[i]) +
                                     "; give what its search found");
}

}  // namespace

int choose_threads(int threads) {
  if (threads < 0 || threads > 1024)
    throw Error(Fault::kEngine, "threads must be 1 to 1024, or 0 for the physical cores, found " +
                                    std::to_string(threads) + "; leave it out to use all cores");
  return threads ? threads : physical_cores();
}

const KernelTable& choose_kernels(const std::string& name) {
  if (name.empty()) return best_kernels();
  if (const KernelTable* table = find_kernels(name.c_str())) return *table;
  std::string valid;
  for (const std::string& known : available_kernels()) valid += (valid.empty() ? "" : ", ") + known;
  std::vector<std::string> compiled = compiled_kernels();
  bool exists = std::find(compiled.begin(), compiled.end(), name) != compiled.end();
  throw Error(Fault::kEngine, (exists ? "kernels '" + name + "' need instructions that this CPU does not have"
                                      : "unknown kernels '" + name + "'") +
                                  "; valid here: " + valid);
}

Engine::Engine(const std::string& path, const Options& options) : parts_(new Parts(path, options)) {}
Engine::~Engine() = default;

size_t Engine::points() const { return parts_->program.points; }
const std::string& Engine::normalize() const { return parts_->program.normalize; }
const std::vector<std::string>& Engine::classes() const { return parts_->program.classes; }
const std::vector<Value>& Engine::values() const { return parts_->program.values; }
const std::vector<Wiring>& Engine::steps() const { return parts_->steps; }
const std::string& Engine::kernels() const { return parts_->kernels; }
const Sampling* Engine::sampling() const {
  return parts_->program.sampling ? &*parts_->program.sampling : nullptr;
}
bool Engine::per_point() const {
  return parts_->program.values[parts_->program.steps.back().output()].rows != Rows::kCloud;
}
size_t Engine::columns() const { return parts_->program.sampling ? parts_->program.values[0].channels : 3; }
size_t Engine::rows(size_t value, size_t points) const {
  return rows_of(parts_->program, parts_->program.values[value], points);
}
int Engine::threads() const { return static_cast<int>(parts_->pool.size()); }

void Engine::run(const Cloud* clouds, size_t count, float* answers) {
  Parts& p = *parts_;
  p.check_takes_clouds();
  std::for_each(clouds, clouds + count, check_cloud);
  std::vector<float*> to;  // of each cloud
  for (size_t i = 0; i < count; answers += p.answer_size(clouds[i++].points)) to.push_back(answers);
  std::lock_guard<std::mutex> lock(p.turn);
  // Whole rounds of clouds are spread over the threads, and so is the rest if it keeps most of them busy.
  size_t threads = p.pool.size(), rest = count % threads, spread = rest * 2 > threads ? count : count - rest;
  if (spread) p.run_many(clouds, spread, to.data());
  Network net = p.network();
  for (size_t i = spread; i < count; ++i) walk(net, clouds[i], p.spaces.data(), &p.pool, nullptr, to[i]);
}

void Engine::step(size_t index, const void* const* inputs, size_t points, void* output) {
  Parts& p = *parts_;
  p.check_takes_clouds();
  if (index >= p.layers.size())
    throw Error(Fault::kEngine, "step " + std::to_string(index) + " does not exist; the model has " +
                                    std::to_string(p.layers.size()));
  check_cloud({nullptr, points});
  check_indices(p.program, p.program.steps[index], points, inputs);
  std::lock_guard<std::mutex> lock(p.turn);
  walk_step(p.network(), index, points, inputs, output, p.spaces[0].scratch);
}

std::vector<double> Engine::profile(const Cloud& cloud, int repeats) {
  Parts& p = *parts_;
  p.check_takes_clouds();
  check_cloud(cloud);
  std::lock_guard<std::mutex> lock(p.turn);
  size_t steps = p.layers.size(), times = static_cast<size_t>(std::max(1, repeats));
  std::vector<double> seconds(times * steps, 0.0), medians, one(times);
  std::vector<float> answer(p.answer_size(cloud.points));
  Network net = p.network();
  walk(net, cloud, p.spaces.data(), nullptr, nullptr, answer.data());  // memory and caches
  for (size_t t = 0; t < times; ++t)
    walk(net, cloud, p.spaces.data(), nullptr, &seconds[t * steps], answer.data());
  for (size_t s = 0; s < steps; ++s) {
    for (size_t t = 0; t < times; ++t) one[t] = seconds[t * steps + s];
    auto middle = one.begin() + static_cast<std::ptrdiff_t>(times / 2);
    std::nth_element(one.begin(), middle, one.end());
    medians.push_back(*middle);
  }
  return medians;
}

size_t Engine::memory() {
  std::lock_guard<std::mutex> lock(parts_->turn);
  size_t sum = 0;
  for (const Workspace& space : parts_->spaces) sum += space.bytes();
  return parts_->scenes ? parts_->scenes->held() : sum;
}

std::vector<std::string> compiled_kernels() {
  std::vector<std::string> names;
  for (auto table = all_kernels(); *table; ++table) names.push_back((*table)->name);
  return names;
}

std::vector<std::string> available_kernels() {
  std::vector<std::string> names;
  for (auto table = all_kernels(); *table; ++table)
    if ((*table)->supported()) names.push_back((*table)->name);
  return names;
}

}  // namespace popcloud
