// What tables do with lists of entries (Gather), and with rows of answers, is what the portable one does, bit
// for bit: picking entries, sums of floats, sums of signs of long rows, largest classes. Arguments as of
// tables.h.
#include <algorithm>
#include <numeric>

#include "tests/tables.h"

using namespace popcloud;

namespace {

constexpr uint32_t kCanary = 0x5a5a5a5a;
constexpr size_t kInputRows = 60;
constexpr size_t kRows[] = {0, 1, 2, 3, 4, 5, 7, 8, 31, 32, 33, 64, 100};
constexpr size_t kSpare = 8;  // entries that pick may write behind those it gives

// How many entries rows have.
enum class Lengths { kNone, kFew, kAny, kAll, kGaps };

size_t length(std::mt19937_64& rng, Lengths how) {
  switch (how) {
    case Lengths::kNone:
      return 0;
    case Lengths::kFew:
      return rng() % 6;
    case Lengths::kAny:
      return rng() % (kMostOffsets + 1);
    case Lengths::kAll:
      return kMostOffsets;
    case Lengths::kGaps:
      break;
  }
  return rng() % 4 ? 0 : 1 + rng() % kMostOffsets;
}

// Rows of entries in no order of offsets, which no row has twice, behind `first` entries of other rows. As
// many entries as there are, so that a sanitizer sees who reads beyond.
struct List {
  std::vector<uint32_t> begin, entries;

  List(std::mt19937_64& rng, const std::vector<size_t>& lengths, size_t first) : begin{uint32_t(first)} {
    for (size_t i = 0; i < first; ++i) entries.push_back(uint32_t(rng()));
    std::vector<uint32_t> offsets(kMostOffsets);
    std::iota(offsets.begin(), offsets.end(), 0);
    for (const size_t count : lengths) {
      std::shuffle(offsets.begin(), offsets.end(), rng);
      for (size_t i = 0; i < count; ++i)
        entries.push_back(uint32_t(rng() % kInputRows) << kOffsetBits | offsets[i]);
      begin.push_back(uint32_t(entries.size()));
    }
  }
  List(std::mt19937_64& rng, size_t rows, Lengths how, size_t first)
      : List(rng, some(rng, rows, how), first) {}

