#include "python_grid.h"

namespace popcloud {

void bind_grid(nanobind::module_&) {}

}  // namespace popcloud
