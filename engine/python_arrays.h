// Arrays that come from Python and go there.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>
#include <new>
#include <string>
#include <vector>

#include "engine.h"
#include "memory.h"

namespace popcloud {

namespace nb = nanobind;

template <class T, int Dimensions>
using In = nb::ndarray<const T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;
template <class T>
using Out = nb::ndarray<nb::numpy, T>;
using Any = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

// An array that Python will own.
template <class T>
struct Fresh {
  explicit Fresh(std::vector<size_t> size) : shape(std::move(size)) {
    size_t count = 1;
    for (size_t s : shape) count *= s;
    data.reset(new (std::nothrow) T[count]);
    if (!data) throw OutOfMemory(count * sizeof(T));
  }
  T* get() { return data.get(); }
  Out<T> give() {
    nb::capsule owner(data.get(), [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return Out<T>(data.release(), shape.size(), shape.data(), owner);
  }
  std::vector<size_t> shape;
  std::unique_ptr<T[]> data;
};

inline void require(bool holds, const std::string& what) {
  if (!holds) throw Error(Fault::kEngine, what);
}

// Rows and columns of a value as an array.
inline std::vector<size_t> shape_of(const Value& value, size_t rows) {
  return {value.rows == Rows::kCloud ? 1 : rows,
          value.kind == Kind::kBits ? (value.channels + 63) / 64 : value.channels};
}

// The data of an array that is a value with so many rows.
inline const void* checked(const Value& value, size_t rows, const Any& array) {
  const nb::dlpack::dtype types[] = {nb::dtype<float>(), nb::dtype<uint64_t>(), nb::dtype<int32_t>()};
  const char* const names[] = {"a float32", "a uint64", "an int32"};
  const size_t kind = static_cast<size_t>(value.kind);
  const std::vector<size_t> want = shape_of(value, rows);
  const bool fits = array.ndim() == 2 && array.shape(0) == want[0] && array.shape(1) == want[1] &&
                    array.dtype() == types[kind];
  require(fits, "value '" + value.name + "' must be " + names[kind] + " array of (" +
                    std::to_string(want[0]) + ", " + std::to_string(want[1]) + ")");
  return array.data();
}

// The wiring of a step that is to be given so many inputs.
inline const Wiring& checked_step(const Engine& engine, size_t index, size_t inputs) {
  require(index < engine.steps().size(), "step " + std::to_string(index) + " does not exist; the model has " +
                                             std::to_string(engine.steps().size()));
  const Wiring& wiring = engine.steps()[index];
  require(inputs == wiring.inputs.size(), "step " + std::to_string(index) + " reads " +
                                              std::to_string(wiring.inputs.size()) + " values, found " +
                                              std::to_string(inputs));
  return wiring;
}

}  // namespace popcloud
