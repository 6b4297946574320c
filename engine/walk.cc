#include "walk.h"

#include <algorithm>
#include <chrono>

#include "points/pieces.h"
#include "points/searches.h"
#include "shortcuts.h"

namespace popcloud {
namespace {

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

// How many rows of each input a search has, in a cloud of so many points.
Search search_of(const Program& program, const Step& step, size_t points, const void* const* inputs,
                 void* output) {
  const bool two = step.inputs.size() > 1;
  auto rows = [&](size_t value) { return rows_of(program, program.values[value], points); };
  return {inputs[0], two ? inputs[1] : nullptr, rows(step.inputs[0]), two ? rows(step.inputs[1]) : 0,
          output,    rows(step.output())};
}

class Walk {
 public:
  Walk(const Network& network, const Cloud& cloud, Workspace* spaces, Pool* pool, double* seconds)
      : net_(network), spaces_(spaces), pool_(pool), seconds_(seconds), cloud_(cloud) {
    const std::vector<Value>& values = net_.program.values;
    for (const Value& value : values) rows_.push_back(rows_of(net_.program, value, cloud.points));
    const std::vector<Slot>& slots = net_.plan.slots;
    if (spaces[0].slots.size() < slots.size()) spaces[0].slots.resize(slots.size());
    for (size_t i = 0; i < slots.size(); ++i) {
      size_t bytes = 0;
      for (size_t value : slots[i].values) bytes = std::max(bytes, rows_[value] * values[value].row_bytes());
      spaces[0].slots[i].take<uint8_t>(bytes);
    }
  }

  void run(float* answer) {
    for (const Group& group : net_.plan.groups) {
      const Step& first = step(group.first);
      if (group.by_points)
        run_points(group);
      else if (output(group.first).rows == Rows::kPoint)
        run_search(group.first);
      else
        run_one_row(group.first, pools(first.op) ? rows_[first.inputs[0]] : 1);
    }
    size_t last = net_.program.steps.back().output();
    auto from = static_cast<const float*>(whole(last));
    std::copy(from, from + rows_[last] * net_.program.values[last].channels, answer);
  }

 private:
  const Step& step(size_t s) const { return net_.program.steps[s]; }
  const Value& output(size_t s) const { return net_.program.values[step(s).output()]; }
  double* seconds(size_t s) const { return seconds_ ? seconds_ + s : nullptr; }

  // Where a stored value starts.
  void* whole(size_t value) const {
    const Place& place = net_.plan.places[value];
    return place.where == Place::kSlot ? spaces_[0].slots[place.index].data()
                                       : const_cast<float*>(cloud_.xyz);
  }

  // Where the rows of a point start for a thread that has this block.
  void* at(size_t value, size_t point, const Buffer& block) const {
    const Place& place = net_.plan.places[value];
    if (place.where == Place::kBlock) return static_cast<uint8_t*>(block.data()) + place.index;
    const Value& v = net_.program.values[value];
    return static_cast<uint8_t*>(whole(value)) +
           (v.rows == Rows::kPoint ? point * v.each * v.row_bytes() : 0);
  }

  // Of equal rows that were made unique, the layers that follow see fewer.
  size_t points_of(const Group& group) const {
    const size_t read = step(group.first).inputs[0],
                 points = points_at(net_.program, group.level, cloud_.points);
    const Value& v = net_.program.values[read];
    return v.kind == Kind::kBits && v.level == group.level && v.rows == Rows::kPoint && v.each == 1
               ? rows_[read]
               : points;
  }

  void run_points(const Group& group) {
    const size_t points = points_of(group);
    if (pool_ && points * group.each >= kLeastSharedRows)
      pool_->run([&](size_t i) {
        run_range(group, part(points, least_points(group.each), i, pool_->size()), spaces_[i]);
      });
    else
      run_range(group, {0, points}, spaces_[0]);
    for (size_t s = group.first; s < group.last; ++s) {
      size_t value = step(s).output();
      rows_[value] = points * output(s).each;
      if (!net_.plan.unique[value]) continue;
      Stopwatch watch(seconds(s));
      size_t words = words_of(output(s).channels);
      rows_[value] = unique_rows(static_cast<uint64_t*>(whole(value)), points, words, spaces_[0].scratch);
    }
  }

