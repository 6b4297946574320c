// Sparse convolution for popcloud._engine. Shapes and rows are checked here, once per call.
#include "python_sparse.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <memory>
#include <mutex>

#include "program.h"
#include "sparse.h"
#include "winners.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace popcloud {
namespace {

template <class T, int Dimensions>
using Whole = nb::ndarray<const T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;
// A matrix whose rows may lie apart: columns of a wider one.
using Columns = nb::ndarray<const float, nb::ndim<2>, nb::device::cpu>;
using OutColumns = nb::ndarray<float, nb::ndim<2>, nb::device::cpu>;
using Weights = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

void require(bool holds, const std::string& what) {
  if (!holds) throw Error(Fault::kEngine, what);
}

std::string shape_text(size_t a, size_t b, size_t c) {
  return "(" + std::to_string(a) + ", " + std::to_string(b) + ", " + std::to_string(c) + ")";
}

// Floats from one row to the next.
template <class Array>
size_t stride_of(const Array& a, const char* name) {
  const size_t columns = a.shape(1);
  if (a.size() == 0) return columns;
  require(columns <= 1 || a.stride(1) == 1, std::string(name) +
                                                " must have its columns side by side, found a stride of " +
                                                std::to_string(a.stride(1)) + "; pass a copy");
  if (a.shape(0) == 1) return columns;
  require(a.stride(0) >= static_cast<int64_t>(columns),
          std::string(name) + " has rows that overlap or run backwards, a stride of " +
              std::to_string(a.stride(0)) + "; pass a copy");
  return static_cast<size_t>(a.stride(0));
}

KernelMap map_of(const Whole<int32_t, 1>& inputs, const Whole<int32_t, 1>& outputs,
                 const Whole<int64_t, 2>& ranges, size_t offsets) {
  require(inputs.shape(0) == outputs.shape(0), "a kernel map has pairs, found " +
                                                   std::to_string(inputs.shape(0)) + " inputs and " +
                                                   std::to_string(outputs.shape(0)) + " outputs");
  require(ranges.shape(0) == offsets && ranges.shape(1) == 2,
          "ranges must be (" + std::to_string(offsets) + ", 2), a row per offset of the weights, found (" +
              std::to_string(ranges.shape(0)) + ", " + std::to_string(ranges.shape(1)) + ")");
  return {inputs.data(), outputs.data(), inputs.shape(0), ranges.data(), offsets};
}

void check_weights(const nb::ndarray<nb::ro>& w, const char* name, size_t inputs, size_t channels) {
  require(w.shape(1) == inputs && w.shape(2) == channels,
          std::string(name) + " must be " + shape_text(w.shape(0), inputs, channels) + ", found " +
              shape_text(w.shape(0), w.shape(1), w.shape(2)));
}

// Training calls this thousands of times a second, and starting a thread takes longer than a small layer: the
// threads stay. Callers take turns. Never destroyed: joining threads while a process ends can hang it.
template <class Work>
void with_pool(int threads, const Work& work) {
  static std::mutex* const turn = new std::mutex;
  static std::unique_ptr<Pool>* const kept = new std::unique_ptr<Pool>;
  require(threads >= 1 && threads <= 1024, "threads must be 1 to 1024, found " + std::to_string(threads));
  std::lock_guard<std::mutex> lock(*turn);
  if (!*kept || (*kept)->size() != static_cast<size_t>(threads)) {
    kept->reset();
    kept->reset(new Pool(threads));
  }
  work(**kept);
}

void conv(const Columns& x, const Whole<float, 3>& weight, const Whole<int32_t, 1>& inputs,
          const Whole<int32_t, 1>& outputs, const Whole<int64_t, 2>& ranges, OutColumns& y, int threads,
          const std::string& kernels) {
  const KernelTable& table = choose_kernels(kernels);
  check_weights(nb::ndarray<nb::ro>(weight), "weight", x.shape(1), y.shape(1));
  const KernelMap map = map_of(inputs, outputs, ranges, weight.shape(0));
  const FloatRows rows{x.data(), stride_of(x, "x"), x.shape(1)};
  const size_t y_stride = stride_of(y, "y");
  nb::gil_scoped_release free;
  check_map(map, x.shape(0), y.shape(0));
  with_pool(threads, [&](Pool& pool) {
    sparse_conv(table, pool, map, rows, weight.data(), y.shape(1), y.data(), y_stride, y.shape(0));
  });
}

void weight_grad(const Columns& x, const Columns& dy, const Whole<int32_t, 1>& inputs,
                 const Whole<int32_t, 1>& outputs, const Whole<int64_t, 2>& ranges, Weights& dw, int threads,
                 const std::string& kernels) {
  const KernelTable& table = choose_kernels(kernels);
  check_weights(nb::ndarray<nb::ro>(dw), "dw", x.shape(1), dy.shape(1));
  const KernelMap map = map_of(inputs, outputs, ranges, dw.shape(0));
  const FloatRows rows{x.data(), stride_of(x, "x"), x.shape(1)};
  const FloatRows slopes{dy.data(), stride_of(dy, "dy"), dy.shape(1)};
  nb::gil_scoped_release free;
  check_map(map, x.shape(0), dy.shape(0));
  with_pool(threads,
            [&](Pool& pool) { sparse_weight_grad(table, pool, map, rows, slopes, dy.shape(0), dw.data()); });
}

void winners(const Whole<float, 3>& x, const Whole<float, 2>& weight, const Whole<int64_t, 2>& rows,
             const Whole<float, 2>& won, Weights d_x,
             nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu> d_weight) {
  const size_t groups = x.shape(0), inputs = x.shape(2), outputs = weight.shape(0);
  require(rows.shape(0) == groups && rows.shape(1) == outputs && won.shape(0) == groups &&
              won.shape(1) == outputs,
          "rows and won must be (" + std::to_string(groups) + ", " + std::to_string(outputs) +
              "), a row per group and output");
  require(d_x.shape(0) == groups && d_x.shape(1) == x.shape(1) && d_x.shape(2) == inputs &&
              weight.shape(1) == inputs && d_weight.shape(0) == outputs && d_weight.shape(1) == inputs,
          "gradients must have the shapes of x and weight, which have as many inputs");
  const auto last = static_cast<int64_t>(x.shape(1)) - 1;
  for (size_t i = 0; i < rows.size(); ++i) {
    const int64_t row = rows.data()[i];
    if (row < 0 || row > last) {
      require(false,
              "a row that won is " + std::to_string(row) + ", the last one is " + std::to_string(last));
    }
  }
  nb::gil_scoped_release released;
  add_winners({groups, x.shape(1), inputs, outputs, x.data(), weight.data(), rows.data(), won.data(),
               d_x.data(), d_weight.data()});
}

}  // namespace

