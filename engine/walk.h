// Walk a plan over one cloud.
#pragma once
#include "ops.h"
#include "plan.h"
#include "threads.h"

namespace popcloud {

// What one thread keeps from cloud to cloud.
struct Workspace {
  std::vector<Buffer> slots;
  Buffer block;
  Scratch scratch;

  size_t bytes() const;
};

// What all walks of one engine share; nothing in it changes after loading.
struct Network {
  const Program& program;
  const Plan& plan;
  const std::vector<Layer>& layers;  // one per step
  const KernelTable& table;
  bool early_exit;
};

// Runs one cloud. Values lie in own.slots. `pool` cuts each step's rows or channels, thread i using
// spaces[i]; null runs all of it here, in spaces[0]. seconds (or null): adds the time of each step; only
// without a pool.
void walk(const Network& network, const Cloud& cloud, Workspace* spaces, Pool* pool, double* seconds,
          float* answer);

// Runs one step here, on whole values of a cloud of so many points.
void walk_step(const Network& network, size_t step, size_t points, const void* const* inputs, void* output,
               Scratch& scratch);

}  // namespace popcloud
