#include "walk.h"

#include <algorithm>
#include <chrono>

#include "shortcuts.h"

namespace popcloud {
namespace {

constexpr size_t kRowGrain = 16;
constexpr size_t kChannelGrain = 64;     // threads never share a word of bits
constexpr size_t kLeastSharedRows = 64;  // below these, meeting again costs more than the work
constexpr size_t kLeastSharedWork = size_t{1} << 16;

class Stopwatch {
 public:
  explicit Stopwatch(double* seconds) : seconds_(seconds) {
    if (seconds_) start_ = Clock::now();
  }
  ~Stopwatch() {
    if (seconds_) *seconds_ += std::chrono::duration<double>(Clock::now() - start_).count();
  }

 private:
  using Clock = std::chrono::steady_clock;
  double* seconds_;
  Clock::time_point start_;
};

class Walk {
 public:
  Walk(const Network& network, const Cloud& cloud, Workspace* spaces, Pool* pool, double* seconds)
      : net_(network),
        spaces_(spaces),
        pool_(pool),
        seconds_(seconds),
        rows_(network.program.values.size(), 1) {
    const std::vector<Slot>& slots = net_.plan.slots;
    if (spaces[0].slots.size() < slots.size()) spaces[0].slots.resize(slots.size());
    for (size_t i = 0; i < slots.size(); ++i)
      spaces[0].slots[i].take<uint8_t>(slots[i].row_bytes *
                                       (slots[i].rows == Rows::kPoint ? cloud.points : 1));
    cloud_ = cloud.xyz;
    rows_[0] = cloud.points;
  }

  void run(float* answer) {
    for (const Group& group : net_.plan.groups) {
      const Step& first = step(group.first);
      if (group.by_rows)
        run_points(group);
      else if (pools(first.op))
        run_one_row(group.first, rows_[first.inputs[0]]);
      else
        run_one_row(group.first, 1);
    }
    size_t last = net_.program.steps.back().output();
    auto from = static_cast<const float*>(whole(last));
    std::copy(from, from + net_.program.values[last].channels, answer);
  }

 private:
  const Step& step(size_t s) const { return net_.program.steps[s]; }
  double* seconds(size_t s) const { return seconds_ ? seconds_ + s : nullptr; }

  // Where a stored value starts.
  void* whole(size_t value) const {
    const Place& place = net_.plan.places[value];
    return place.where == Place::kSlot ? spaces_[0].slots[place.index].data() : const_cast<float*>(cloud_);
  }

  // Where row `row` of a value lies for a thread that has this block.
  void* at(size_t value, size_t row, const Group& group, const Buffer& block) const {
    const Place& place = net_.plan.places[value];
    if (place.where == Place::kBlock)
      return static_cast<uint8_t*>(block.data()) + place.index * group.block_rows;
    const Value& v = net_.program.values[value];
    return static_cast<uint8_t*>(whole(value)) + (v.rows == Rows::kPoint ? row * v.row_bytes() : 0);
  }

  void run_points(const Group& group) {
    size_t rows = rows_[step(group.first).inputs[0]];
    if (pool_ && rows >= kLeastSharedRows)
      pool_->run([&](size_t i) { run_range(group, part(rows, kRowGrain, i, pool_->size()), spaces_[i]); });
    else
      run_range(group, {0, rows}, spaces_[0]);
    for (size_t s = group.first; s < group.last; ++s) {
      size_t value = step(s).output();
      rows_[value] = rows;
      if (!net_.plan.unique[value]) continue;
      Stopwatch watch(seconds(s));
      size_t words = words_of(net_.program.values[value].channels);
      rows_[value] = unique_rows(static_cast<uint64_t*>(whole(value)), rows, words, spaces_[0].scratch);
    }
  }

  void run_range(const Group& group, Range range, Workspace& space) const {
    space.block.take<uint8_t>(group.block_bytes);
    for (size_t s = group.first; s < group.last; ++s)
      if (step(s).op == Op::kTransform) {
        Stopwatch watch(seconds(s));
        make_matrix(net_.layers[s], static_cast<const float*>(whole(step(s).inputs[1])), space.scratch);
      }
    for (size_t row = range.first; row < range.last; row += group.block_rows)
      run_block(group, row, std::min(group.block_rows, range.last - row), space);
  }

  void run_block(const Group& group, size_t row, size_t rows, Workspace& space) const {
    for (size_t s = group.first; s < group.last; ++s) {
      Stopwatch watch(seconds(s));
      const Step& now = step(s);
      const void* second = now.inputs.size() > 1 ? at(now.inputs[1], row, group, space.block) : nullptr;
      run_rows(net_.layers[s], net_.table, at(now.inputs[0], row, group, space.block), second, rows,
               {0, net_.layers[s].channels}, at(now.output(), row, group, space.block), space.scratch);
    }
  }

  // A step that writes one row: threads share its channels, where it is large enough and can be cut.
  void run_one_row(size_t s, size_t rows) const {
    Stopwatch watch(seconds(s));
    const Layer& layer = net_.layers[s];
    bool cuts = pools(layer.op) || layer.op == Op::kBinaryLinear || layer.op == Op::kBinaryLinearBits;
    size_t work = rows * layer.channels * std::max<size_t>(1, layer.weight.words);
    if (pool_ && cuts && work >= kLeastSharedWork)
      pool_->run([&](size_t i) {
        Range range = part(layer.channels, kChannelGrain, i, pool_->size());
        if (range.first < range.last) run_channels(s, rows, {range.first, range.last}, spaces_[i]);
      });
    else
      run_channels(s, rows, {0, layer.channels}, spaces_[0]);
  }

  void run_channels(size_t s, size_t rows, Channels at, Workspace& space) const {
    const Step& now = step(s);
    const Layer& layer = net_.layers[s];
    const void* second = now.inputs.size() > 1 ? whole(now.inputs[1]) : nullptr;
    if (pools(now.op))
      return run_pool(layer, net_.table, whole(now.inputs[0]), rows, at, net_.early_exit, whole(now.output()),
                      space.scratch);
    if (now.op == Op::kTransform) make_matrix(layer, static_cast<const float*>(second), space.scratch);
    run_rows(layer, net_.table, whole(now.inputs[0]), second, rows, at, whole(now.output()), space.scratch);
  }

  const Network& net_;
  Workspace* spaces_;
  Pool* pool_;
  double* seconds_;
  const float* cloud_;
  std::vector<size_t> rows_;  // by value: how many it has in this cloud
};

}  // namespace

size_t Workspace::bytes() const {
  size_t sum = block.bytes() + scratch.bytes();
  for (const Buffer& slot : slots) sum += slot.bytes();
  return sum;
}

void walk(const Network& network, const Cloud& cloud, Workspace* spaces, Pool* pool, double* seconds,
          float* answer) {
  Walk(network, cloud, spaces, pool, seconds).run(answer);
}

}  // namespace popcloud
