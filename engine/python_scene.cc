// Scenes for popcloud._engine.
#include "python_scene.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>

#include "python_arrays.h"
#include "scene/run.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace popcloud {
namespace {

using Matrix = In<float, 2>;

Scene scene_of(const Matrix& xyz, const std::optional<Matrix>& features, bool ready) {
  if (xyz.shape(1) != 3)
    throw Error(Fault::kCloud, "a scene has " + std::to_string(xyz.shape(1)) +
                                   " columns, expected x, y, z; pass those alone");
  Scene scene{xyz.data(), xyz.shape(0)};
  if (features) {
    if (features->shape(0) != xyz.shape(0))
      throw Error(Fault::kCloud, "features: expected " + std::to_string(xyz.shape(0)) +
                                     " rows, one a point, found " + std::to_string(features->shape(0)));
    scene.features = features->data(), scene.columns = features->shape(1);
  }
  scene.ready = ready;
  return scene;
}

Out<float> answers(Engine& engine, const Matrix& xyz, const std::optional<Matrix>& features, bool ready) {
  const Scene scene = scene_of(xyz, features, ready);
  Fresh<float> out({scene.points, engine.classes().size()});
  {
    nb::gil_scoped_release free;
    engine.answer(scene, out.get());
  }
  return out.give();
}

Out<int64_t> labels(Engine& engine, const Matrix& xyz, const std::optional<Matrix>& features, bool ready) {
  const Scene scene = scene_of(xyz, features, ready);
  Fresh<int64_t> out({scene.points});
  {
    nb::gil_scoped_release free;
    engine.label(scene, out.get());
  }
  return out.give();
}

nb::dict profile(Engine& engine, const Matrix& xyz, const std::optional<Matrix>& features, bool ready,
                 int repeats) {
  const Scene scene = scene_of(xyz, features, ready);
  SceneProfile found;
  {
    nb::gil_scoped_release free;
    found = engine.profile_scene(scene, repeats);
  }
  nb::dict parts;
  parts["voxelise"] = found.voxelise, parts["sort"] = found.sort;
  parts["features"] = found.features;
  parts["kernel maps"] = found.maps, parts["convolutions"] = found.convolutions;
  parts["epilogues"] = found.epilogues, parts["other steps"] = found.other_steps;
  parts["classifier"] = found.classifier, parts["points"] = found.points;
  nb::dict all;
  all["parts"] = parts, all["steps"] = found.steps, all["sites"] = found.sites;
  return all;
}

// A scene and the engine that it is for.
class PyScene {
 public:
  PyScene(Engine& engine, const Matrix& xyz, const std::optional<Matrix>& features, bool ready)
      : engine_(engine) {
    const Scene scene = scene_of(xyz, features, ready);
    nb::gil_scoped_release free;
    scene_ = engine.open(scene);
  }

  const std::vector<size_t>& sites() const { return scene_->geometry.sites; }

  Out<float> first() const {
    return copy(scene_->geometry.first, {sites()[0], engine_.values()[0].channels});
  }
  Out<int32_t> point_to_site() const {
    return copy(scene_->geometry.point_to_site, {scene_->geometry.point_to_site.size()});
  }

  Out<float> run() {
    Fresh<float> out({sites()[0], engine_.classes().size()});
    {
      nb::gil_scoped_release free;
      engine_.run_open(*scene_, out.get());
    }
    return out.give();
  }

  nb::list step(size_t index, const std::vector<Any>& inputs) {
    const Wiring& wiring = checked_step(engine_, index, inputs.size());
    std::vector<const void*> read;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const Value& value = engine_.values()[wiring.inputs[i]];
      read.push_back(checked(value, sites()[value.level], inputs[i]));
    }
    std::vector<Fresh<float>> floats;
    std::vector<Fresh<uint64_t>> bits;
    std::vector<void*> written;
    for (size_t v : wiring.outputs) {
      const Value& value = engine_.values()[v];
      const std::vector<size_t> shape = shape_of(value, sites()[value.level]);
      if (value.kind == Kind::kFloat)
        written.push_back(floats.emplace_back(shape).get());
      else
        written.push_back(bits.emplace_back(shape).get());
    }
    {
      nb::gil_scoped_release free;
      engine_.step_open(*scene_, index, read.data(), written.data());
    }
    nb::list outputs;  // floats come first
    for (Fresh<float>& out : floats) outputs.append(out.give());
    for (Fresh<uint64_t>& out : bits) outputs.append(out.give());
    return outputs;
  }

 private:
  template <class T>
  static Out<T> copy(const Array<T>& from, std::vector<size_t> shape) {
    Fresh<T> out(std::move(shape));
    std::copy(from.begin(), from.end(), out.get());
    return out.give();
  }

  Engine& engine_;
  std::shared_ptr<OpenScene> scene_;
};

std::optional<std::tuple<double, size_t, size_t>> grid(const Engine& engine) {
  if (!engine.grid()) return std::nullopt;
  return std::make_tuple(engine.grid()->edge, engine.grid()->levels, engine.grid()->size);
}

}  // namespace

void bind_scene(nb::module_& m, nb::class_<Engine>& engine) {
  nb::class_<PyScene>(m, "Scene", "The geometry of one scene, for a network on a voxel grid.")
      .def_prop_ro("sites", &PyScene::sites, "Active sites of each level.")
      .def_prop_ro("first", &PyScene::first, nb::rv_policy::move, "Value 0, (sites, features).")
      .def_prop_ro("point_to_site", &PyScene::point_to_site, nb::rv_policy::move,
                   "The row of each point's site.")
      .def("run", &PyScene::run, "The answer, (sites, classes).")
      .def("step", &PyScene::step, "index"_a, "inputs"_a.noconvert(), "The outputs of one step alone.");

  engine.def_prop_ro("grid", grid, "(edge, levels, size) of a network on a voxel grid, else None.")
      .def_prop_ro("features", &Engine::features, "What a network on a grid reads of each point.")
      .def(
          "scene",
          [](Engine& self, const Matrix& xyz, const std::optional<Matrix>& features, bool ready) {
            return PyScene(self, xyz, features, ready);
          },
          "xyz"_a.noconvert(), "features"_a.noconvert() = nb::none(), "ready"_a = false,
          nb::keep_alive<0, 1>(), "The geometry of a scene: xyz (N, 3), features as for `answers`.")
      .def("answers", answers, "xyz"_a.noconvert(), "features"_a.noconvert() = nb::none(), "ready"_a = false,
           "Answers (N, classes) of the points xyz (N, 3). features: the columns that are not computed, in "
           "the order of Engine.features, or all of them if they are `ready`.")
      .def("labels", labels, "xyz"_a.noconvert(), "features"_a.noconvert() = nb::none(), "ready"_a = false,
           "The class of each point, int64 (N,).")
      .def("profile_scene", profile, "xyz"_a.noconvert(), "features"_a.noconvert() = nb::none(),
           "ready"_a = false, "repeats"_a = 5,
           "Seconds on one thread, medians: of `parts`, of `steps`; and the `sites` of each level.")
      .def_prop_ro(
          "peak", &Engine::peak, nb::call_guard<nb::gil_scoped_release>(),
          "The most bytes held during the last scene, beside its points and answers; with what is kept "
          "of larger ones before.")
      .def("planned", &Engine::planned, "sites"_a, "Bytes of values for so many sites on each level.");
}

}  // namespace popcloud
