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
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine.h"
#include "memory.h"
#include "scene/features.h"

namespace {

using popcloud::Error;
using popcloud::Fault;

constexpr const char* kHelp =
    R"(usage: popcloud-run MODEL [--threads N] [--kernels NAME] [--out FOLDER] CLOUD...

Runs a packed model (*.popc) on clouds. A model that gives a class per cloud prints,
per cloud, its file, its most probable class and that class's probability, separated
by tabs; one that gives a class per point prints a line for each class that occurs:
file, class, number of points, share of the points.

A CLOUD is a text file (.xyz, .txt; x y z first in each line, separated by spaces
or commas, # starts a comment) or a .npy file of float32, shape (N, 3), C order.
Features that a model reads of each point beside these, such as colours, follow as
further columns, in its order and scaled as it has learned them; "category:NAME"
is 1 in a cloud of that category, else 0. A scene may have 4,194,304 occupied voxels;
Python's `popcloud run` cuts larger ones into tiles, and rooms into blocks.

  --out FOLDER    write the class of each point, its number as int64, to
                  FOLDER/NAME.labels.npy; the folder must be there
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
  std::string out;
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
    if (word == "--threads" || word == "--kernels" || word == "--out") {
      if (++i == count) throw UsageError{word + ": expected a value after it"};
      if (word == "--threads")
        arguments.options.threads = parse_threads(words[i]);
      else
        (word == "--out" ? arguments.out : arguments.options.kernels) = words[i];
    } else if (word.rfind("--", 0) == 0) {
      throw UsageError{"unknown option '" + word + "'; valid: --threads, --kernels, --out, --help"};
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

// Points, and the columns behind x, y and z.
struct Points {
  std::vector<float> xyz, columns;
  size_t count() const { return xyz.size() / 3; }
  void add(size_t column, float number) { (column < 3 ? xyz : columns).push_back(number); }
};

// The first numbers, three and `own` more, of each line that has any.
Points parse_text(const std::string& text, size_t own) {
  Points points;
  std::istringstream lines(text);
  std::string line;
  for (size_t number = 1; std::getline(lines, line); ++number) {
    line = line.substr(0, line.find('#'));
    std::replace(line.begin(), line.end(), ',', ' ');
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const char* at = line.c_str();
    for (size_t i = 0; i < 3 + own; ++i) {
      char* end = nullptr;
      points.add(i, static_cast<float>(std::strtod(at, &end)));  // as Python: float64 first, then float32
      if (end == at)
        fail("line " + std::to_string(number) + ": expected " + (own ? std::to_string(3 + own) : "three") +
             " numbers, found '" + line + "'");
      at = end;
    }
  }
  return points;
}

// A .npy file, versions 1 to 3 (numpy.lib.format): magic, version, length of the header, header, numbers.
Points parse_npy(const std::string& data, size_t own) {
  if (data.size() < 12 || data.compare(0, 6, "\x93NUMPY") != 0)
    fail("not a .npy file; save it with numpy.save");
  auto byte = [&](size_t i) { return static_cast<size_t>(static_cast<unsigned char>(data[i])); };
  bool wide = byte(6) >= 2;
  size_t start = wide ? 12 : 10;
  size_t length = byte(8) | byte(9) << 8 | (wide ? byte(10) << 16 | byte(11) << 24 : 0);
  if (length > data.size() - start) fail("truncated; save it again");
  std::string header = data.substr(start, length), width = std::to_string(3 + own);
  size_t shape = header.find("'shape': (");
  if (header.find("'<f4'") == std::string::npos ||
      header.find("'fortran_order': False") == std::string::npos || shape == std::string::npos)
    fail("expected float32 in C order, found " + header.substr(0, 80) + "; save it as float32");
  char* end = nullptr;
  unsigned long long rows = std::strtoull(header.c_str() + shape + 10, &end, 10);
  std::string columns = ", " + width + ")";
  if (std::strncmp(end, columns.c_str(), columns.size()) != 0)
    fail("expected shape (N, " + width + "), found " + header.substr(shape + 9, 40));
  size_t bytes = data.size() - start - length, row_bytes = 4 * (3 + own);
  if (bytes / row_bytes != rows || bytes % row_bytes) fail("truncated; save it again");
  Points points;
  const char* at = data.data() + start + length;
  for (size_t i = 0; i < rows * (3 + own); ++i, at += sizeof(float)) {
    float number;
    std::memcpy(&number, at, sizeof number);
    points.add(i % (3 + own), number);
  }
  return points;
}

// The names of the features that a cloud must bring.
std::vector<std::string> own_features(const popcloud::Engine& engine) {
  std::vector<std::string> names;
  for (const std::string& name : engine.features())
    if (!popcloud::is_computed(name)) names.push_back(name);
  return names;
}

// Runs `use` on what a file says, and adds the file's name to what is wrong with it.
template <class Use>
void with_points(const std::string& path, size_t own, Use use) {
  try {
    std::string data = read_file(path);
    if (!ends_with(path, ".npy") && !ends_with(path, ".xyz") && !ends_with(path, ".txt"))
      fail("unknown kind of file; valid: .npy, .xyz, .txt");
    use(ends_with(path, ".npy") ? parse_npy(data, own) : parse_text(data, own));
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

// The rows that the engine reads: positions as the model takes them, and the columns behind them.
std::vector<float> prepared(const Points& cloud, const popcloud::Engine& engine) {
  const size_t count = cloud.count(), own = engine.columns() - 3;
  const size_t wanted = engine.per_point() ? 0 : engine.points();
  if (wanted && wanted != count && own)
    fail("expected the " + std::to_string(engine.points()) + " points that the model takes, found " +
         std::to_string(count) + "; resample the cloud with its columns first");
  std::vector<float> xyz = popcloud::prepare(cloud.xyz.data(), count, wanted, engine.normalize());
  if (own == 0) return xyz;
  std::vector<float> rows;
  for (size_t i = 0; i < count; ++i) {
    rows.insert(rows.end(), &xyz[3 * i], &xyz[3 * i] + 3);
    for (size_t j = own * i; j < own * (i + 1); ++j) {
      if (!std::isfinite(cloud.columns[j]))
        fail("point " + std::to_string(i) + " has a column that is not finite");
      rows.push_back(cloud.columns[j]);
    }
  }
  return rows;
}

void run_on_clouds(const Arguments& arguments, popcloud::Engine& engine) {
  const size_t columns = engine.columns();
  std::vector<std::vector<float>> points;
  std::vector<popcloud::Cloud> clouds;
  for (const std::string& path : arguments.clouds)
    with_points(path, columns - 3, [&](const Points& cloud) { points.push_back(prepared(cloud, engine)); });
  for (const std::vector<float>& rows : points) clouds.push_back({rows.data(), rows.size() / columns});
  std::vector<float> answers(clouds.size() * engine.classes().size());
  engine.run(clouds.data(), clouds.size(), answers.data());
  for (size_t i = 0; i < clouds.size(); ++i)
    print_answer(arguments.clouds[i], engine.classes(), &answers[i * engine.classes().size()]);
}

// The classes that occur, the most frequent first.
void print_counts(const std::string& file, const std::vector<std::string>& classes,
                  const std::vector<int64_t>& labels) {
  std::vector<size_t> counts(classes.size()), order;
  for (int64_t label : labels) ++counts[static_cast<size_t>(label)];
  for (size_t c = 0; c < counts.size(); ++c)
    if (counts[c]) order.push_back(c);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return counts[a] > counts[b]; });
  for (size_t c : order)
    std::printf("%s\t%s\t%zu\t%.4f\n", file.c_str(), classes[c].c_str(), counts[c],
                static_cast<double>(counts[c]) / static_cast<double>(labels.size()));
}

std::string labels_path(const std::string& folder, const std::string& cloud) {
  std::string name = cloud.substr(cloud.rfind('/') + 1);
  return folder + "/" + name.substr(0, name.rfind('.')) + ".labels.npy";
}

void write_labels(const std::string& path, const std::vector<int64_t>& labels) {
  std::string header =
      "{'descr': '<i8', 'fortran_order': False, 'shape': (" + std::to_string(labels.size()) + ",), }";
  header.append(63 - (10 + header.size()) % 64, ' ')
      .push_back('\n');  // the numbers start at a multiple of 64
  std::ofstream file(path, std::ios::binary);
  file.write("\x93NUMPY\1\0", 8);
  file.put(static_cast<char>(header.size() & 255)).put(static_cast<char>(header.size() >> 8));
  file << header;
  file.write(reinterpret_cast<const char*>(labels.data()),
             static_cast<std::streamsize>(labels.size() * sizeof(int64_t)));
  file.close();
  if (!file)
    throw std::runtime_error(path + ": can't be written; name a folder that is there and that you may write");
}

// Asks `label` for the class of each point of each file, and says what it is.
template <class Label>
void label_points(const Arguments& arguments, const popcloud::Engine& engine, size_t own, Label label) {
  std::set<std::string> written;
  for (const std::string& path : arguments.clouds)
    if (!arguments.out.empty() && !written.insert(labels_path(arguments.out, path)).second)
      throw UsageError{"--out: two files would be written to " + labels_path(arguments.out, path)};
  for (const std::string& path : arguments.clouds)
    with_points(path, own, [&](const Points& points) {
      std::vector<int64_t> labels(points.count());
      label(points, labels.data());
      print_counts(path, engine.classes(), labels);
      if (!arguments.out.empty()) write_labels(labels_path(arguments.out, path), labels);
    });
}

void run_on_scenes(const Arguments& arguments, popcloud::Engine& engine) {
  const size_t own = own_features(engine).size();
  label_points(arguments, engine, own, [&](const Points& points, int64_t* labels) {
    engine.label({points.xyz.data(), points.count(), points.columns.data(), own}, labels);
  });
}

// The labels of every step-th row from `first`.
void label_rows(const std::vector<float>& rows, size_t first, size_t step, popcloud::Engine& engine,
                int64_t* labels) {
  const size_t columns = engine.columns(), classes = engine.classes().size(), count = rows.size() / columns;
  std::vector<float> own;
  for (size_t i = first; i < count; i += step)
    own.insert(own.end(), &rows[i * columns], &rows[i * columns] + columns);
  const popcloud::Cloud cloud{own.data(), own.size() / columns};
  std::vector<float> answers(cloud.points * classes);
  engine.run(&cloud, 1, answers.data());
  for (size_t i = 0; i < cloud.points; ++i) {
    const float* answer = &answers[i * classes];
    labels[first + i * step] = std::max_element(answer, answer + classes) - answer;
  }
}

// Networks on points with a class for each: a larger cloud than they were trained on is dealt out.
void run_per_point(const Arguments& arguments, popcloud::Engine& engine) {
  label_points(arguments, engine, engine.columns() - 3, [&](const Points& points, int64_t* labels) {
    const std::vector<float> rows = prepared(points, engine);
    const size_t most = engine.points(), sets = most ? (points.count() + most - 1) / most : 1;
    for (size_t set = 0; set < sets; ++set) label_rows(rows, set, sets, engine, labels);
  });
}

void run(const Arguments& arguments) {
  popcloud::Engine engine(arguments.model, arguments.options);
  if (engine.grid()) return run_on_scenes(arguments, engine);
  if (engine.normalize() == "blocks")
    throw Error(Fault::kFile, arguments.model + ": reads rooms in blocks, which this program does not cut; " +
                                  "use Python's `popcloud run`");
  if (engine.per_point()) return run_per_point(arguments, engine);
  if (!arguments.out.empty()) throw UsageError{"--out: the model gives a class per cloud, none per point"};
  run_on_clouds(arguments, engine);
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
  } catch (const popcloud::OutOfMemory& error) {  // says how much was asked for
    std::fprintf(stderr, "popcloud-run: %s\n", error.what());
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "popcloud-run: out of memory\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "popcloud-run: %s\n", error.what());
  }
  return 1;
}
