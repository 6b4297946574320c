// The files that popcloud-run reads clouds from.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "engine.h"

namespace popcloud {

// Points, and the columns behind x, y and z.
struct FilePoints {
  std::vector<float> xyz, columns;
  size_t count() const { return xyz.size() / 3; }
  void add(size_t column, float number) { (column < 3 ? xyz : columns).push_back(number); }
};

// Points from a .npy, .xyz or .txt file with `own` columns behind x, y and z. Throws Error(kCloud) that does
// not name the file.
FilePoints read_points(const std::string& path, size_t own);

// Runs `use`, and adds the file's name to what is wrong with the cloud in it.
template <class Use>
void naming(const std::string& path, Use use) {
  try {
    use();
  } catch (const Error& error) {
    throw Error(error.fault(), path + ": " + error.what());
  }
}

}  // namespace popcloud
