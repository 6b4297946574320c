// The engine on a program assembled here: run equals its steps one by one, every way gives the same bits, and
// a damaged file gives an Error, never a crash. Exit code 1 if something does not hold.
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "engine.h"
#include "program.h"
#include "shortcuts.h"
#include "threads.h"

using namespace popcloud;

namespace {

int checks = 0, failures = 0;

void check(bool holds, const std::string& what) {
  ++checks;
  if (holds) return;
  ++failures;
  std::printf("FAILED: %s\n", what.c_str());
}

using Bytes = std::vector<uint8_t>;

template <class T>
void put(Bytes& bytes, size_t at, T value) {
  if (bytes.size() < at + sizeof value) bytes.resize(at + sizeof value);
  std::memcpy(&bytes[at], &value, sizeof value);
}

size_t up64(size_t n) { return (n + 63) / 64 * 64; }

void seal(Bytes& file) {  // bit by bit: another way than the reader's
  put<uint32_t>(file, 12, 0);
  uint32_t crc = 0xFFFFFFFFu;
  for (uint8_t byte : file) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  put<uint32_t>(file, 12, ~crc);
}

// Collects values, steps and blobs and lays them out as docs/format.md says.
class Writer {
 public:
  explicit Writer(unsigned seed) : rng_(seed) { value(Kind::kFloat, Rows::kPoint, 3); }

  // Adds a step with random constants; returns its value.
  int32_t add(Op op, std::vector<int32_t> inputs, uint32_t channels, Activation act = Activation::kNone) {
    const Made& x = values_[static_cast<size_t>(inputs[0])];
    bool bits = op == Op::kBinarize || op == Op::kBinaryLinearBits || op == Op::kBinaryMaxBits ||
                op == Op::kBinaryMeanBits;
    Rows rows = pools(op) ? Rows::kCloud : x.rows;
    Record step{
        static_cast<uint32_t>(op), {-1, -1, -1, -1}, 0, static_cast<uint32_t>(act), {-1, -1, -1, -1, -1, -1}};
    std::copy(inputs.begin(), inputs.end(), step.inputs);
    step.blobs[0] = step.blobs[1] = step.blobs[2] = -1;
    int32_t* blob = step.blobs;
    if (op == Op::kLinear) *blob++ = floats({x.channels, channels}), *blob++ = floats({channels});
    if (op == Op::kBinarize) *blob++ = floats({channels});
    if (op == Op::kAffine) *blob++ = floats({channels}), *blob++ = floats({1});
    if (op == Op::kRprelu)
      *blob++ = floats({channels}), *blob++ = floats({channels}), *blob++ = floats({channels});
    if (op >= Op::kBinaryLinear) *blob++ = weight(x.channels, channels);
    if (op == Op::kBinaryLinearBits || op == Op::kBinaryMaxBits) *blob++ = limit(x.channels, channels);
    if (op == Op::kBinaryMeanBits) *blob++ = floats({channels});
    if (op == Op::kBinaryLinear || op == Op::kBinaryMax || op == Op::kBinaryMean)
      *blob++ = floats({1}), *blob++ = floats({channels});
    step.output = value(bits ? Kind::kBits : Kind::kFloat, rows, channels);
    steps_.push_back(step);
    return step.output;
  }

  Bytes file(uint32_t classes) const {
    std::string names;
    for (size_t i = 0; i < values_.size(); ++i) names += "value " + std::to_string(i) + '\0';
    for (uint32_t i = 0; i < classes; ++i) names += "class " + std::to_string(i) + '\0';
    size_t steps = up64(256 + 16 * values_.size()), blobs = up64(steps + 64 * steps_.size());
    size_t text = up64(blobs + 40 * blobs_.size()), data = up64(text + names.size());
    Bytes file(data);
    std::memcpy(file.data(), "POPCLOUD", 8);
    std::memcpy(&file[128], "none", 4);
    const uint32_t counts[] = {0, 0, size32(values_), size32(steps_), size32(blobs_), classes, 0, 0};
    std::memcpy(&file[24], counts, sizeof counts);
    const uint64_t offsets[] = {256, steps, blobs, text, names.size(), data, 0, data};
    std::memcpy(&file[56], offsets, sizeof offsets);
    put<uint32_t>(file, 8, 1);
    for (size_t i = 0; i < values_.size(); ++i) {
      const uint32_t record[] = {static_cast<uint32_t>(values_[i].kind),
                                 static_cast<uint32_t>(values_[i].rows), values_[i].channels, 0};
      std::memcpy(&file[256 + 16 * i], record, sizeof record);
    }
    for (size_t i = 0; i < steps_.size(); ++i) std::memcpy(&file[steps + 64 * i], &steps_[i], 64);
    std::memcpy(&file[text], names.data(), names.size());
    for (size_t i = 0; i < blobs_.size(); ++i) {
      size_t at = up64(file.size());
      put<uint64_t>(file, blobs + 40 * i, at);
      put<uint64_t>(file, blobs + 40 * i + 8, blobs_[i].bytes.size());
      std::memcpy(&file[blobs + 40 * i + 16], blobs_[i].type_and_shape, 24);
      file.resize(at);
      file.insert(file.end(), blobs_[i].bytes.begin(), blobs_[i].bytes.end());
    }
    file.resize(up64(file.size()));
    put<uint64_t>(file, 16, file.size());
    seal(file);
    return file;
  }

