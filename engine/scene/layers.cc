#include "scene/layers.h"

#include <algorithm>

namespace popcloud {
namespace {

constexpr size_t kNeighbours = 27, kChildren = 8;
// From this width on the channels of a shifted group are summed apart, each over its own 27 offsets: below it
// a vector would be mostly empty, and all channels go through the union of the offsets instead.
constexpr size_t kWorthItsOwn = 16;

enum Blobs { kWeight, kScale, kBias, kPrelu, kThresholds, kShifts };

// Channels [first, first + channels) see the 27 offsets around `shift`.
struct Shifted {
  size_t first, channels;
  const int8_t* shift;  // x, y, z
};

std::vector<Shifted> groups_of(const Step& step, size_t channels) {
  static const int8_t kNone[3] = {0, 0, 0};
  const Blob& shifts = step.blobs[kShifts];
  if (!shifts.data) return {{0, channels, kNone}};
  std::vector<Shifted> groups;
  const size_t width = channels / shifts.shape[0];
  for (size_t g = 0; g < shifts.shape[0]; ++g) groups.push_back({g * width, width, shifts.bytes() + 3 * g});
  return groups;
}

// The number of the i-th of 27 offsets, moved by `shift`, in a cube of `size`.
size_t number_of(size_t i, const int8_t* shift, int size) {
  const int half = size / 2, at[3] = {int(i / 9) - 1, int(i / 3 % 3) - 1, int(i % 3) - 1};
  size_t number = 0;
  for (int axis = 0; axis < 3; ++axis) number = number * size_t(size) + size_t(at[axis] + shift[axis] + half);
  return number;
}

bool shifts_anything(const Step& step) {
  const Blob& shifts = step.blobs[kShifts];
  return shifts.data &&
         std::any_of(shifts.bytes(), shifts.bytes() + shifts.count(), [](int8_t s) { return s; });
}

// Where weights of a part go: weights i of the file lie in slot `to` for the channels of `group`.
struct Placing {
  const Shifted* group;
  size_t from, to;
};

class Builder {
 public:
  Builder(const Program& program, const Step& step, const LevelOffsets& list, const KernelTable& table)
      : step_(step), list_(list), table_(table) {
    layer_.op = step.op;
    layer_.inputs = program.values[step.inputs[0]].channels;
    layer_.channels = program.values[step.output()].channels;
    for (size_t value : step.outputs)
      ++(program.values[value].kind == Kind::kFloat ? layer_.floats : layer_.signs);
    if (is_convolution(step.op)) {
      layer_.way = way_of(program, step);
      layer_.binary = step.op == Op::kBinarySparseConv;
      convolution();
      finishes();
    } else if (step.op < Op::kSparseConv) {
      layer_.row = std::make_unique<Layer>(program, step, table);
      if (step.op == Op::kBinaryLinear && step.inputs.size() == 1) own_rows();
    }
  }

  SceneLayer take() { return std::move(layer_); }

 private:
  void convolution() {
    if (layer_.way != Way::kSame) {
      Part part = new_part(0, layer_.channels, kChildren);
      const Shifted all{0, layer_.channels, nullptr};
      std::vector<Placing> placings;
      for (size_t i = 0; i < kChildren; ++i) part.slot[i] = uint8_t(i), placings.push_back({&all, i, i});
      return add(std::move(part), placings, kChildren);
    }
    const std::vector<Shifted> groups = groups_of(step_, layer_.channels);
    const bool apart = groups.size() > 1 && (!layer_.binary || groups[0].channels >= kWorthItsOwn);
    for (size_t g = 0; g < (apart ? groups.size() : 1); ++g)
      neighbourhood(apart ? &groups[g] : groups.data(), apart ? 1 : groups.size());
  }

  // A part for some groups side by side. It takes the list as it is where it sees all of it.
  void neighbourhood(const Shifted* groups, size_t count) {
    Offsets seen;
    for (size_t g = 0; g < count; ++g)
      for (size_t i = 0; i < kNeighbours; ++i) seen.set(number_of(i, groups[g].shift, list_.size));
    const bool direct = seen == list_.wanted;
    const size_t all = size_t(list_.size * list_.size * list_.size);
    Part part = new_part(groups[0].first, count * groups[0].channels, direct ? all : seen.count());
    part.direct = direct;
    for (size_t number = 0, next = 0; number < all; ++number)
      if (seen[number]) part.slot[number] = uint8_t(direct ? number : next++);
    std::vector<Placing> placings;
    for (size_t g = 0; g < count; ++g)
      for (size_t i = 0; i < kNeighbours; ++i)
        placings.push_back({groups + g, i, part.slot[number_of(i, groups[g].shift, list_.size)]});
    add(std::move(part), placings, kNeighbours);
  }

  static Part new_part(size_t first, size_t channels, size_t offsets) {
    Part part;
    part.first = first, part.channels = channels, part.offsets = offsets;
    part.slot.fill(kUnseen);
    return part;
  }

  void add(Part part, const std::vector<Placing>& placings, size_t file_offsets) {
    if (layer_.binary)
      place_signs(part, placings, file_offsets);
    else
      place_floats(part, placings);
    layer_.parts.push_back(std::move(part));
  }

