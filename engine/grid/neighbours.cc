// Who is whose neighbour. Sites go in cubes of 8^3, whose rows are side by side in Morton order; for each
// cube a table of rows is laid out, with a halo from the 26 cubes around it, and then neighbours are plain
// reads.
#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <vector>

#include "grid/blocks.h"
#include "grid/grid.h"
#include "grid/lookup.h"

namespace popcloud {
namespace {

constexpr int32_t kEdge = 8;     // of a cube, in sites
constexpr size_t kOctants = 8;   // of a cube; sites of an octant are side by side too
constexpr size_t kGrain = 1024;  // rows of which a thread looks up the cubes at a time
constexpr size_t kChunk = 2048;  // rows, and at most a cube more, whose entries are made at a time
constexpr int kAxis = 21;        // bits of a cube's coordinate in its key
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
  Array<uint16_t> places;  // (sites): within their cube

  size_t count() const { return numbers.size(); }
  Range rows(size_t cube) const { return {first[kOctants * cube], first[kOctants * (cube + 1)]}; }
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

// Where the octants of a cube start that has rows [row, end), and the places of all sites.
void find_octants(const Array<Site>& sites, uint32_t row, uint32_t end, uint32_t* first, uint16_t* places) {
  uint32_t octant = 0;
  for (uint32_t begin = row; row < end; ++row) {
    const uint32_t here = place(sites[row]);
    places[row] = static_cast<uint16_t>(here);
    if (row > begin && here <= places[row - 1]) refuse_order();
    while (octant <= here >> 6) first[octant++] = row;
  }
  while (octant < kOctants) first[octant++] = end;
}

Cubes cubes_of(const Array<Site>& sites, Pool& pool, Ledger* ledger) {
  const Keys keys(sites);
  const Array<uint32_t> starts = starts_of(sites, pool, ledger);
  const size_t count = starts.size() - 1;
  Cubes cubes{BlockTable(ledger, count), Array<uint32_t>(kOctants * count + 1, ledger),
              Array<uint16_t>(sites.size(), ledger)};
  for (size_t i = 0; i < count; ++i) cubes.numbers.add(keys.of(sites[starts[i]]));
  if (cubes.count() != count) refuse_order();
  cubes.first[kOctants * count] = starts[count];
  pool.run([&](size_t thread) {
    Range range = part(count, 16, thread, pool.size());
    for (size_t i = range.first; i < range.last; ++i)
      find_octants(sites, starts[i], starts[i + 1], cubes.first.data() + kOctants * i, cubes.places.data());
  });
  return cubes;
}

// The octants of a cube (bit x, y, z of their number: the upper half) that touch the cube which lies the
// other way along an axis; `upper` are those in the upper half of the axis.
uint32_t touching(int direction, uint32_t upper) {
  return direction < 0 ? upper : direction > 0 ? ~upper : ~uint32_t{0};
}

// A cube beside another, or itself: how its key differs, its octants that touch the other, and how much
// farther on its sites lie in the other's table.
struct Side {
  uint64_t key;
  uint32_t octants;
  int32_t step;
};

// The rows around one cube, times 128: x slowest, with a halo as wide as the kernel reaches.
class Table {
 public:
  explicit Table(int halo) : side_(kEdge + 2 * halo) {
    for (int x = -1; x <= 1; ++x)
      for (int y = -1; y <= 1; ++y)
        for (int z = -1; z <= 1; ++z)
          sides_[9 * x + 3 * y + z + 13] = {Keys::step(x, y, z),
                                            touching(x, 0xF0) & touching(y, 0xCC) & touching(z, 0xAA) & 0xFF,
                                            step(kEdge * x, kEdge * y, kEdge * z)};
    for (uint32_t x = 0; x < kEdge; ++x)
      for (uint32_t y = 0; y < kEdge; ++y)
        for (uint32_t z = 0; z < kEdge; ++z) see(kPlace[x] << 2 | kPlace[y] << 1 | kPlace[z], x, y, z, halo);
  }

  void lay(const Cubes& cubes, size_t cube) {
    std::fill(rows_, rows_ + side_ * side_ * side_, kAbsent);
    const uint64_t key = cubes.numbers[cube].key;
    for (uint32_t i = 0; i < 27; ++i) {
      const uint32_t beside = cubes.numbers.find(key + sides_[i].key);
      if (beside != BlockTable::kNoBlock)
        lay_octants(cubes.first.data() + kOctants * beside, cubes.places.data(), i);
    }
  }

  Around around(const Cubes& cubes) const { return {rows_, at_, cubes.places.data()}; }

 private:
  int32_t step(int x, int y, int z) const { return (x * side_ + y) * side_ + z; }
  void see(uint32_t place, uint32_t x, uint32_t y, uint32_t z, int halo) {
    at_[place] = step(static_cast<int>(x) + halo, static_cast<int>(y) + halo, static_cast<int>(z) + halo);
    within_[place] = 0;
    auto inside = [&](int direction, uint32_t c) {
      int at = kEdge * direction + static_cast<int>(c);
      return -halo <= at && at < kEdge + halo;
    };
    for (uint32_t i = 0; i < 27; ++i) {
      int dx = static_cast<int>(i / 9) - 1, dy = static_cast<int>(i / 3 % 3) - 1,
          dz = static_cast<int>(i % 3) - 1;
      if (inside(dx, x) && inside(dy, y) && inside(dz, z)) within_[place] |= 1u << i;
    }
  }

