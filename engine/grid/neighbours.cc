// Who is whose neighbour. Sites go in cubes of 8^3, whose rows are side by side in Morton order; for each
// cube a table of rows is laid out, with a halo from the 26 cubes around it, and then neighbours are plain
// reads.
#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <vector>

#include "grid/blocks.h"
#include "grid/grid.h"

namespace popcloud {
namespace {

constexpr int32_t kEdge = 8;            // of a cube, in sites
constexpr size_t kOctants = 8;          // of a cube; sites of an octant are side by side too
constexpr size_t kGrain = 1024;         // rows of which a thread looks up the cubes at a time
constexpr size_t kChunk = 2048;         // rows, and at most a cube more, whose entries are made at a time
constexpr uint32_t kAbsent = 1u << 31;  // no row times 128 has this bit
constexpr int kAxis = 21;               // bits of a cube's coordinate in its key
constexpr int32_t kMostSpan = 1 << 20, kFarthest = 1 << 30;
constexpr int kMostHalo = 2;
constexpr size_t kMostTable = (kEdge + 2 * kMostHalo) * (kEdge + 2 * kMostHalo) * (kEdge + 2 * kMostHalo);
constexpr uint32_t kPlace[8] = {0, 1, 8, 9, 64, 65, 72, 73};  // three bits with two zeros between them

[[noreturn]] void refuse_order() {
  throw std::invalid_argument("sites are not in canonical order; sort them by their Morton keys");
}

// The cubes of a level, numbered in the order of their sites.
struct Cubes {
  BlockTable numbers;
  Array<uint32_t>
      first;  // (8 cubes + 1): octant o of cube c is rows first[8 c + o] .. first[8 c + o + 1] - 1

  size_t count() const { return numbers.size(); }
};

// Coordinates of cubes side by side, counted from the one before the lowest.
class Keys {
 public:
  explicit Keys(const Array<Site>& sites) {
    Site low = sites[0], high = sites[0];
    for (const Site& site : sites) {
      low = {std::min(low.x, site.x), std::min(low.y, site.y), std::min(low.z, site.z)};
      high = {std::max(high.x, site.x), std::max(high.y, site.y), std::max(high.z, site.z)};
    }
    low_ = {(low.x >> 3) - 1, (low.y >> 3) - 1, (low.z >> 3) - 1};
    check(low.x, high.x);
    check(low.y, high.y);
    check(low.z, high.z);
  }

  uint64_t of(const Site& site) const {
    return static_cast<uint64_t>((site.x >> 3) - low_.x) << 2 * kAxis |
           static_cast<uint64_t>((site.y >> 3) - low_.y) << kAxis |
           static_cast<uint64_t>((site.z >> 3) - low_.z);
  }

  // From a cube's key to that of one beside it.
  static uint64_t step(int x, int y, int z) {
    return (static_cast<uint64_t>(x) << 2 * kAxis) + (static_cast<uint64_t>(y) << kAxis) +
           static_cast<uint64_t>(z);
  }

 private:
  static void check(int32_t low, int32_t high) {
    if (low < -kFarthest || high > kFarthest || int64_t{high} - low > kMostSpan)
      throw std::invalid_argument("sites must be within 2^30 of zero and 2^20 of each other along an axis");
  }