 private:
  struct Made {
    Kind kind;
    Rows rows;
    uint32_t channels;
  };
  struct Record {
    uint32_t op;
    int32_t inputs[4], output;
    uint32_t activation;
    int32_t blobs[6];
    uint32_t reserved[3] = {};
  };
  struct Array {
    uint32_t type_and_shape[6];
    Bytes bytes;
  };

  template <class List>
  static uint32_t size32(const List& list) {
    return static_cast<uint32_t>(list.size());
  }
  int32_t value(Kind kind, Rows rows, uint32_t channels) {
    values_.push_back({kind, rows, channels});
    return static_cast<int32_t>(values_.size()) - 1;
  }
  template <class T>
  int32_t array(Type type, std::vector<uint32_t> shape, const std::vector<T>& elements) {
    Array made{{static_cast<uint32_t>(type), size32(shape), shape[0], shape.size() > 1 ? shape[1] : 0, 0, 0},
               {}};
    made.bytes.resize(elements.size() * sizeof(T));
    std::memcpy(made.bytes.data(), elements.data(), made.bytes.size());
    blobs_.push_back(made);
    return static_cast<int32_t>(blobs_.size()) - 1;
  }
  int32_t floats(std::vector<uint32_t> shape) {
    std::vector<float> elements(shape[0] * (shape.size() > 1 ? shape[1] : 1));
    std::normal_distribution<float> normal(0, shape.size() > 1 ? 0.3f : 1.0f);
    for (float& e : elements) e = normal(rng_);
    return array(Type::kF32, shape, elements);
  }
  int32_t limit(uint32_t inputs, uint32_t channels) {
    std::vector<int32_t> elements(channels);
    for (int32_t& e : elements) e = static_cast<int32_t>(rng_() % (inputs + 2)) - 1;
    return array(Type::kI32, {channels}, elements);
  }
  int32_t weight(uint32_t inputs, uint32_t channels) {
    std::vector<uint64_t> elements(words_of(inputs) * channels);
    for (uint64_t& e : elements) e = rng_();
    if (inputs % 64)
      for (size_t i = elements.size() - channels; i < elements.size(); ++i)
        elements[i] &= (1ull << inputs % 64) - 1;
    return array(Type::kU64, {static_cast<uint32_t>(words_of(inputs)), channels}, elements);
  }

