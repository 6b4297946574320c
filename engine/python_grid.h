// Binding of grid: see python_grid.cc.
#pragma once
#include <nanobind/nanobind.h>

namespace popcloud {

void bind_grid(nanobind::module_& m);

}  // namespace popcloud
