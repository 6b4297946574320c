// The part of the binding that runs scenes.
#pragma once
#include <nanobind/nanobind.h>

#include "engine.h"

namespace popcloud {

void bind_scene(nanobind::module_& m, nanobind::class_<Engine>& engine);

}  // namespace popcloud
