#include "scene/tile.h"

#include <algorithm>
#include <cstring>

namespace popcloud {
namespace {

constexpr size_t kRowWeights = 28 << 10;  // bytes of weights that stay in a first-level cache of 32 KB

// Adds the time of a scope to a sum, if there is one.
class Watch {
 public:
  explicit Watch(double* sum) : sum_(sum) {
    if (sum_) start_ = Clock::now();
  }
  ~Watch() {
    if (sum_) *sum_ += std::chrono::duration<double>(Clock::now() - start_).count();
  }

 private:
  using Clock = std::chrono::steady_clock;
  double* sum_;
  Clock::time_point start_;
};

// The entries that a part sees, numbered as its weights are.
Gather pick(const KernelTable& table, const Gather& all, const Part& part, TileSpace& space) {
  uint32_t* entries = space.entries.take<uint32_t>(all.begin[all.rows] - all.begin[0] + 8);
  uint32_t* begin = space.begin.take<uint32_t>(all.rows + 1);
  table.pick(all, part.slot.data(), begin, entries);
  return {begin, entries, all.rows};
}

// The children of the parents [first, last).
Gather children(const Links& links, size_t first, size_t last, TileSpace& space) {
  const uint32_t base = links.first_child[first], count = links.first_child[last] - base;
  uint32_t* entries = space.entries.take<uint32_t>(count);
  uint32_t* begin = space.begin.take<uint32_t>(last - first + 1);
  for (uint32_t i = 0; i < count; ++i)
    entries[i] = (base + i) << kOffsetBits | (links.up[base + i] & kOffsetMask);
  for (size_t r = 0; r <= last - first; ++r) begin[r] = links.first_child[first + r] - base;
  return {begin, entries, last - first};
}

// Copies the entries of a Gather to pairs sorted by offset, those of an offset in the order of their rows.
class ByOffset {
 public:
  ByOffset(const Gather& rows, TileSpace& space) {
    const size_t most = rows.begin ? rows.begin[rows.rows] - rows.begin[0] : rows.rows;
    inputs_ = space.pairs.take<int32_t>(2 * most);
    outputs_ = inputs_ + most;
    std::array<uint32_t, kOffsetMask + 1> count{}, next;
    each(rows, [&](size_t, uint32_t entry) { ++count[entry & kOffsetMask]; });
    for (size_t o = 0; o <= kOffsetMask; ++o) end_[o + 1] = end_[o] + count[o], next[o] = end_[o];
    each(rows, [&](size_t r, uint32_t entry) {
      const uint32_t at = next[entry & kOffsetMask]++;
      inputs_[at] = static_cast<int32_t>(entry >> kOffsetBits);
      outputs_[at] = static_cast<int32_t>(r);
    });
  }

  Pairs of(size_t offset) const {
    return {inputs_ + end_[offset], outputs_ + end_[offset], end_[offset + 1] - end_[offset]};
  }

 private:
  template <class Work>
  static void each(const Gather& rows, const Work& work) {
    for (size_t r = 0; r < rows.rows; ++r) {
      const size_t first = rows.begin ? rows.begin[r] : r, last = rows.begin ? rows.begin[r + 1] : r + 1;
      for (size_t p = first; p < last; ++p) work(r, rows.entries[p]);
    }
  }

  int32_t *inputs_, *outputs_;
  std::array<uint32_t, kOffsetMask + 2> end_{};
};

class Tile {
 public:
  Tile(const SceneRun& run, const SceneGroup& group, const SceneRun::Rows& rows, TileSpace& space)
      : run_(run), group_(group), rows_(rows), count_(rows.last - rows.first), space_(space) {
    const size_t capacity = (count_ + 15) / 16 * 16;
    values_ = space.values.take<uint8_t>(group.row_bytes * capacity);
    capacity_ = capacity;
  }

  void run() {
    for (size_t s : group_.steps) {
      Watch watch(space_.times ? &space_.times->steps[s] : nullptr);
      run_step(s);
    }
  }

 private:
  const Step& step(size_t s) const { return run_.program.steps[s]; }
  const Value& value(size_t v) const { return run_.program.values[v]; }
  bool is_family(size_t s) const { return group_.families && step(s).op == Op::kSiteMean; }

