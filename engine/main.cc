// popcloud-run: run a packed model on clouds, without Python.
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <new>
#include <sstream>
#include <string>
#include <vector>

#include "engine.h"

namespace {

using popcloud::Error;
using popcloud::Fault;

constexpr const char* kHelp =
    R"(usage: popcloud-run MODEL [--threads N] [--kernels NAME] CLOUD...

Runs a packed model (*.popc) on clouds and prints, per cloud, its file, its most
probable class and that class's probability, separated by tabs.

A CLOUD is a text file (.xyz, .txt; x y z first in each line, separated by spaces
or commas, # starts a comment) or a .npy file of float32, shape (N, 3), C order.

  --threads N     how many threads work; by default one per physical core
  --kernels NAME  one of: )";

constexpr const char* kExitCodes = R"(; by default the first
  --help          print this

Exit codes: 0 done, 2 wrong arguments, 3 a cloud that can't be used, 5 a model file
that can't be used, 9 unknown kernels or threads, 1 anything else (such as memory).
)";

struct Arguments {
  std::string model;
  popcloud::Options options;
  std::vector<std::string> clouds;
  bool help = false;
};

struct UsageError {
  std::string what;
};

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

int parse_threads(const std::string& text) {
  char* end = nullptr;
  long threads = std::strtol(text.c_str(), &end, 10);
  if (text.empty() || *end || threads < 1 || threads > 1024)
    throw UsageError{"--threads: expected a number of 1 to 1024, found '" + text + "'"};
  return static_cast<int>(threads);
}

Arguments parse(int count, char** words) {
  Arguments arguments;
  std::vector<std::string> files;
  for (int i = 1; i < count; ++i) {
    std::string word = words[i];
    if (word == "--help" || word == "-h") {
      arguments.help = true;
      return arguments;
    }
    if (word == "--threads" || word == "--kernels") {
      if (++i == count) throw UsageError{word + ": expected a value after it"};
      if (word == "--threads")
        arguments.options.threads = parse_threads(words[i]);
      else
        arguments.options.kernels = words[i];
    } else if (word.rfind("--", 0) == 0) {
      throw UsageError{"unknown option '" + word + "'; valid: --threads, --kernels, --help"};
    } else {
      files.push_back(word);
    }
  }
  if (files.size() < 2) throw UsageError{"expected a model and at least one cloud; see --help"};
  arguments.model = files[0];
  arguments.clouds.assign(files.begin() + 1, files.end());
  return arguments;
}

[[noreturn]] void fail(const std::string& what) { throw Error(Fault::kCloud, what); }

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file) fail("can't be read: " + std::string(std::strerror(errno)));
  return text;
}

// The first three numbers of each line that has any.
std::vector<float> parse_text(const std::string& text) {
  std::vector<float> xyz;
  std::istringstream lines(text);
  std::string line;
  for (size_t number = 1; std::getline(lines, line); ++number) {
    line = line.substr(0, line.find('#'));
    std::replace(line.begin(), line.end(), ',', ' ');
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const char* at = line.c_str();
    for (int i = 0; i < 3; ++i) {
      char* end = nullptr;
      xyz.push_back(static_cast<float>(std::strtod(at, &end)));  // as Python: float64 first, then float32
      if (end == at)
        fail("line " + std::to_string(number) + ": expected three numbers, found '" + line + "'");
      at = end;
    }
  }
  return xyz;
}

// A .npy file, versions 1 to 3 (numpy.lib.format): magic, version, length of the header, header, numbers.
std::vector<float> parse_npy(const std::string& data) {
  if (data.size() < 12 || data.compare(0, 6, "\x93NUMPY") != 0)
    fail("not a .npy file; save it with numpy.save");
  auto byte = [&](size_t i) { return static_cast<size_t>(static_cast<unsigned char>(data[i])); };
  bool wide = byte(6) >= 2;
  size_t start = wide ? 12 : 10;
  size_t length = byte(8) | byte(9) << 8 | (wide ? byte(10) << 16 | byte(11) << 24 : 0);
  if (length > data.size() - start) fail("truncated; save it again");
  std::string header = data.substr(start, length);
  size_t shape = header.find("'shape': (");
  if (header.find("'<f4'") == std::string::npos ||
      header.find("'fortran_order': False") == std::string::npos || shape == std::string::npos)
    fail("expected float32 in C order, found " + header.substr(0, 80) + "; save it as float32");
  char* end = nullptr;
  unsigned long long rows = std::strtoull(header.c_str() + shape + 10, &end, 10);
  if (std::strncmp(end, ", 3)", 4) != 0) fail("expected shape (N, 3), found " + header.substr(shape + 9, 40));
  size_t bytes = data.size() - start - length;
  if (bytes / 12 != rows || bytes % 12) fail("truncated; save it again");
  std::vector<float> xyz(3 * rows);
  if (rows) std::memcpy(xyz.data(), data.data() + start + length, bytes);
  return xyz;
}

std::vector<float> read_cloud(const std::string& path, const popcloud::Engine& engine) {
  try {
    std::string data = read_file(path);
    if (!ends_with(path, ".npy") && !ends_with(path, ".xyz") && !ends_with(path, ".txt"))
      fail("unknown kind of file; valid: .npy, .xyz, .txt");
    std::vector<float> xyz = ends_with(path, ".npy") ? parse_npy(data) : parse_text(data);
    return popcloud::prepare(xyz.data(), xyz.size() / 3, engine.points(), engine.normalize());
  } catch (const Error& error) {
    throw Error(error.fault(), path + ": " + error.what());
  }
}

void print_answer(const std::string& file, const std::vector<std::string>& classes, const float* answer) {
  const float* best = std::max_element(answer, answer + classes.size());
  double sum = 0;
  for (size_t c = 0; c < classes.size(); ++c)
    sum += std::exp(static_cast<double>(answer[c]) - static_cast<double>(*best));
  std::printf("%s\t%s\t%.4f\n", file.c_str(), classes[static_cast<size_t>(best - answer)].c_str(), 1 / sum);
}

void run(const Arguments& arguments) {
  popcloud::Engine engine(arguments.model, arguments.options);
  std::vector<std::vector<float>> points;
  std::vector<popcloud::Cloud> clouds;
  for (const std::string& path : arguments.clouds) points.push_back(read_cloud(path, engine));
  for (const std::vector<float>& xyz : points) clouds.push_back({xyz.data(), xyz.size() / 3});
  std::vector<float> answers(clouds.size() * engine.classes().size());
  engine.run(clouds.data(), clouds.size(), answers.data());
  for (size_t i = 0; i < clouds.size(); ++i)
    print_answer(arguments.clouds[i], engine.classes(), &answers[i * engine.classes().size()]);
}

int exit_code(Fault fault) { return fault == Fault::kCloud ? 3 : fault == Fault::kFile ? 5 : 9; }

}  // namespace

int main(int count, char** words) {
  try {
    Arguments arguments = parse(count, words);
    if (arguments.help)
      std::printf("%s%s%s", kHelp, joined(popcloud::available_kernels()).c_str(), kExitCodes);
    else
      run(arguments);
    return 0;
  } catch (const UsageError& error) {
    std::fprintf(stderr, "popcloud-run: %s\n", error.what.c_str());
    return 2;
  } catch (const Error& error) {
    std::fprintf(stderr, "popcloud-run: %s\n", error.what());
    return exit_code(error.fault());
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "popcloud-run: out of memory\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "popcloud-run: %s\n", error.what());
  }
  return 1;
}