  void run_range(const Group& group, Range range, Workspace& space) const {
    space.block.take<uint8_t>(group.block_bytes);
    for (size_t s = group.first; s < group.last; ++s)
      if (step(s).op == Op::kTransform) {
        Stopwatch watch(seconds(s));
        make_matrix(net_.layers[s], static_cast<const float*>(whole(step(s).inputs[1])), space.scratch);
      }
    for (size_t point = range.first; point < range.last; point += group.block_points)
      run_block(group, point, std::min(group.block_points, range.last - point), space);
  }

  void run_block(const Group& group, size_t point, size_t points, Workspace& space) const {
    for (size_t s = group.first; s < group.last; s += net_.plan.together[s]) {
      Stopwatch watch(seconds(s));
      const Step& now = step(s);
      const size_t last = s + net_.plan.together[s] - 1;
      Piece piece{{}, at(step(last).output(), point, space.block), points};
      for (size_t i = 0; i < now.inputs.size(); ++i)
        piece.inputs[i] =
            now.op == Op::kGather && i == 0 ? whole(now.inputs[0]) : at(now.inputs[i], point, space.block);
      const void* own = last == s + 2 ? at(step(s + 1).inputs[1], point, space.block) : nullptr;
      if (last == s)
        run_piece(net_.layers[s], net_.table, piece, space.scratch);
      else
        run_edges(net_.layers[s], net_.layers[last], net_.table, piece, own);
    }
  }

  void run_search(size_t s) const {
    Stopwatch watch(seconds(s));
    const void* inputs[2] = {};
    for (size_t i = 0; i < step(s).inputs.size(); ++i) inputs[i] = whole(step(s).inputs[i]);
    popcloud::run_search(net_.layers[s], net_.table, output(s).name,
                         search_of(net_.program, step(s), cloud_.points, inputs, whole(step(s).output())),
                         pool_);
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
    if (now.op >= Op::kConcat) {
      Piece piece{{whole(now.inputs[0]), second}, whole(now.output()), 1};
      return run_piece(layer, net_.table, piece, space.scratch);
    }
    if (now.op == Op::kTransform) make_matrix(layer, static_cast<const float*>(second), space.scratch);
    run_rows(layer, net_.table, whole(now.inputs[0]), second, rows, at, whole(now.output()), space.scratch);
  }

  const Network& net_;
  Workspace* spaces_;
  Pool* pool_;
  double* seconds_;
  const Cloud cloud_;
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

void walk_step(const Network& network, size_t step, size_t points, const void* const* inputs, void* output,
               Scratch& scratch) {
  const Step& now = network.program.steps[step];
  const Layer& layer = network.layers[step];
  const Value& value = network.program.values[now.output()];
  if (stands_alone(now.op))
    return run_search(layer, network.table, value.name,
                      search_of(network.program, now, points, inputs, output), nullptr);
  if (pools(now.op) && value.rows == Rows::kCloud) {
    const size_t rows = rows_of(network.program, network.program.values[now.inputs[0]], points);
    return run_pool(layer, network.table, inputs[0], rows, {0, layer.channels}, network.early_exit, output,
                    scratch);
  }
  if (now.op == Op::kTransform) make_matrix(layer, static_cast<const float*>(inputs[1]), scratch);
  Piece piece{{}, output, value.rows == Rows::kPoint ? points_at(network.program, value.level, points) : 1};
  std::copy(inputs, inputs + now.inputs.size(), piece.inputs);
  run_piece(layer, network.table, piece, scratch);
}

}  // namespace popcloud