  Site low_;
};

uint32_t place(const Site& site) {
  return kPlace[site.x & 7] << 2 | kPlace[site.y & 7] << 1 | kPlace[site.z & 7];
}

bool starts_cube(const Array<Site>& sites, size_t i) {
  if (i == 0) return true;
  const Site &one = sites[i - 1], &two = sites[i];
  return ((one.x ^ two.x) | (one.y ^ two.y) | (one.z ^ two.z)) & -kEdge;
}

// The row of each cube's first site, and behind them the number of sites.
Array<uint32_t> starts_of(const Array<Site>& sites, Pool& pool, Ledger* ledger) {
  std::vector<size_t> before(pool.size() + 1);
  pool.run([&](size_t thread) {
    Range range = part(sites.size(), kGrain, thread, pool.size());
    size_t cubes = 0;
    for (size_t i = range.first; i < range.last; ++i) cubes += starts_cube(sites, i);
    before[thread + 1] = cubes;
  });
  for (size_t i = 0; i < pool.size(); ++i) before[i + 1] += before[i];
  Array<uint32_t> starts(before.back() + 1, ledger);
  pool.run([&](size_t thread) {
    Range range = part(sites.size(), kGrain, thread, pool.size());
    size_t cube = before[thread];
    for (size_t i = range.first; i < range.last; ++i)
      if (starts_cube(sites, i)) starts[cube++] = static_cast<uint32_t>(i);
  });
  starts[before.back()] = static_cast<uint32_t>(sites.size());
  return starts;
}

// Where the octants of a cube start that has rows [row, end).
void find_octants(const Array<Site>& sites, uint32_t row, uint32_t end, uint32_t* first) {
  for (uint32_t octant = 0; octant < kOctants; ++octant) {
    first[octant] = row;
    for (; row < end && place(sites[row]) >> 6 == octant; ++row)
      if (row > first[0] && place(sites[row]) <= place(sites[row - 1])) refuse_order();
  }
  if (row != end) refuse_order();
}

Cubes cubes_of(const Array<Site>& sites, Pool& pool, Ledger* ledger) {
  const Keys keys(sites);
  const Array<uint32_t> starts = starts_of(sites, pool, ledger);
  const size_t count = starts.size() - 1;
  Cubes cubes{BlockTable(ledger, count), Array<uint32_t>(kOctants * count + 1, ledger)};
  for (size_t i = 0; i < count; ++i) cubes.numbers.add(keys.of(sites[starts[i]]));
  if (cubes.count() != count) refuse_order();
  cubes.first[kOctants * count] = starts[count];
  pool.run([&](size_t thread) {
    Range range = part(count, 16, thread, pool.size());
    for (size_t i = range.first; i < range.last; ++i)
      find_octants(sites, starts[i], starts[i + 1], cubes.first.data() + kOctants * i);
  });
  return cubes;
}

// The octants of a cube (bit x, y, z of their number: the upper half) that touch the cube which lies the
// other way along an axis; `upper` are those in the upper half of the axis.
uint32_t touching(int direction, uint32_t upper) {
  return direction < 0 ? upper : direction > 0 ? ~upper : ~uint32_t{0};
}

// The rows around one cube, times 128: x slowest, with a halo as wide as the kernel reaches.
class Table {
 public:
  explicit Table(int halo) : halo_(halo), side_(static_cast<uint32_t>(kEdge + 2 * halo)) {}

  void lay(const Array<Site>& sites, const Cubes& cubes, size_t cube) {
    std::fill(rows_, rows_ + side_ * side_ * side_, kAbsent);
    const Site& any = sites[cubes.first[kOctants * cube]];
    low_ = {(any.x & -kEdge) - halo_, (any.y & -kEdge) - halo_, (any.z & -kEdge) - halo_};
    const uint64_t key = cubes.numbers[cube].key;
    for (int x = -1; x <= 1; ++x)
      for (int y = -1; y <= 1; ++y)
        for (int z = -1; z <= 1; ++z) {
          uint32_t beside = cubes.numbers.find(key + Keys::step(x, y, z));
          if (beside == BlockTable::kNoBlock) continue;
          lay_octants(sites, cubes.first.data() + kOctants * beside,
                      touching(x, 0xF0) & touching(y, 0xCC) & touching(z, 0xAA) & 0xFF);
        }
  }

  const uint32_t* around(const Site& site) const { return rows_ + at(site); }

  // How far a neighbour lies from a site in the table.
  int32_t step(int x, int y, int z) const {
    int32_t side = static_cast<int32_t>(side_);
    return (x * side + y) * side + z;
  }

 private:
  // Sites outside of the halo go to a place that nobody reads: that costs less than to foresee them.
  void lay_octants(const Array<Site>& sites, const uint32_t* first, uint32_t octants) {
    for (; octants; octants &= octants - 1) {
      const uint32_t* octant = first + __builtin_ctz(octants);
      for (uint32_t row = octant[0]; row < octant[1]; ++row) {
        const Site& site = sites[row];
        bool inside =
            from(site.x, low_.x) < side_ && from(site.y, low_.y) < side_ && from(site.z, low_.z) < side_;
        rows_[inside ? at(site) : kMostTable] = row << kOffsetBits;
      }
    }
  }

  static uint32_t from(int32_t a, int32_t b) { return static_cast<uint32_t>(a) - static_cast<uint32_t>(b); }
  uint32_t at(const Site& site) const {
    return (from(site.x, low_.x) * side_ + from(site.y, low_.y)) * side_ + from(site.z, low_.z);
  }

