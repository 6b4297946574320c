// popcloud._engine: the binding. Every call that works releases the interpreter's lock first.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "ops.h"
#include "program.h"
#include "python_arrays.h"
#include "python_grid.h"
#include "python_points.h"
#include "python_scene.h"
#include "python_sparse.h"
#include "threads.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace popcloud {
namespace {

std::string file_name(nb::handle path) {
  PyObject* bytes = nullptr;
  if (!PyUnicode_FSConverter(path.ptr(), &bytes)) throw nb::python_error();
  nb::object owner = nb::steal(bytes);
  return PyBytes_AsString(bytes);
}

// Signs of weights with a table's own copy of them, so that preparing it is not part of every call.
class Matrix {
 public:
  Matrix(In<uint64_t, 2> w, size_t inputs, const std::string& kernels)
      : inputs(inputs), table_(choose_kernels(kernels)), kept_(std::move(w)) {
    weight_ = {kept_.data(), kept_.shape(0), kept_.shape(1), nullptr};
    require(words_of(inputs) == weight_.words, "w_bits has " + std::to_string(weight_.words) + " words for " +
                                                   std::to_string(inputs) +
                                                   " inputs; pass (words, channels)");
    require(inputs >= 1 && inputs <= (size_t{1} << 24),
            "inputs must be 1 to 2^24, found " + std::to_string(inputs));
    if (size_t bytes = table_.prepared_bytes(weight_.words, weight_.channels)) {
      void* prepared = prepared_.take<uint8_t>(bytes);
      table_.prepare(weight_.bits, weight_.words, weight_.channels, prepared);
      weight_.prepared = prepared;
    }
  }

  Out<int32_t> mismatches(In<uint64_t, 2> x) const {
    check(x.shape(1));
    Fresh<int32_t> out({x.shape(0), channels()});
    {
      nb::gil_scoped_release free;
      table_.mismatches(x.data(), x.shape(0), weight_, all(), out.get());
    }
    return out.give();
  }

  Out<uint64_t> threshold(In<uint64_t, 2> x, In<int32_t, 1> limit) const {
    check(x.shape(1));
    require(limit.shape(0) == channels(), "limit must have one element per channel");
    Fresh<uint64_t> out({x.shape(0), words_of(channels())});
    {
      nb::gil_scoped_release free;
      std::vector<int32_t> inside(limit.data(), limit.data() + channels());
      for (int32_t& l : inside) l = std::clamp(l, -1, static_cast<int32_t>(64 * weight_.words));
      table_.threshold(x.data(), x.shape(0), weight_, all(), inside.data(), out.get());
    }
    return out.give();
  }

  std::pair<Out<int32_t>, Out<int32_t>> minimum(In<uint64_t, 3> x, int threads) const {
    check(x.shape(2));
    require(x.shape(1) >= 1, "a minimum over no rows does not exist");
    require(threads >= 1 && threads <= 1024, "threads must be 1 to 1024, found " + std::to_string(threads));
    size_t clouds = x.shape(0), stride = x.shape(1) * x.shape(2);
    Fresh<int32_t> least({clouds, channels()}), where({clouds, channels()});
    {
      nb::gil_scoped_release free;
      Pool pool(std::max(1, static_cast<int>(std::min<size_t>(static_cast<size_t>(threads), clouds))));
      pool.run([&](size_t thread) {
        for (size_t i = thread; i < clouds; i += pool.size())
          table_.minimum(x.data() + i * stride, x.shape(1), weight_, all(), least.get() + i * channels(),
                         where.get() + i * channels());
      });
    }
    return {least.give(), where.give()};
  }

  const size_t inputs;
  size_t channels() const { return weight_.channels; }
  std::string kernels() const { return table_.name; }

 private:
  Channels all() const { return {0, weight_.channels}; }
  void check(size_t words) const {
    require(words == weight_.words,
            "rows have " + std::to_string(words) + " words, the weights " + std::to_string(weight_.words));
  }