  void place_floats(Part& part, const std::vector<Placing>& placings) {
    const size_t size = layer_.inputs * part.channels;
    part.floats = Array<float>(part.offsets * size);
    std::fill(part.floats.begin(), part.floats.end(), 0.0f);
    for (const Placing& p : placings)
      for (size_t k = 0; k < layer_.inputs; ++k) {
        const float* from =
            step_.blobs[kWeight].floats() + (p.from * layer_.inputs + k) * layer_.channels + p.group->first;
        std::copy(from, from + p.group->channels,
                  part.floats.data() + p.to * size + k * part.channels + p.group->first - part.first);
      }
    part.weights = part.floats.data();
  }

  // The file has the signs of a channel without gaps from offset to offset; here each offset starts a word.
  void place_signs(Part& part, const std::vector<Placing>& placings, size_t file_offsets) {
    const size_t words = words_of(layer_.inputs), seen_words = words_of(part.channels);
    part.bits = Array<uint64_t>(part.offsets * words * part.channels);
    part.seen = Array<uint64_t>(part.offsets * seen_words);
    std::fill(part.bits.begin(), part.bits.end(), 0);
    std::fill(part.seen.begin(), part.seen.end(), 0);
    for (const Placing& p : placings)
      for (size_t i = 0; i < p.group->channels; ++i) {
        const size_t c = p.group->first - part.first + i;
        part.seen[p.to * seen_words + c / 64] |= uint64_t{1} << c % 64;
        for (size_t w = 0; w < words; ++w)
          part.bits[(p.to * words + w) * part.channels + c] =
              signs_at(p.group->first + i, p.from * layer_.inputs + 64 * w,
                       std::min<size_t>(64, layer_.inputs - 64 * w), file_offsets * layer_.inputs);
      }
    prepare(part);
  }

  // Signs [first, first + count) of a column of the file's weights, of `total` signs.
  uint64_t signs_at(size_t column, size_t first, size_t count, size_t total) const {
    const uint64_t* words = step_.blobs[kWeight].words();
    const size_t w = first / 64, shift = first % 64;
    uint64_t bits = words[w * layer_.channels + column] >> shift;
    if (shift && w + 1 < words_of(total)) bits |= words[(w + 1) * layer_.channels + column] << (64 - shift);
    return count == 64 ? bits : bits & ((uint64_t{1} << count) - 1);
  }

  void prepare(Part& part) const {
    part.signs = {part.offsets, layer_.inputs, part.channels, part.bits.data(), part.seen.data(), nullptr};
    const size_t bytes = table_.sign_kernel_bytes(part.signs);
    if (bytes == 0) return;
    part.prepared = Array<uint8_t>(bytes);
    table_.prepare_sign_kernel(part.signs, part.prepared.data());
    part.signs.prepared = part.prepared.data();
  }

  // BINARY_LINEAR as a convolution that sees its own site alone.
  void own_rows() {
    layer_.binary = true;
    Part part = new_part(0, layer_.channels, 1);
    const Shifted all{0, layer_.channels, nullptr};
    part.slot[0] = 0;
    place_signs(part, {{&all, 0, 0}}, 1);
    layer_.parts.push_back(std::move(part));
  }

  void finishes() {
    const std::vector<Blob>& blobs = step_.blobs;
    const float* prelu = blobs[kPrelu].data ? blobs[kPrelu].floats() : nullptr;
    for (size_t j = 0; j < std::max<size_t>(1, layer_.floats); ++j) {
      Finish finish{};
      finish.channels = layer_.channels;
      finish.scale = blobs[kScale].floats() + j * layer_.channels;
      finish.bias = blobs[kBias].floats() + j * layer_.channels;
      finish.activation = step_.activation;
      finish.prelu = prelu;
      if (layer_.signs) finish.signs = layer_.signs, finish.thresholds = blobs[kThresholds].floats();
      layer_.finishes.push_back(finish);
    }
  }

  const Step& step_;
  const LevelOffsets& list_;
  const KernelTable& table_;
  SceneLayer layer_{};
};

}  // namespace

bool is_convolution(Op op) { return op == Op::kSparseConv || op == Op::kBinarySparseConv; }

Way way_of(const Program& program, const Step& step) {
  const size_t from = program.values[step.inputs[0]].level, to = program.values[step.output()].level;
  return from == to ? Way::kSame : from < to ? Way::kDown : Way::kUp;
}

std::vector<LevelOffsets> level_offsets(const Program& program) {
  std::vector<LevelOffsets> levels(program.grid->levels);
  auto on_level = [&](auto&& work) {
    for (const Step& step : program.steps)
      if (is_convolution(step.op) && way_of(program, step) == Way::kSame)
        work(step, levels[program.values[step.output()].level]);
  };
  on_level([](const Step& step, LevelOffsets& level) {
    if (shifts_anything(step)) level.size = 5;
  });
  on_level([&](const Step& step, LevelOffsets& level) {
    for (const Shifted& group : groups_of(step, program.values[step.output()].channels))
      for (size_t i = 0; i < kNeighbours; ++i) level.wanted.set(number_of(i, group.shift, level.size));
  });
  return levels;
}

std::vector<SceneLayer> scene_layers(const Program& program, const std::vector<LevelOffsets>& levels,
                                     const KernelTable& table) {
  std::vector<SceneLayer> layers;
  for (const Step& step : program.steps)
    layers.push_back(Builder(program, step, levels[program.values[step.output()].level], table).take());
  return layers;
}

}  // namespace popcloud