  const int halo_;
  const uint32_t side_;
  Site low_{};
  uint32_t rows_[kMostTable + 1];
};

// The offsets that are asked for: their numbers, and how far they lead in the table.
struct Steps {
  Steps(int size, const Offsets& wanted, const Table& table) {
    const int reach = size / 2;
    uint32_t offset = 0;
    for (int x = -reach; x <= reach; ++x)
      for (int y = -reach; y <= reach; ++y)
        for (int z = -reach; z <= reach; ++z, ++offset)
          if (wanted[offset]) {
            number[count] = offset;
            step[count++] = table.step(x, y, z);
          }
  }

  size_t count = 0;
  int32_t step[kMostOffsets];
  uint32_t number[kMostOffsets];
};

// Writes the entries of a cube's rows one after the other from entries[n] on, and where each row's begin.
// Returns the end. An entry is written before it is known to be one; there must be room for all.
size_t enter(const Array<Site>& sites, Range rows, const Table& table, const Steps& steps, uint32_t* begin,
             uint32_t* entries, size_t n) {
  for (size_t row = rows.first; row < rows.last; ++row) {
    begin[row] = static_cast<uint32_t>(n);
    const uint32_t* around = table.around(sites[row]);
    for (size_t k = 0; k < steps.count; ++k) {
      uint32_t entry = around[steps.step[k]] | steps.number[k];
      entries[n] = entry;
      n += entry < kAbsent;
    }
  }
  return n;
}

// Cubes that are worked on at a time, their rows, and what came out.
struct Chunk {
  size_t first, last;
  Array<uint32_t> entries;
};

std::vector<Chunk> chunks_of(const Cubes& cubes) {
  std::vector<Chunk> chunks;
  size_t first = 0;
  for (size_t i = 1; i <= cubes.count(); ++i)
    if (i == cubes.count() || cubes.first[kOctants * i] - cubes.first[kOctants * first] >= kChunk) {
      chunks.push_back({first, i, {}});
      first = i;
    }
  return chunks;
}

// The entries of all chunks, apart; begin[row] counts within the row's chunk.
void find_all(const Array<Site>& sites, const Cubes& cubes, int size, const Offsets& wanted,
              std::vector<Chunk>& chunks, uint32_t* begin, Pool& pool, Ledger* ledger) {
  std::atomic<size_t> next{0};
  pool.run([&](size_t) {
    Table table(size / 2);
    const Steps steps(size, wanted, table);
    constexpr size_t kMostRows = kChunk + kEdge * kEdge * kEdge;
    Array<uint32_t> scratch(kMostRows * steps.count + 1, ledger);
    for (size_t i; (i = next++) < chunks.size();) {
      size_t n = 0;
      for (size_t cube = chunks[i].first; cube < chunks[i].last; ++cube) {
        Range rows{cubes.first[kOctants * cube], cubes.first[kOctants * (cube + 1)]};
        table.lay(sites, cubes, cube);
        n = enter(sites, rows, table, steps, begin, scratch.data(), n);
      }
      chunks[i].entries = Array<uint32_t>(n, ledger);
      std::copy(scratch.data(), scratch.data() + n, chunks[i].entries.data());
    }
  });
}

// Puts the chunks' entries one after the other.
void join(const Cubes& cubes, std::vector<Chunk>& chunks, Neighbours& made, Pool& pool, Ledger* ledger) {
  std::vector<size_t> before{0};
  for (const Chunk& chunk : chunks) before.push_back(before.back() + chunk.entries.size());
  made.entries = Array<uint32_t>(before.back(), ledger);
  made.begin[made.begin.size() - 1] = static_cast<uint32_t>(before.back());
  std::atomic<size_t> next{0};
  pool.run([&](size_t) {
    for (size_t i; (i = next++) < chunks.size();) {
      std::copy(chunks[i].entries.begin(), chunks[i].entries.end(), made.entries.data() + before[i]);
      chunks[i].entries = {};
      for (size_t row = cubes.first[kOctants * chunks[i].first]; row < cubes.first[kOctants * chunks[i].last];
           ++row)
        made.begin[row] += static_cast<uint32_t>(before[i]);
    }
  });
}

}  // namespace

Neighbours neighbours(const Array<Site>& sites, int size, const Offsets& wanted, Pool& pool, Ledger* ledger) {
  Neighbours made{Array<uint32_t>(sites.size() + 1, ledger), {}};
  made.begin[0] = 0;
  if (sites.empty()) return made;
  const Cubes cubes = cubes_of(sites, pool, ledger);
  std::vector<Chunk> chunks = chunks_of(cubes);
  find_all(sites, cubes, size, wanted, chunks, made.begin.data(), pool, ledger);
  join(cubes, chunks, made, pool, ledger);
  return made;
}

}  // namespace popcloud