  // Where the rows of this tile start.
  uint8_t* here(size_t v) const {
    if (run_.plan.scratch[v] != kStored) return values_ + run_.plan.scratch[v] * capacity_;
    const bool above = value(v).level > group_.level;  // of a mean in a tile of families
    return run_.stored[v] + (above ? rows_.first_parent : rows_.first) * value(v).row_bytes();
  }
  template <class T>
  T* here(size_t v) const {
    return reinterpret_cast<T*>(here(v));
  }
  template <class T>
  const T* all(size_t v) const {
    return reinterpret_cast<const T*>(run_.stored[v]);
  }

  void run_step(size_t s) {
    const SceneLayer& layer = run_.layers[s];
    switch (layer.op) {
      case Op::kSparseConv:
      case Op::kBinarySparseConv:
        return convolution(step(s), layer);
      case Op::kSiteMean:
        return site_mean(s);
      case Op::kUnpool:
        return unpool(step(s), layer.channels);
      case Op::kConcat:
        return concat(step(s));
      case Op::kAdd:
        return add(step(s), layer.channels);
      default:
        return by_rows(step(s), layer);
    }
  }

  void by_rows(const Step& now, const SceneLayer& layer) {
    if (!layer.parts.empty()) {  // BINARY_LINEAR
      float* out = here<float>(now.output());
      run_.table.sum_signs(here<uint64_t>(now.inputs[0]), layer.parts[0].signs, {nullptr, nullptr, count_},
                           out, layer.channels);
      run_.table.affine(out, count_, layer.channels, layer.row->scale, layer.row->bias, layer.row->activation,
                        out);
      return;
    }
    const void* second = now.inputs.size() > 1 ? here(now.inputs[1]) : nullptr;
    run_rows(*layer.row, run_.table, here(now.inputs[0]), second, count_, {0, layer.channels},
             here(now.output()), space_.scratch);
  }

  const Links& to_parents() const { return run_.at.links[group_.level]; }

  Gather rows_of(const SceneLayer& layer, const Part& part) const {
    if (layer.way == Way::kUp) return {nullptr, to_parents().up.data() + rows_.first, count_};
    if (layer.way == Way::kDown)
      return children(run_.at.links[group_.level - 1], rows_.first, rows_.last, space_);
    const Gather all = run_.at.lists[group_.level].rows(rows_.first, rows_.last);
    return part.direct ? all : pick(run_.table, all, part, space_);
  }

  void convolution(const Step& now, const SceneLayer& layer) {
    float* sums = space_.sums.take<float>(count_ * layer.channels);
    {
      Watch watch(space_.times ? &space_.times->convolutions : nullptr);
      for (const Part& part : layer.parts) {
        const Gather rows = rows_of(layer, part);
        if (layer.binary)
          run_.table.sum_signs(all<uint64_t>(now.inputs[0]), part.signs, rows, sums + part.first,
                               layer.channels);
        else
          sum_floats(all<float>(now.inputs[0]), layer, part, rows, sums);
      }
    }
    Watch watch(space_.times ? &space_.times->epilogues : nullptr);
    finish(now, layer, sums);
  }

  void sum_floats(const float* x, const SceneLayer& layer, const Part& part, const Gather& rows,
                  float* sums) {
    const size_t bytes = sizeof(float) * part.offsets * layer.inputs * part.channels;
    if (rows.begin && bytes <= kRowWeights && layer.inputs <= kMostRowInputs &&
        part.channels <= kMostRowChannels)
      return run_.table.sum_floats(x, layer.inputs, part.weights, part.channels, rows, sums + part.first,
                                   layer.channels);
    for (size_t r = 0; r < count_; ++r)
      std::fill_n(sums + r * layer.channels + part.first, part.channels, 0.0f);
    const ByOffset pairs(rows, space_);
    for (size_t o = 0; o < part.offsets; ++o)
      run_.table.sparse_conv({x, layer.inputs, layer.inputs}, part.weights + o * layer.inputs * part.channels,
                             part.channels, pairs.of(o), sums + part.first, layer.channels);
  }

  void finish(const Step& now, const SceneLayer& layer, const float* sums) {
    uint64_t* bits[4];
    for (size_t b = 0; b < layer.signs; ++b) bits[b] = here<uint64_t>(now.outputs[layer.floats + b]);
    for (size_t j = 0; j < layer.finishes.size(); ++j) {
      Finish what = layer.finishes[j];
      what.bits = bits;
      if (layer.floats) what.out = here<float>(now.outputs[j]);
      if (now.inputs.size() > 1) {
        const bool above = value(now.inputs[1]).level > group_.level;
        what.shortcut = above ? all<float>(now.inputs[1]) : here<float>(now.inputs[1]);
        if (above) what.shortcut_rows = to_parents().up.data() + rows_.first;
      }
      run_.table.finish(sums, count_, what);
    }
  }

