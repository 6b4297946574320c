// popcloud-run: run a packed model on clouds, without Python.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "cloud_files.h"
#include "engine.h"
#include "memory.h"
#include "scene/features.h"

namespace {

using popcloud::Error;
using popcloud::Fault;
using Points = popcloud::FilePoints;

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
is 1 in a cloud of that category, else 0, and its points get parts "NAME/..." alone.
A scene may have 4,194,304 occupied voxels; Python's `popcloud run` cuts larger ones
into tiles, and rooms into blocks.

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

// The names of the features that a cloud must bring.
std::vector<std::string> own_features(const popcloud::Engine& engine) {
  std::vector<std::string> names;
  for (const std::string& name : engine.features())
    if (!popcloud::is_computed(name)) names.push_back(name);
  return names;
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
  const size_t columns = engine.columns(), classes = engine.classes().size();
  std::vector<std::vector<float>> points;
  for (const std::string& path : arguments.clouds)
    popcloud::naming(path,
                     [&] { points.push_back(prepared(popcloud::read_points(path, columns - 3), engine)); });
  std::vector<popcloud::Cloud> clouds;
  for (const std::vector<float>& rows : points) clouds.push_back({rows.data(), rows.size() / columns});
  std::vector<float> answers(clouds.size() * classes);
  try {
    engine.run(clouds.data(), clouds.size(), answers.data());
  } catch (const Error&) {  // which of them it was, one by one says
    for (size_t i = 0; i < clouds.size(); ++i)
      popcloud::naming(arguments.clouds[i], [&] { engine.run(&clouds[i], 1, &answers[i * classes]); });
    throw;
  }
  for (size_t i = 0; i < clouds.size(); ++i)
    print_answer(arguments.clouds[i], engine.classes(), &answers[i * classes]);
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
    popcloud::naming(path, [&] {
      const Points points = popcloud::read_points(path, own);
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

// The classes to choose among: of an object whose category the model is told, its parts "NAME/part"; else
// all.
std::vector<size_t> classes_of(const std::vector<float>& rows, const popcloud::Engine& engine) {
  const std::string prefix = "category:";
  size_t categories = 0;
  std::vector<std::string> told;
  for (size_t i = 0; i < engine.features().size(); ++i) {
    const std::string& name = engine.features()[i];
    if (name.compare(0, prefix.size(), prefix) != 0) continue;
    ++categories;
    if (rows[i] == 1) told.push_back(name.substr(prefix.size()));
  }
  if (categories && told.size() != 1)
    fail("expected 1 in the column of one category, found it in " + std::to_string(told.size()) + " of " +
         std::to_string(categories) + " in the first row; say what the object is");
  std::vector<size_t> parts, all(engine.classes().size());
  for (size_t c = 0; c < all.size(); ++c) {
    all[c] = c;
    if (categories && engine.classes()[c].rfind(told[0] + "/", 0) == 0) parts.push_back(c);
  }
  return parts.empty() ? all : parts;
}

// The labels, of those to choose among, of every step-th row from `first`.
void label_rows(const std::vector<float>& rows, const std::vector<size_t>& among, size_t first, size_t step,
                popcloud::Engine& engine, int64_t* labels) {
  const size_t columns = engine.columns(), classes = engine.classes().size(), count = rows.size() / columns;
  std::vector<float> own;
  for (size_t i = first; i < count; i += step)
    own.insert(own.end(), &rows[i * columns], &rows[i * columns] + columns);
  const popcloud::Cloud cloud{own.data(), own.size() / columns};
  std::vector<float> answers(cloud.points * classes);
  engine.run(&cloud, 1, answers.data());
  for (size_t i = 0; i < cloud.points; ++i) {
    const float* answer = &answers[i * classes];
    const auto less = [&](size_t a, size_t b) { return answer[a] < answer[b]; };
    labels[first + i * step] = static_cast<int64_t>(*std::max_element(among.begin(), among.end(), less));
  }
}

// Networks on points with a class for each: a larger cloud than they were trained on is dealt out.
void run_per_point(const Arguments& arguments, popcloud::Engine& engine) {
  label_points(arguments, engine, engine.columns() - 3, [&](const Points& points, int64_t* labels) {
    const std::vector<float> rows = prepared(points, engine);
    const std::vector<size_t> among = classes_of(rows, engine);
    const size_t most = engine.points(), sets = most ? (points.count() + most - 1) / most : 1;
    for (size_t set = 0; set < sets; ++set) label_rows(rows, among, set, sets, engine, labels);
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