  // Sites outside of the halo go to a place that nobody reads: that costs less than to foresee them.
  void lay_octants(const uint32_t* first, const uint16_t* places, uint32_t i) {
    const int32_t step = sides_[i].step;
    for (uint32_t octants = sides_[i].octants; octants; octants &= octants - 1) {
      const uint32_t* octant = first + __builtin_ctz(octants);
      for (uint32_t row = octant[0]; row < octant[1]; ++row) {
        const uint32_t place = places[row];
        const int32_t at = at_[place] + step;
        rows_[within_[place] >> i & 1 ? at : static_cast<int32_t>(kMostTable)] = row << kOffsetBits;
      }
    }
  }

  const int32_t side_;
  Side sides_[27];                          // in lexicographic order
  int32_t at_[kEdge * kEdge * kEdge];       // of each place, in rows_
  uint32_t within_[kEdge * kEdge * kEdge];  // bit i: a site at this place of side i is in the halo
  uint32_t rows_[kMostTable + 1 + kSlack] = {};
};

// Cubes that are worked on at a time, and the entries of their rows.
struct Chunk {
  size_t first, last;  // cubes
  size_t thread, at;   // whose store has the entries, from where on
  size_t count;
};

std::vector<Chunk> chunks_of(const Cubes& cubes) {
  std::vector<Chunk> chunks;
  size_t first = 0;
  for (size_t i = 1; i <= cubes.count(); ++i)
    if (i == cubes.count() || cubes.first[kOctants * i] - cubes.first[kOctants * first] >= kChunk) {
      chunks.push_back({first, i, 0, 0, 0});
      first = i;
    }
  return chunks;
}

// The entries that one thread has found.
struct Store {
  Array<uint32_t> entries;
  size_t used = 0, rows = 0;

  // Room for `most` more entries. Where it must grow, for as many as `likely` rows will have by what was
  // found.
  uint32_t* room(size_t most, size_t likely, Ledger* ledger) {
    if (entries.size() - used < most) {
      const size_t guess = rows ? used * likely / rows : 0;
      Array<uint32_t> more(std::max(guess, used + used / 4) + most, ledger);
      std::copy(entries.data(), entries.data() + used, more.data());
      entries = std::move(more);
    }
    return entries.data() + used;
  }
};

// Finds the entries of all chunks; begin[row] counts within the row's chunk.
std::vector<Store> find_all(const Cubes& cubes, const Steps& steps, int halo, std::vector<Chunk>& chunks,
                            uint32_t* begin, Pool& pool, Ledger* ledger) {
  std::vector<Store> stores(pool.size());
  std::atomic<size_t> next{0};
  const Enter enter = choose_enter();
  const size_t likely = cubes.places.size() / pool.size() * 9 / 8;
  pool.run([&](size_t thread) {
    Table table(halo);
    Store& store = stores[thread];
    for (size_t i; (i = next++) < chunks.size();) {
      Chunk& chunk = chunks[i];
      const size_t rows = cubes.rows(chunk.last - 1).last - cubes.rows(chunk.first).first;
      uint32_t* room = store.room(rows * steps.count + kSlack, likely, ledger);
      for (size_t cube = chunk.first; cube < chunk.last; ++cube) {
        table.lay(cubes, cube);
        const Range own = cubes.rows(cube);
        chunk.count = enter(table.around(cubes), steps, own.first, own.last, begin, room, chunk.count);
      }
      chunk.thread = thread;
      chunk.at = store.used;
      store.used += chunk.count;
      store.rows += rows;
    }
  });
  return stores;
}

// Puts the chunks' entries one after the other. A single thread has done so already.
Neighbours join(const Cubes& cubes, const std::vector<Chunk>& chunks, std::vector<Store>& stores,
                Array<uint32_t> begin, Pool& pool, Ledger* ledger) {
  std::vector<size_t> before{0};
  for (const Chunk& chunk : chunks) before.push_back(before.back() + chunk.count);
  begin[begin.size() - 1] = static_cast<uint32_t>(before.back());
  const bool joined = stores.size() == 1;
  Array<uint32_t> entries = joined ? std::move(stores[0].entries) : Array<uint32_t>(before.back(), ledger);
  entries.shrink(before.back());
  std::atomic<size_t> next{0};
  pool.run([&](size_t) {
    for (size_t i; (i = next++) < chunks.size();) {
      const Chunk& chunk = chunks[i];
      const size_t first = cubes.rows(chunk.first).first, last = cubes.rows(chunk.last - 1).last;
      for (size_t row = first; row < last; ++row) begin[row] += static_cast<uint32_t>(before[i]);
      if (joined) continue;
      const uint32_t* from = stores[chunk.thread].entries.data() + chunk.at;
      std::copy(from, from + chunk.count, entries.data() + before[i]);
    }
  });
  return {std::move(begin), std::move(entries)};
}

}  // namespace

Neighbours neighbours(const Array<Site>& sites, int size, const Offsets& wanted, Pool& pool, Ledger* ledger) {
  Array<uint32_t> begin(sites.size() + 1, ledger);
  begin[0] = 0;
  if (sites.empty()) return {std::move(begin), Array<uint32_t>(0, ledger)};
  const Cubes cubes = cubes_of(sites, pool, ledger);
  std::vector<Chunk> chunks = chunks_of(cubes);
  const int halo = size / 2;
  const Steps steps(size, kEdge + 2 * halo, wanted);
  std::vector<Store> stores = find_all(cubes, steps, halo, chunks, begin.data(), pool, ledger);
  return join(cubes, chunks, stores, std::move(begin), pool, ledger);
}

}  // namespace popcloud