  // Sums start at 0, so that a single -0 becomes 0.
  void site_mean(size_t s) {
    const Step& now = step(s);
    const bool family = is_family(s);
    const size_t channels = value(now.output()).channels;
    const size_t first = family ? rows_.first_parent : rows_.first,
                 last = family ? rows_.last_parent : rows_.last;
    const Array<uint32_t>& children = run_.at.links[value(now.inputs[0]).level].first_child;
    const float* x =
        family ? here<float>(now.inputs[0]) : all<float>(now.inputs[0]) + size_t{children[first]} * channels;
    float* out = here<float>(now.output());
    for (size_t r = first; r < last; ++r, out += channels) {
      const uint32_t count = children[r + 1] - children[r];
      std::fill(out, out + channels, 0.0f);
      for (uint32_t i = 0; i < count; ++i, x += channels)
        for (size_t c = 0; c < channels; ++c) out[c] += x[c];
      const float divisor = static_cast<float>(count);
      for (size_t c = 0; c < channels; ++c) out[c] /= divisor;
    }
  }

  const float* parent(const float* x, size_t r, size_t channels) const {
    return x + size_t{to_parents().up[rows_.first + r] >> kOffsetBits} * channels;
  }

  void unpool(const Step& now, size_t channels) {
    const float* x = all<float>(now.inputs[0]);
    float* out = here<float>(now.output());
    for (size_t r = 0; r < count_; ++r, out += channels) {
      const float* from = parent(x, r, channels);
      std::copy(from, from + channels, out);
    }
  }

  void add(const Step& now, size_t channels) {
    const float* x = here<float>(now.inputs[0]);
    float* out = here<float>(now.output());
    const bool above = value(now.inputs[1]).level > group_.level;
    const float* y = above ? all<float>(now.inputs[1]) : here<float>(now.inputs[1]);
    for (size_t r = 0; r < count_; ++r, x += channels, out += channels) {
      const float* other = above ? parent(y, r, channels) : y + r * channels;
      for (size_t c = 0; c < channels; ++c) out[c] = x[c] + other[c];
    }
  }

  void concat(const Step& now) {
    const Value& whole = value(now.output());
    const size_t row_bytes = whole.row_bytes();
    uint8_t* out = here(now.output());
    if (whole.kind == Kind::kBits) std::memset(out, 0, count_ * row_bytes);
    size_t at = 0;  // channels before this input
    for (size_t v : now.inputs) {
      if (whole.kind == Kind::kFloat)
        for (size_t r = 0; r < count_; ++r)
          std::memcpy(out + r * row_bytes + 4 * at, here(v) + r * value(v).row_bytes(), value(v).row_bytes());
      else
        append_signs(here<uint64_t>(v), words_of(value(v).channels), at, reinterpret_cast<uint64_t*>(out),
                     row_bytes / 8);
      at += value(v).channels;
    }
  }

  // Tail bits are 0 on both sides, so words can be shifted and joined.
  void append_signs(const uint64_t* x, size_t words, size_t at, uint64_t* out, size_t out_words) const {
    const size_t shift = at % 64, first = at / 64;
    if (words == 1 && out_words == 1) {  // narrow layers, where sites are many
      for (size_t r = 0; r < count_; ++r) out[r] |= x[r] << shift;
      return;
    }
    for (size_t r = 0; r < count_; ++r, x += words, out += out_words)
      for (size_t w = 0; w < words; ++w) {
        out[first + w] |= x[w] << shift;
        if (shift && first + w + 1 < out_words) out[first + w + 1] |= x[w] >> (64 - shift);
      }
  }

  const SceneRun& run_;
  const SceneGroup& group_;
  const SceneRun::Rows& rows_;
  const size_t count_;
  TileSpace& space_;
  uint8_t* values_;
  size_t capacity_;
};

}  // namespace

void run_tile(const SceneRun& run, const SceneGroup& group, const SceneRun::Rows& rows, TileSpace& space) {
  Tile(run, group, rows, space).run();
}

}  // namespace popcloud
