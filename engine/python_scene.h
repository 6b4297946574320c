// Binding of scene: see python_scene.cc.
#pragma once
#include <nanobind/nanobind.h>

namespace popcloud {

void bind_scene(nanobind::module_& m);

}  // namespace popcloud