void bind_sparse(nb::module_& m) {
  m.def("sparse_conv", conv, "x"_a.noconvert(), "weight"_a.noconvert(), "inputs"_a.noconvert(),
        "outputs"_a.noconvert(), "ranges"_a.noconvert(), "y"_a.noconvert(), "threads"_a = 1, "kernels"_a = "",
        "Add x[inputs] @ weight[k] to y[outputs] for the pairs ranges[k] of each offset k, in place.\n\n"
        "x (N, I) and y (M, C) float32, either may be columns of a wider matrix; weight (K, I, C) float32; "
        "inputs, outputs (P,) int32, outputs ascending within an offset; ranges (K, 2) int64. The same bits "
        "for any kernels and threads.");
  m.def("sparse_conv_weight_grad", weight_grad, "x"_a.noconvert(), "dy"_a.noconvert(), "inputs"_a.noconvert(),
        "outputs"_a.noconvert(), "ranges"_a.noconvert(), "dw"_a.noconvert(), "threads"_a = 1,
        "kernels"_a = "",
        "Add x[inputs].T @ dy[outputs], for the pairs ranges[k], to dw[k] (K, I, C), in place; the rest as "
        "for sparse_conv.");
  m.def(
      "add_winners", winners, "x"_a.noconvert(), "weight"_a.noconvert(), "rows"_a.noconvert(),
      "won"_a.noconvert(), "d_x"_a.noconvert(), "d_weight"_a.noconvert(),
      "Add what the largest products over the rows of x (G, n, K) float32 pass back, in place.\n\n"
      "weight (C, K) float32; the rows that won (G, C) int64, what passes back to each, won (G, C) float32; "
      "d_x like x, d_weight like weight.");
}

}  // namespace popcloud