  const KernelTable& table_;
  In<uint64_t, 2> kept_;
  Buffer prepared_;
  PackedMatrix weight_{};
};

Matrix whole_words(In<uint64_t, 2> w, const std::string& kernels) {
  size_t inputs = 64 * w.shape(0);
  return Matrix(std::move(w), inputs, kernels);
}

Out<uint64_t> pack(In<float, 2> x, In<float, 1> threshold, const std::string& kernels) {
  const KernelTable& table = choose_kernels(kernels);
  require(threshold.shape(0) == x.shape(1), "threshold must have one element per column of x");
  Fresh<uint64_t> out({x.shape(0), words_of(x.shape(1))});
  {
    nb::gil_scoped_release free;
    table.binarize(x.data(), x.shape(0), x.shape(1), threshold.data(), out.get());
  }
  return out.give();
}

Out<float> linear(In<float, 2> x, In<float, 2> w, In<float, 1> bias, const std::string& kernels) {
  const KernelTable& table = choose_kernels(kernels);
  require(x.shape(1) == w.shape(0) && bias.shape(0) == w.shape(1),
          "x must be (R, K), w (K, C) and bias (C), found K = " + std::to_string(x.shape(1)) + ", w (" +
              std::to_string(w.shape(0)) + ", " + std::to_string(w.shape(1)) + ") and " +
              std::to_string(bias.shape(0)));
  Fresh<float> out({x.shape(0), w.shape(1)});
  {
    nb::gil_scoped_release free;
    table.linear(x.data(), x.shape(0), w.shape(0), w.data(), bias.data(), w.shape(1), Activation::kNone,
                 out.get());
  }
  return out.give();
}

void load(Engine* self, nb::handle path, const std::optional<std::string>& kernels, int threads, bool fuse,
          bool unique_rows, bool early_exit) {
  std::string name = file_name(path);
  nb::gil_scoped_release free;
  new (self) Engine(name, Options{kernels.value_or(""), threads, fuse, unique_rows, early_exit});
}

Cloud check_cloud(const In<float, 2>& cloud, const Engine& engine) {
  if (cloud.shape(1) != engine.columns())
    throw Error(Fault::kCloud, "a cloud has " + std::to_string(cloud.shape(1)) + " columns, expected " +
                                   (engine.sampling() ? "the model's " + std::to_string(engine.columns()) +
                                                            "; pass those that `features` names"
                                                      : "x, y, z; pass those alone"));
  return {cloud.data(), cloud.shape(0)};
}

// An array of each cloud's answers (points, classes), of one memory.
nb::list split(Out<float> all, const std::vector<Cloud>& clouds) {
  nb::object whole = nb::cast(all);
  nb::list list;
  size_t first = 0;
  for (const Cloud& cloud : clouds) {
    list.append(whole[nb::slice(nb::int_(first), nb::int_(first + cloud.points), nb::none())]);
    first += cloud.points;
  }
  return list;
}

nb::object run(Engine& engine, const std::vector<In<float, 2>>& arrays) {
  std::vector<Cloud> clouds;
  size_t rows = 0;
  for (const In<float, 2>& array : arrays) {
    clouds.push_back(check_cloud(array, engine));
    rows += engine.per_point() ? clouds.back().points : 1;
  }
  Fresh<float> out({rows, engine.classes().size()});
  {
    nb::gil_scoped_release free;
    engine.run(clouds.data(), clouds.size(), out.get());
  }
  return engine.per_point() ? nb::object(split(out.give(), clouds)) : nb::cast(out.give());
}

nb::object step(Engine& engine, size_t index, const std::vector<Any>& inputs, size_t points) {
  const Wiring& wiring = checked_step(engine, index, inputs.size());
  std::vector<const void*> data;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const size_t value = wiring.inputs[i];
    data.push_back(checked(engine.values()[value], engine.rows(value, points), inputs[i]));
  }
  const Value& value = engine.values()[wiring.outputs[0]];
  const std::vector<size_t> shape = shape_of(value, engine.rows(wiring.outputs[0], points));
  auto answer = [&](auto out) {
    {
      nb::gil_scoped_release free;
      engine.step(index, data.data(), points, out.get());
    }
    return nb::cast(out.give());
  };
  if (value.kind == Kind::kFloat) return answer(Fresh<float>(shape));
  if (value.kind == Kind::kIndex) return answer(Fresh<int32_t>(shape));
  return answer(Fresh<uint64_t>(shape));
}

