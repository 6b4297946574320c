// Binding of points/neighbours.h: see python_points.cc.
#pragma once
#include <nanobind/nanobind.h>

namespace popcloud {

void bind_points(nanobind::module_& m);

}  // namespace popcloud
