#include "kernels/kernels.h"

namespace popcloud {

const KernelTable kAvx512{"avx512",  never,   nullptr, nullptr, nullptr, nullptr,
                    nullptr, nullptr, nullptr, nullptr, nullptr};

}  // namespace popcloud
