#include "cloud_files.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>

namespace popcloud {
namespace {

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

// The first numbers, three and `own` more, of each line that has any.
FilePoints parse_text(const std::string& text, size_t own) {
  FilePoints points;
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
FilePoints parse_npy(const std::string& data, size_t own) {
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
  FilePoints points;
  const char* at = data.data() + start + length;
  for (size_t i = 0; i < rows * (3 + own); ++i, at += sizeof(float)) {
    float number;
    std::memcpy(&number, at, sizeof number);
    points.add(i % (3 + own), number);
  }
  return points;
}

}  // namespace

FilePoints read_points(const std::string& path, size_t own) {
  std::string data = read_file(path);
  if (!ends_with(path, ".npy") && !ends_with(path, ".xyz") && !ends_with(path, ".txt"))
    fail("unknown kind of file; valid: .npy, .xyz, .txt");
  return ends_with(path, ".npy") ? parse_npy(data, own) : parse_text(data, own);
}

}  // namespace popcloud