  std::mt19937_64 rng_;
  std::vector<Made> values_;
  std::vector<Record> steps_;
  std::vector<Array> blobs_;
};

constexpr uint32_t kClasses = 7;

// A PointNet with a transform, in which every op occurs.
Bytes every_op(unsigned seed) {
  Writer w(seed);
  int32_t first = w.add(Op::kLinear, {0}, 8, Activation::kHardtanh);
  int32_t pooled =
      w.add(Op::kBinaryMaxBits, {w.add(Op::kBinaryLinearBits, {w.add(Op::kBinarize, {first}, 8)}, 130)}, 200);
  int32_t moved = w.add(Op::kTransform, {first, w.add(Op::kBinaryLinear, {pooled}, 64)}, 8);
  int32_t bent = w.add(Op::kRprelu, {w.add(Op::kAffine, {moved}, 8, Activation::kRelu)}, 8);
  int32_t row = w.add(Op::kRowMeanAbs, {bent}, 1);
  int32_t wide = w.add(Op::kBinaryLinear, {w.add(Op::kBinarize, {bent}, 8), row}, 65);
  int32_t bits = w.add(Op::kBinarize, {wide}, 65);
  w.add(Op::kPoolMax, {wide}, 65);
  w.add(Op::kPoolMean, {wide}, 65);
  w.add(Op::kBinaryMax, {bits}, 70, Activation::kHardtanh);
  w.add(Op::kBinaryMean, {bits}, 1);
  w.add(Op::kBinaryMeanBits, {bits}, 129);
  int32_t last = w.add(Op::kBinaryMaxBits, {w.add(Op::kBinaryLinearBits, {bits}, 64)}, 257);
  w.add(Op::kBinaryLinear, {last}, kClasses);
  return w.file(kClasses);
}

class File {
 public:
  File() {
    char name[] = "/tmp/popcloud-test-XXXXXX";
    int file = mkstemp(name);
    if (file < 0) std::perror("mkstemp"), std::exit(2);
    close(file);
    path = name;
  }
  ~File() { std::remove(path.c_str()); }
  void write(const Bytes& bytes, size_t count) const {
    FILE* file = std::fopen(path.c_str(), "wb");
    bool whole = file && std::fwrite(bytes.data(), 1, count, file) == count;
    if (!whole || std::fclose(file) != 0) std::perror("write"), std::exit(2);
  }
  std::string path;
};

// The error of loading, or "".
std::string fault(const File& file, const Bytes& bytes, size_t count) {
  file.write(bytes, count);
  try {
    Engine engine(file.path, Options{"", 1});
    std::vector<float> xyz(30, 0.5f), answer(engine.classes().size());
    Cloud cloud{xyz.data(), 10};
    engine.run(&cloud, 1, answer.data());
    return "";
  } catch (const Error& error) {
    check(error.fault() == Fault::kFile, "a file's fault is called one");
    return error.what();
  }
}

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

void test_damage() {
  File file;
  Bytes good = every_op(1);
  check(fault(file, good, good.size()).empty(), "the whole file loads: " + fault(file, good, good.size()));
  for (size_t size = 0; size < good.size(); size += 1 + size / 7)
    check(contains(fault(file, good, size), size < 8 ? "not a model file" : "truncated"),
          "a part is refused");
  for (size_t at = 0; at < good.size(); at += 1 + at / 97) {
    Bytes bad = good;
    bad[at] ^= static_cast<uint8_t>(1u << at % 8);
    check(!fault(file, bad, bad.size()).empty(), "a flipped bit is noticed at " + std::to_string(at));
  }
  std::mt19937_64 rng(5);
  size_t tables = std::min<size_t>(good.size(), 2600);
  for (int i = 0; i < 3000; ++i) {  // with the right checksum: an Error, or a file that runs
    Bytes bad = good;
    const uint8_t bytes[] = {0, 1, 2, 255, 127, static_cast<uint8_t>(rng())};
    for (size_t n = 1 + rng() % 3; n; --n) bad[8 + rng() % (tables - 8)] = bytes[rng() % 6];
    seal(bad);
    std::string what = fault(file, bad, bad.size());
    check(!contains(what, "\n"), "an error is one line");
  }
}

std::vector<Cloud> make_clouds(std::vector<std::vector<float>>& xyz) {
  std::mt19937 rng(3);
  std::normal_distribution<float> normal;
  std::vector<Cloud> clouds;
  for (size_t points : {1, 17, 400, 1000}) {
    std::vector<float> cloud(3 * points);
    for (float& x : cloud) x = normal(rng);
    for (size_t i = 3; i + 3 < cloud.size(); i += 6)
      std::copy_n(&cloud[i - 3], 3, &cloud[i]);  // equal neighbours
    xyz.push_back(cloud);
  }
  for (const auto& cloud : xyz) clouds.push_back({cloud.data(), cloud.size() / 3});
  return clouds;
}

// Runs one cloud step by step, each alone.
std::vector<float> by_steps(Engine& engine, const Cloud& cloud) {
  std::vector<Bytes> memory(engine.values().size());
  auto xyz = reinterpret_cast<const uint8_t*>(cloud.xyz);
  memory[0].assign(xyz, xyz + 12 * cloud.points);
  for (size_t s = 0; s < engine.steps().size(); ++s) {
    const Wiring& wiring = engine.steps()[s];
    const Value& value = engine.values()[wiring.outputs[0]];
    memory[wiring.outputs[0]].resize(value.row_bytes() * (value.rows == Rows::kPoint ? cloud.points : 1));
    std::vector<const void*> inputs;
    for (size_t i : wiring.inputs) inputs.push_back(memory[i].data());
    engine.step(s, inputs.data(), cloud.points, memory[wiring.outputs[0]].data());
  }
  std::vector<float> answer(engine.classes().size());
  std::memcpy(answer.data(), memory[engine.steps().back().outputs[0]].data(), 4 * answer.size());
  return answer;
}

void test_ways() {
  File file;
  Bytes bytes = every_op(2);
  file.write(bytes, bytes.size());
  std::vector<std::vector<float>> xyz;
  std::vector<Cloud> clouds = make_clouds(xyz);
  Engine plain(file.path, Options{"portable", 1, false, false, false});
  std::vector<float> wanted;
  for (const Cloud& cloud : clouds)
    for (float y : by_steps(plain, cloud)) wanted.push_back(y);
  for (const std::string& kernels : available_kernels())
    for (int threads : {1, 2, 3})
      for (int ways = 0; ways < 8; ++ways) {
        Engine engine(file.path,
                      Options{kernels, threads, (ways & 1) != 0, (ways & 2) != 0, (ways & 4) != 0});
        std::vector<float> answers(wanted.size());
        engine.run(clouds.data(), clouds.size(), answers.data());
        check(std::memcmp(answers.data(), wanted.data(), 4 * wanted.size()) == 0,
              kernels + ", " + std::to_string(threads) + " threads, ways " + std::to_string(ways));
        engine.run(&clouds[3], 1, answers.data());  // alone: cut by rows and channels
        check(std::memcmp(answers.data(), &wanted[3 * kClasses], 4 * kClasses) == 0, "one cloud alone");
      }
}

void test_refusals() {
  File file;
  Bytes bytes = every_op(2);
  file.write(bytes, bytes.size());
  auto refused = [&](auto&& call, Fault fault) {
    try {
      call();
      check(false, "refused");
    } catch (const Error& error) {
      check(error.fault() == fault, error.what());
    }
  };
  float none = 0;
  Cloud empty{&none, 0};
  Engine engine(file.path);
  refused([&] { engine.run(&empty, 1, &none); }, Fault::kCloud);
  refused([&] { engine.step(1000, nullptr, 1, nullptr); }, Fault::kEngine);
  refused([&] { Engine(file.path, Options{"mmx"}); }, Fault::kEngine);
  refused([&] { Engine(file.path, Options{"", -1}); }, Fault::kEngine);
  refused([&] { Engine("/nowhere/model.popc"); }, Fault::kFile);
  refused([&] { prepare(&none, 0, 10, "none"); }, Fault::kCloud);
}

void test_threads() {
  for (int threads : {1, 2, 5}) {
    Pool pool(threads);
    std::atomic<int> sum{0};
    for (int round = 0; round < 300; ++round) pool.run([&](size_t i) { sum += static_cast<int>(i) + 1; });
    check(sum == 300 * threads * (threads + 1) / 2, "each part is done once a round");
    bool thrown = false;
    try {
      pool.run([](size_t i) {
        if (i == 0) throw Error(Fault::kEngine, "on purpose");
      });
    } catch (const Error&) {
      thrown = true;
    }
    check(thrown, "an exception comes back");
  }
  for (size_t total : {0, 1, 63, 64, 65, 1000})
    for (size_t parts : {1, 2, 3, 7}) {
      size_t next = 0;
      for (size_t i = 0; i < parts; ++i) {
        Range range = part(total, 64, i, parts);
        check(
            range.first == next && range.first <= range.last && (range.last % 64 == 0 || range.last == total),
            "parts follow each other");
        next = range.last;
      }
      check(next == total, "parts make the whole");
    }
}

void test_unique_rows() {
  Scratch scratch;
  for (size_t words : {1, 3})
    for (size_t kinds : {1, 5, 1000000}) {
      std::mt19937_64 rng(kinds);
      std::vector<uint64_t> x(500 * words), seen;
      for (size_t r = 0; r < 500; ++r) std::fill_n(&x[r * words], words, rng() % kinds);
      for (size_t r = 0; r < 500; ++r)
        if (std::find(seen.begin(), seen.end(), x[r * words]) == seen.end()) seen.push_back(x[r * words]);
      size_t kept = unique_rows(x.data(), 500, words, scratch);
      bool same = kept == seen.size();
      for (size_t r = 0; same && r < kept; ++r) same = x[r * words] == seen[r];
      check(same, "each row once, in order of first occurrence");
    }
}

}  // namespace

int main() {
  test_threads();
  test_unique_rows();
  test_ways();
  test_refusals();
  test_damage();
  std::printf("%d checks, %d failures\n", checks, failures);
  return failures != 0;
}
