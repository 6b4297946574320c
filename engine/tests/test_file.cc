// The reader of model files: whole ones load and run; a damaged or altered one gives an Error that says so in
// one line, or is a file that runs, never a crash. Exit code 1 if something does not hold.
#include "model_writer.h"

using namespace popcloud;
using namespace popcloud::tests;

namespace {

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

void run_on_clouds(Engine& engine) {
  std::vector<float> xyz(30, 0.5f), answer(engine.classes().size());
  Cloud cloud{xyz.data(), 10};
  engine.run(&cloud, 1, answer.data());
}

// An altered search may ask for more points than there are, which is the cloud's fault.
void run_on_points(Engine& engine) {
  std::vector<float> rows, answers(20 * engine.classes().size());
  for (size_t i = 0; i < 20 * engine.columns(); ++i) rows.push_back(static_cast<float>(i * i % 13) * 0.1f);
  const Cloud cloud{rows.data(), 20};
  try {
    engine.run(&cloud, 1, answers.data());
  } catch (const Error& error) {
    check(error.fault() == Fault::kCloud, error.what());
  }
}

// An altered edge may ask for more sites than there are numbers, which is the scene's fault.
void run_on_a_scene(Engine& engine) {
  std::vector<float> xyz, columns(engine.features().size() * 20), answers(engine.classes().size() * 20);
  for (int i = 0; i < 60; ++i) xyz.push_back(static_cast<float>(i * i % 7) * 0.1f);
  try {
    engine.answer({xyz.data(), 20, columns.data(), engine.features().size(), true}, answers.data());
  } catch (const Error& error) {
    check(error.fault() == Fault::kCloud, error.what());
  }
}

// The error of loading, or "".
std::string fault(const File& file, const Bytes& bytes, size_t count) {
  file.write(bytes, count);
  try {
    Engine engine(file.path, Options{"", 1});
    engine.grid()       ? run_on_a_scene(engine)
    : engine.sampling() ? run_on_points(engine)
                        : run_on_clouds(engine);
    return "";
  } catch (const Error& error) {
    check(error.fault() == Fault::kFile, "a file's fault is called one");
    check(!contains(error.what(), "\n"), "an error is one line");
    return error.what();
  }
}

void test_damage(const Bytes& good) {
  File file;
  check(fault(file, good, good.size()).empty(), "the whole file loads: " + fault(file, good, good.size()));
  for (size_t size = 0; size < good.size(); size += 1 + size / 7)
    check(contains(fault(file, good, size), size < 8 ? "not a model file" : "truncated"),
          "a part is refused");
  for (size_t at = 0; at < good.size(); at += 1 + at / 97) {
    Bytes bad = good;
    bad[at] ^= static_cast<uint8_t>(1u << at % 8);
    check(!fault(file, bad, bad.size()).empty(), "a flipped bit is noticed at " + std::to_string(at));
  }
}

uint64_t data_offset(const Bytes& file) {
  uint64_t at;
  std::memcpy(&at, &file[112], sizeof at);
  return at;
}

// Bytes of header, tables and text changed by chance, under the right checksum.
void test_random_bytes(const Bytes& good) {
  File file;
  std::mt19937_64 rng(5);
  size_t tables = data_offset(good), accepted = 0;
  for (int i = 0; i < 1000; ++i) {
    Bytes bad = good;
    const uint8_t bytes[] = {0, 1, 2, 255, 127, static_cast<uint8_t>(rng())};
    for (size_t n = 1 + rng() % 3; n; --n) bad[8 + rng() % (tables - 8)] = bytes[rng() % 6];
    seal(bad);
    accepted += fault(file, bad, bad.size()).empty();
  }
  check(accepted > 0 && accepted < 500, std::to_string(accepted) + " altered files were accepted");
}

// Every number of header and tables, one at a time.
void test_every_number(const Bytes& good) {
  File file;
  size_t refused = 0, tried = 0, tables = data_offset(good);
  for (size_t at = 16; at < tables; at += 4) {
    uint32_t old;
    std::memcpy(&old, &good[at], sizeof old);
    for (uint32_t other : {old - 1, old + 1}) {
      Bytes bad = good;
      put<uint32_t>(bad, at, other);
      seal(bad);
      refused += !fault(file, bad, bad.size()).empty();
      ++tried;
    }
  }
  check(refused * 2 > tried, "most altered numbers are refused");
}

}  // namespace

int main() {
  for (const Bytes& good :
       {cloud_network(1), scene_network(1, 5, 4), scene_network(2, 3, 4), points_network(1)}) {
    test_damage(good);
    test_random_bytes(good);
    test_every_number(good);
  }
  return finish();
}
