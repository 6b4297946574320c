// popcloud's engine: runs a packed model file, needs nothing but the C++17 standard library.
//
//   popcloud::Engine engine("model.popc");
//   std::vector<float> cloud = popcloud::prepare(xyz, points, engine.points(), engine.normalize());
//   popcloud::Cloud one{cloud.data(), cloud.size() / 3};
//   std::vector<float> answer(engine.classes().size());
//   engine.run(&one, 1, answer.data());
//
// Answers are the same, bit for bit, for every instruction set and any number of threads.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace popcloud {

// Whose fault it was.
enum class Fault { kFile, kCloud, kEngine };

// Every error this library reports, but for std::bad_alloc. what() is one line: what is wrong, what was
// expected, what was found, and the way out.
class Error : public std::runtime_error {
 public:
  Error(Fault fault, const std::string& what) : std::runtime_error(what), fault_(fault) {}
  Fault fault() const { return fault_; }

 private:
  Fault fault_;
};

// What the elements of a value are: float32, packed signs, or int32, each the row of a point.
enum class Kind : int32_t { kFloat = 0, kBits = 1, kIndex = 2 };
// One row per point of the cloud or of the value's level of sampled points, or Value::each of them; one row;
// or one per active site of the value's level.
enum class Rows : int32_t { kPoint = 0, kCloud = 1, kSites = 2 };

// What flows between steps.
struct Value {
  std::string name;
  Kind kind;
  Rows rows;
  size_t channels;   // of bits: signs, not words
  size_t level = 0;  // of sites and of points: 0 is the finest
  size_t each = 1;   // of points: rows per point of the level, which lie together

  // Bytes of one row: four per float and index, or whole 64-bit words.
  size_t row_bytes() const { return kind == Kind::kBits ? 8 * ((channels + 63) / 64) : 4 * channels; }
};

// How a step is wired; indices are into Engine::values().
struct Wiring {
  std::vector<size_t> inputs, outputs;
};

// The voxel grid that a network on scenes is made for.
struct Grid {
  double edge;    // of a site of level 0, metres
  size_t levels;  // each has sites twice as large as the one before
  size_t size;    // of the cube of neighbours, 3 or 5
};

// The levels of points that a network on points is made for: each has a part of the points of the one before,
// level 0 all of them.
struct Sampling {
  std::vector<double> ratios;  // four at most, each in (0, 1]; level l has ceil(ratios[l - 1] * P) points

  // How many points `level`, 0 to ratios.size(), has in a cloud of so many; at least 1 of at least 1.
  size_t count(size_t points, size_t level) const {
    for (size_t l = 0; l < level; ++l)
      points = static_cast<size_t>(std::ceil(ratios[l] * static_cast<double>(points)));
    return points;
  }
};

struct Options {
  std::string kernels;  // a name of available_kernels(); empty: the fastest
  int threads = 0;      // 0: physical_cores()
  // Three ways to do less work for the same bits; off only to compare.
  bool fuse = true;         // walk float values in blocks of rows that stay in the cache
  bool unique_rows = true;  // run equal sign rows once where multiplicity does not matter
  bool early_exit = true;   // in max pooling, drop channels whose sign is already known
};

// One cloud, ready for the network (see prepare): xyz is (points, 3), row after row; of a network on points
// (points, columns), those of Engine::features().
struct Cloud {
  const float* xyz;
  size_t points;
};

// One scene for a network on a voxel grid: xyz is (points, 3) in metres, features (points, columns), row
// after row: the columns of Engine::features() that are not computed from the points, in that order; all of
// them if they are `ready`.
struct Scene {
  const float* xyz;
  size_t points;
  const float* features = nullptr;
  size_t columns = 0;
  bool ready = false;
};

// Where the time of a scene goes: seconds on one thread.
struct SceneProfile {
  double voxelise, sort;  // points to sites; sites in order
  double features, maps;  // means of features; parents and kernel maps
  double convolutions, epilogues, classifier, other_steps;
  double points;              // answers of sites to points
  std::vector<double> steps;  // by step, all of it
  std::vector<size_t> sites;  // by level
};