  static std::vector<size_t> some(std::mt19937_64& rng, size_t rows, Lengths how) {
    std::vector<size_t> lengths(rows);
    for (size_t& each : lengths) each = length(rng, how);
    return lengths;
  }
  Gather gather() const { return {begin.data(), entries.data(), begin.size() - 1}; }
  std::string shape() const {
    return std::to_string(begin.size() - 1) + " rows, entries " + std::to_string(begin[0]) + " to " +
           std::to_string(begin.back());
  }
};

// Which offsets have slots.
enum class Slots { kNobody, kOne, kShifted, kHalf, kEverybody };

std::vector<uint8_t> slots(std::mt19937_64& rng, Slots how) {
  std::vector<uint8_t> slots(kOffsetMask + 1);
  const size_t one = rng() % kMostOffsets;
  for (size_t o = 0, next = 0; o < slots.size(); ++o) {
    const bool near = o / 25 < 3 && o / 5 % 5 > 1 && o % 5 > 0 && o % 5 < 4;
    const bool seen = how == Slots::kEverybody || (how == Slots::kOne && o == one) ||
                      (how == Slots::kShifted && near) || (how == Slots::kHalf && rng() % 2);
    slots[o] = seen ? uint8_t(next++) : rng() % 4 ? 255 : uint8_t(128 + rng() % 128);
  }
  if (rng() % 2) std::reverse(slots.begin(), slots.end());
  return slots;
}

void test_pick(const KernelTable& table, std::mt19937_64& rng, const List& list, Slots how) {
  const std::vector<uint8_t> slot = slots(rng, how);
  const Gather rows = list.gather();
  std::vector<uint32_t> begin[2], entries[2];
  for (int i = 0; i < 2; ++i) {
    begin[i].assign(rows.rows + 2, kCanary);
    entries[i].assign(list.entries.size() - list.begin[0] + 2 * kSpare, kCanary);
    (i ? kPortable : table).pick(rows, slot.data(), begin[i].data(), entries[i].data());
  }
  const std::string shape = list.shape() + ", slots " + std::to_string(int(how));
  compare(table.name, "pick's begin", shape, begin[0], begin[1]);
  const size_t picked = begin[1][rows.rows];
  // What lies behind the room is nobody's; between the entries and its end anything may be.
  const size_t room = list.entries.size() - list.begin[0] + kSpare;
  for (auto& each : entries) std::fill(each.begin() + picked, each.begin() + room, 0);
  compare(table.name, "pick's entries", shape, entries[0], entries[1]);
}

// What the floats of a sum are: such that their order matters, some special, or so small that products round
// to zeros of both signs.
enum class Values { kOrdinary, kSpecial, kTiny };

std::vector<float> values(std::mt19937_64& rng, size_t count, Values how) {
  std::vector<float> x = ordinary(rng, count);
  const std::vector<float> special = floats(rng, count, true);
  const float tiny = std::numeric_limits<float>::denorm_min(), small[] = {0.0f, -0.0f, tiny, -tiny};
  for (size_t i = 0; i < count; ++i) {
    if (how == Values::kSpecial && rng() % 200 == 0) x[i] = special[i];
    if (how == Values::kTiny) x[i] = small[rng() % 4];
  }
  return x;
}

// Sums lie further apart than their channels: what is in between keeps its value.
void test_sum_floats(const KernelTable& table, std::mt19937_64& rng, const List& list, size_t inputs,
                     size_t channels, Values how) {
  const std::vector<float> x = values(rng, kInputRows * inputs, how),
                           w = values(rng, kMostOffsets * inputs * channels, how);
  const size_t stride = channels + rng() % 3;
  std::vector<float> got((list.begin.size() - 1) * stride, 7), want = got;
  table.sum_floats(x.data(), inputs, w.data(), channels, list.gather(), got.data(), stride);
  kPortable.sum_floats(x.data(), inputs, w.data(), channels, list.gather(), want.data(), stride);
  forgive_nan(got, want);
  compare(table.name, "sum_floats",
          list.shape() + ", " + std::to_string(inputs) + " x " + std::to_string(channels) + ", values " +
              std::to_string(int(how)),
          got, want);
}

// Rows of every length there is, with the largest sums that there are if `random` is 0: all signs are equal,
// or all are different.
void test_sum_signs(const KernelTable& table, std::mt19937_64& rng, size_t inputs, size_t channels,
                    uint64_t random) {
  std::vector<size_t> lengths(kMostOffsets + 1);
  std::iota(lengths.begin(), lengths.end(), 0);
  std::shuffle(lengths.begin(), lengths.end(), rng);
  const List list(rng, lengths, rng() % 3);
  const size_t words = (inputs + 63) / 64, seen_words = (channels + 63) / 64;
  const uint64_t tail = inputs % 64 ? (uint64_t{1} << inputs % 64) - 1 : ~uint64_t{0}, sign = 0 - rng() % 2;
  std::vector<uint64_t> x(kInputRows * words), bits(kMostOffsets * words * channels),
      seen(kMostOffsets * seen_words);
  for (size_t i = 0; i < x.size(); ++i) x[i] = (rng() & random) & (i % words == words - 1 ? tail : ~0ull);
  for (size_t i = 0; i < bits.size(); ++i)
    bits[i] = ((rng() & random) ^ sign) & (i / channels % words == words - 1 ? tail : ~0ull);
  for (uint64_t& each : seen) each = rng() % 8 ? ~0ull : rng();
  SignKernel w{kMostOffsets, inputs, channels, bits.data(), seen.data(), nullptr};
  const Prepared prepared(table.sign_kernel_bytes(w));
  const size_t stride = channels + rng() % 3;
  std::vector<float> got((list.begin.size() - 1) * stride, 7), want = got;
  kPortable.sum_signs(x.data(), w, list.gather(), want.data(), stride);
  if (prepared.data) table.prepare_sign_kernel(w, prepared.data);
  w.prepared = prepared.data;
  table.sum_signs(x.data(), w, list.gather(), got.data(), stride);
  compare(table.name, "sum_signs",
          list.shape() + ", " + std::to_string(inputs) + " x " + std::to_string(channels) +
              (random ? ", random signs" : ", equal signs"),
          got, want);
}

// Few different values, so that the largest is there more than once, in one of several ways.
void test_largest(const KernelTable& table, std::mt19937_64& rng, size_t rows, size_t classes) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), most = std::numeric_limits<float>::infinity();
  const std::vector<float> choices[] = {
      {0, 1, 2, 3, 4, 5, 6, 7}, {-3, -2, -1}, {0.0f, -0.0f},           {-most},
      {most, -most, 0},         {nan},        {nan, most, 1, 2, -nan}, {-most, -most, -nan}};
  std::vector<float> x = ordinary(rng, rows * classes);
  for (size_t r = 0; r < rows; ++r) {
    const size_t way = rng() % (2 * std::size(choices));
    for (size_t c = 0; c < classes && way < std::size(choices); ++c)
      x[r * classes + c] = choices[way][rng() % choices[way].size()];
  }
  std::vector<int32_t> got(rows + 1, int32_t(kCanary)), want = got;
  table.largest(x.data(), rows, classes, got.data());
  kPortable.largest(x.data(), rows, classes, want.data());
  compare(table.name, "largest", std::to_string(rows) + " x " + std::to_string(classes), got, want);
}

void test_table(const KernelTable& table) {
  std::mt19937_64 rng(1);
  for (const size_t rows : kRows)
    for (const Lengths how : {Lengths::kNone, Lengths::kFew, Lengths::kAny, Lengths::kAll, Lengths::kGaps})
      for (const size_t first : {0, 1, 37}) {
        if (left_out()) continue;
        const List list(rng, rows, how, first);
        for (int seen = 0; seen < 5; ++seen) test_pick(table, rng, list, Slots(seen));
      }
  for (size_t inputs = 1; inputs <= kMostRowInputs; ++inputs)
    for (size_t channels = 1; channels <= kMostRowChannels; ++channels) {
      if (left_out()) continue;
      const Lengths how = rng() % 8 ? Lengths::kFew : rng() % 2 ? Lengths::kAny : Lengths::kGaps;
      const List list(rng, kRows[rng() % std::size(kRows)], how, rng() % 3 * 19);
      test_sum_floats(table, rng, list, inputs, channels, Values(rng() % 3));
    }
  for (const size_t rows : kRows)
    for (int how = 0; how < 3; ++how)
      test_sum_floats(table, rng, List(rng, rows, Lengths::kAny, 3), 8, 16, Values(how));
  for (size_t classes = 1; classes <= 70; ++classes) test_largest(table, rng, classes % 3 * 50, classes);
  for (const size_t classes : {20, 40, 64, 65, 1000}) test_largest(table, rng, 100, classes);
  for (const size_t inputs : {2, 16, 32, 48, 64, 128, 504})
    for (const size_t channels : {16, 20, 48, 80}) {
      if (left_out()) continue;
      for (const uint64_t random : {0ull, ~0ull}) test_sum_signs(table, rng, inputs, channels, random);
    }
}

}  // namespace

int main(int count, char** names) { return test_tables(count, names, test_table); }
