#include "kernels/kernels.h"

namespace popcloud {

const KernelTable kNeon{"neon",  never,   nullptr, nullptr, nullptr, nullptr,
                    nullptr, nullptr, nullptr, nullptr, nullptr};

}  // namespace popcloud
