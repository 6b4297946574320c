#include "python_scene.h"

namespace popcloud {

void bind_scene(nanobind::module_&) {}

}  // namespace popcloud