Out<float> prepared(const In<float, 2>& array, size_t count, const std::string& how) {
  if (array.shape(1) != 3)
    throw Error(Fault::kCloud, "a cloud has " + std::to_string(array.shape(1)) +
                                   " columns, expected x, y, z; pass those alone");
  const Cloud cloud{array.data(), array.shape(0)};
  std::vector<float> xyz;
  {
    nb::gil_scoped_release free;
    xyz = prepare(cloud.xyz, cloud.points, count, how);
  }
  Fresh<float> out({xyz.size() / 3, 3});
  std::copy(xyz.begin(), xyz.end(), out.get());
  return out.give();
}

std::vector<double> profile(Engine& engine, const In<float, 2>& array, int repeats) {
  Cloud cloud = check_cloud(array, engine);
  nb::gil_scoped_release free;
  return engine.profile(cloud, repeats);
}

using ValueTuple = std::tuple<std::string, int, int, size_t, size_t, size_t>;

std::vector<ValueTuple> values(const Engine& engine) {
  std::vector<ValueTuple> list;
  for (const Value& v : engine.values())
    list.emplace_back(v.name, static_cast<int>(v.kind), static_cast<int>(v.rows), v.channels, v.level,
                      v.each);
  return list;
}

using StepTuple = std::pair<std::vector<size_t>, std::vector<size_t>>;

std::vector<StepTuple> steps(const Engine& engine) {
  std::vector<StepTuple> list;
  for (const Wiring& w : engine.steps()) list.emplace_back(w.inputs, w.outputs);
  return list;
}

std::optional<std::vector<double>> sampling(const Engine& engine) {
  if (!engine.sampling()) return std::nullopt;
  return engine.sampling()->ratios;
}

// Error becomes the class of popcloud.errors that its fault names.
void translate(const std::exception_ptr& thrown, void*) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& error) {
    const char* name = error.fault() == Fault::kFile    ? "FileError"
                       : error.fault() == Fault::kCloud ? "CloudError"
                                                        : "EngineError";
    nb::object type = nb::module_::import_("popcloud.errors").attr(name);
    // A path in the message need not be UTF-8.
    nb::object text = nb::steal(PyUnicode_DecodeFSDefault(error.what()));
    PyErr_SetObject(type.ptr(), text.ptr());
  }
}

}  // namespace
}  // namespace popcloud

