// Steps of a network on a voxel grid, with their constants as the kernels want them.
#pragma once
#include <array>
#include <memory>
#include <vector>

#include "grid/grid.h"
#include "ops.h"

namespace popcloud {

constexpr uint8_t kUnseen = 255;  // a slot: the layer does not see this offset

// Between which levels a convolution leads, seen from its input.
enum class Way { kSame, kDown, kUp };

// Output channels of a convolution that are summed in one go, over the same offsets of a list.
struct Part {
  size_t first, channels;
  size_t offsets;  // that its weights have
  std::array<uint8_t, kOffsetMask + 1>
      slot{};                      // of an offset's number in the list: which weights, or kUnseen
  bool direct = true;              // slot[i] = i for all offsets of the list
  SignKernel signs{};              // binary: the weights
  const float* weights = nullptr;  // float: [offsets][inputs][channels]
  Array<uint64_t> bits, seen;      // what the above points to
  Array<uint8_t> prepared;
  Array<float> floats;
};

// What one step does to rows of sites.
struct SceneLayer {
  Op op;
  Way way = Way::kSame;
  bool binary = false;           // of convolutions: the input is signs
  size_t inputs, channels;       // of the first input, of the output
  std::unique_ptr<Layer> row;    // of steps that go row by row
  std::vector<Part> parts;       // of convolutions, and of BINARY_LINEAR without a scale per row
  std::vector<Finish> finishes;  // of convolutions, one per float output, but at least one
  size_t floats = 0, signs = 0;  // outputs of each kind
};

// The offsets that some layer sees, by level, and the size of the cube they are numbered in.
struct LevelOffsets {
  int size = 3;
  Offsets wanted;  // none: no layer stays on the level

  friend bool operator==(const LevelOffsets& a, const LevelOffsets& b) {
    return a.size == b.size && a.wanted == b.wanted;
  }
};
std::vector<LevelOffsets> level_offsets(const Program& program);

Way way_of(const Program& program, const Step& step);
bool is_convolution(Op op);

// The layers of a program on a grid, one per step.
std::vector<SceneLayer> scene_layers(const Program& program, const std::vector<LevelOffsets>& levels,
                                     const KernelTable& table);

}  // namespace popcloud