struct OpenScene;  // the geometry of one scene: see scene/run.h

// A loaded model. The file stays mapped and is read in place; one engine may be used from several threads,
// which then take turns.
class Engine {
 public:
  // Maps `path` and checks all of it: whatever its bytes are, it loads or throws Error.
  explicit Engine(const std::string& path, const Options& options = {});
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  size_t points() const;                 // clouds are resampled to this many points; 0: as they are
  const std::string& normalize() const;  // "none" or "unit_sphere"
  const std::vector<std::string>& classes() const;
  const std::vector<Value>& values() const;  // value 0 is the cloud, the last step's output the answer
  const std::vector<Wiring>& steps() const;
  const std::string& kernels() const;  // the table in use
  int threads() const;

  // The levels of a network on points, null for others; whether the answer has a row per point of the cloud;
  // how many columns a cloud has: 3 but on points.
  const Sampling* sampling() const;
  bool per_point() const;
  size_t columns() const;
  // How many rows a value has in a cloud of so many points.
  size_t rows(size_t value, size_t points) const;

  // answers is (count, classes): row i belongs to clouds[i]. If per_point(), it is (points, classes) for each
  // cloud, cloud after cloud. Several clouds are spread over the threads, one cloud is cut by rows or
  // channels. Throws Error if a cloud has no points or more than 2^24, and on points if a layer searches
  // among too few or finds none.
  void run(const Cloud* clouds, size_t count, float* answers);

  // Runs step `index` alone on one thread. inputs[i] and output have the shapes that values() and rows()
  // tell; `points` are those of the cloud. Throws Error(kCloud) for indices that are no rows, and as run.
  void step(size_t index, const void* const* inputs, size_t points, void* output);

  // Seconds per step on one thread, the median of `repeats` runs. Fused steps are timed apart, block by
  // block; the search for equal rows belongs to the step that made them, and what is done at once to the
  // first of its steps.
  std::vector<double> profile(const Cloud& cloud, int repeats);

  // Bytes held for values and scratch by now; they grow with the largest cloud and are kept.
  size_t memory();

  // The grid of a network on scenes and the names of what it reads of a point; null and none of others, for
  // which the functions below throw Error, as those above do for networks on scenes.
  const Grid* grid() const;
  const std::vector<std::string>& features() const;

  // answers is (points, classes): a point's are those of its site. Throws Error if the scene is empty, not
  // finite, does not fit the grid or lacks features, and std::bad_alloc whose what() says how much was asked
  // for.
  void answer(const Scene& scene, float* answers);
  // labels is (points): the class with the largest answer, the first of equal ones.
  void label(const Scene& scene, int64_t* labels);

  // The geometry of a scene, to run it or single steps of it. Lies in the engine's memory: let go of it
  // before the engine.
  std::shared_ptr<OpenScene> open(const Scene& scene);
  void run_open(const OpenScene& scene, float* answers);  // (sites of level 0, classes)
  // Step `index` alone. inputs[i] and outputs[i] have a row per site of their value's level.
  void step_open(const OpenScene& scene, size_t index, const void* const* inputs, void* const* outputs);

  // Medians over `repeats` runs.
  SceneProfile profile_scene(const Scene& scene, int repeats);

  // The most bytes that were held at once during the last scene, beside its points and answers. Memory is
  // kept for the next scene, so that of a larger one before counts.
  size_t peak();
  // Bytes of values for a scene with so many sites on each level.
  size_t planned(const std::vector<size_t>& sites) const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

// Resamples to `count` points (0: keeps all) and normalises, as popcloud/cloud.py does. xyz is (points, 3).
// Throws Error if there is no point, one is not finite, or `how` is unknown.
std::vector<float> prepare(const float* xyz, size_t points, size_t count, const std::string& how);

std::vector<std::string> compiled_kernels();   // every table in this build, fastest first
std::vector<std::string> available_kernels();  // those this CPU can run
int physical_cores();                          // within this process's affinity

}  // namespace popcloud