NB_MODULE(_engine, m) {
  using namespace popcloud;
  nb::register_exception_translator(translate);

  m.def("tables", compiled_kernels, "Names of all kernel tables in this build, fastest first.");
  m.def("available", available_kernels, "Names of the kernel tables that this CPU can run, fastest first.");
  m.def("physical_cores", physical_cores, "Physical cores within this process's affinity.");
  m.def("prepare", prepared, "cloud"_a.noconvert(), "count"_a, "how"_a,
        "What popcloud.cloud.prepare does, as programs without Python do it.");
  m.def("pack", pack, "x"_a.noconvert(), "threshold"_a.noconvert(), "kernels"_a = "",
        "Bits (R, words) of x (R, C) float32 < threshold (C).");
  m.def("linear", linear, "x"_a.noconvert(), "w"_a.noconvert(), "bias"_a.noconvert(), "kernels"_a = "",
        "bias + x (R, K) @ w (K, C) in float32, one fused multiply-add after the other.");
  m.def(
      "mismatches",
      [](In<uint64_t, 2> x, In<uint64_t, 2> w, const std::string& kernels) {
        return whole_words(std::move(w), kernels).mismatches(std::move(x));
      },
      "x_bits"_a.noconvert(), "w_bits"_a.noconvert(), "kernels"_a = "",
      "popcount(row xor column), int32 (R, C), of x_bits (R, W) and w_bits (W, C).");
  m.def(
      "threshold",
      [](In<uint64_t, 2> x, In<uint64_t, 2> w, In<int32_t, 1> limit, const std::string& kernels) {
        return whole_words(std::move(w), kernels).threshold(std::move(x), std::move(limit));
      },
      "x_bits"_a.noconvert(), "w_bits"_a.noconvert(), "limit"_a.noconvert(), "kernels"_a = "",
      "Bits (R, words of C) of mismatches > limit (C) int32.");
  m.def(
      "pooled_minimum",
      [](In<uint64_t, 3> x, In<uint64_t, 2> w, int threads, const std::string& kernels) {
        return whole_words(std::move(w), kernels).minimum(std::move(x), threads);
      },
      "x_bits"_a.noconvert(), "w_bits"_a.noconvert(), "threads"_a = 1, "kernels"_a = "",
      "Least mismatches over n and the first row that has them: two int32 (B, C), of x_bits (B, n, W), "
      "w_bits (W, C).");

  bind_grid(m);
  bind_sparse(m);
  bind_points(m);

  nb::class_<Matrix>(m, "Matrix", "Binary weights (W, C), prepared once for one kernel table.")
      .def(nb::init<In<uint64_t, 2>, size_t, const std::string&>(), "w_bits"_a.noconvert(), "inputs"_a,
           "kernels"_a = "")
      .def_ro("inputs", &Matrix::inputs)
      .def_prop_ro("channels", &Matrix::channels)
      .def_prop_ro("kernels", &Matrix::kernels)
      .def("mismatches", &Matrix::mismatches, "x_bits"_a.noconvert(), "As the function, int32 (R, C).")
      .def("threshold", &Matrix::threshold, "x_bits"_a.noconvert(), "limit"_a.noconvert(), "As the function.")
      .def("pooled_minimum", &Matrix::minimum, "x_bits"_a.noconvert(), "threads"_a = 1, "As the function.");

  nb::class_<Engine> engine(m, "Engine", "A loaded model; see engine.h.");
  engine
      .def("__init__", load, "path"_a, "kernels"_a = nb::none(), "threads"_a = 0, "fuse"_a = true,
           "unique_rows"_a = true, "early_exit"_a = true)
      .def_prop_ro("points", &Engine::points, "How many points a cloud is resampled to; 0: not.")
      .def_prop_ro("normalize", &Engine::normalize, "'none' or 'unit_sphere'.")
      .def_prop_ro("classes", &Engine::classes, "The class names.")
      .def_prop_ro("kernels", &Engine::kernels, "The kernel table in use.")
      .def_prop_ro("threads", &Engine::threads, "How many threads work.")
      .def_prop_ro("per_point", &Engine::per_point, "Whether the answer has a row per point.")
      .def_prop_ro("sampling", sampling, "Ratios of the levels of a network on points; None of others.")
      .def_prop_ro("values", values, "(name, kind, rows, channels, level, each) of each value.")
      .def_prop_ro("steps", steps, "(inputs, outputs) of each step, indices into values.")
      .def("run", run, "clouds"_a.noconvert(),
           "Answers (B, classes) to prepared clouds, each float32 (n, 3), on points (n, columns); if "
           "per_point, a "
           "list of (n, classes).")
      .def("step", step, "index"_a, "inputs"_a.noconvert(), "points"_a,
           "The output of one step alone, of a cloud of so many points.")
      .def("profile", profile, "cloud"_a.noconvert(), "repeats"_a = 31,
           "Seconds per step on one thread, median over the repeats. Steps that run fused are timed apart, "
           "block of "
           "rows by block of rows; the search for equal rows counts for the step that made them.")
      .def("memory", &Engine::memory, "Bytes held for values and scratch by now.");
  bind_scene(m, engine);
}
