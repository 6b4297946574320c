// The part of the binding that trains: sparse convolution.
#pragma once
#include <nanobind/nanobind.h>

namespace popcloud {

void bind_sparse(nanobind::module_& m);

}  // namespace popcloud
