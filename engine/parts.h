// What an Engine is made of.
#pragma once
#include <memory>
#include <mutex>

#include "engine.h"
#include "scene/run.h"
#include "walk.h"

namespace popcloud {

int choose_threads(int threads);  // 0: the physical cores. Throws Error(kEngine) for a number that can't be

struct Engine::Parts {
  Parts(const std::string& path, const Options& options)
      : table(choose_kernels(options.kernels)),
        kernels(table.name),
        file(path),
        program(read_program(file, path)),
        plan(program.grid ? Plan{} : make_plan(program, options)),
        early_exit(options.early_exit),
        pool(choose_threads(options.threads)),
        spaces(pool.size()) {
    for (const Step& step : program.steps) steps.push_back({step.inputs, step.outputs});
    if (program.grid) {
      scenes = std::make_unique<SceneEngine>(program, table, options.fuse);
      return;
    }
    layers.reserve(program.steps.size());
    for (const Step& step : program.steps) layers.emplace_back(program, step, table);
  }

  // Throws Error where a scene is needed instead of clouds.
  void check_takes_clouds() const {
    if (program.grid)
      throw Error(Fault::kEngine,
                  "a network on a voxel grid answers for each point of a scene; run it on scenes");
  }

  // And the other way round.
  SceneEngine& on_scenes() {
    if (!scenes)
      throw Error(Fault::kEngine, "a network for whole clouds has no voxel grid; run it on clouds");
    return *scenes;
  }

  Network network() const { return {program, plan, layers, table, early_exit}; }

  // How many floats the answer to a cloud of so many points has.
  size_t answer_size(size_t points) const {
    return rows_of(program, program.values[program.steps.back().output()], points) * program.classes.size();
  }

  // Thread i takes clouds i, i + size, ...; its spaces are its own.
  void run_many(const Cloud* clouds, size_t count, float* const* answers) {
    Network net = network();
    pool.run([&](size_t thread) {
      for (size_t i = thread; i < count; i += pool.size())
        walk(net, clouds[i], &spaces[thread], nullptr, nullptr, answers[i]);
    });
  }

  const KernelTable& table;
  std::string kernels;
  Mapping file;
  Program program;
  Plan plan;
  bool early_exit;
  std::vector<Layer> layers;
  std::vector<Wiring> steps;
  Pool pool;
  std::vector<Workspace> spaces;        // one per thread
  std::unique_ptr<SceneEngine> scenes;  // of networks on a voxel grid
  std::mutex turn;                      // one run at a time
};

}  // namespace popcloud
