// The list of tables, and the choice among them.
#include <cstring>

#include "kernels/kernels.h"

namespace popcloud {

const KernelTable* const* all_kernels() {
#define POPCLOUD_ADDRESS(table) &table,
  static const KernelTable* const list[] = {POPCLOUD_TABLES(POPCLOUD_ADDRESS) nullptr};
#undef POPCLOUD_ADDRESS
  return list;
}

// Null rather than the next best: who asks for a table by name must get that one or hear of it.
const KernelTable* find_kernels(const char* name) {
  for (auto table = all_kernels(); *table; ++table)
    if (std::strcmp((*table)->name, name) == 0) return (*table)->supported() ? *table : nullptr;
  return nullptr;
}

const KernelTable& best_kernels() {
  for (auto table = all_kernels();; ++table)
    if ((*table)->supported()) return **table;  // portable is last and always supported
}

}  // namespace popcloud
