// Map a model file and check all of it, in the order of docs/format.md.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <set>

#include "check.h"

namespace popcloud {
namespace {

// Of a network without a plan, of one on a voxel grid, and of such a one with float16.
constexpr uint32_t kVersion = 1, kGridVersion = 2, kHalfVersion = 3;
constexpr uint32_t kMostPoints = 1u << 24, kMostChannels = 1u << 24;
constexpr int32_t kMostLevels = 16;

struct Header {
  char magic[8];
  uint32_t version, checksum;
  uint64_t file_bytes;
  uint32_t points, normalize;
  uint32_t value_count, step_count, blob_count, class_count, meta_count, feature_count;
  uint64_t values_offset, steps_offset, blobs_offset;
  uint64_t names_offset, names_bytes, meta_offset, meta_bytes, data_offset, reserved_a;
  char plan_name[16];
  int32_t plan_integers[8];
  double plan_floats[4];
  uint8_t reserved_b[48];
};
struct ValueRecord {
  uint32_t kind, rows, channels, level;
};
struct StepRecord {
  uint32_t op;
  int32_t inputs[4], output;
  uint32_t activation;
  int32_t blobs[6];
  uint32_t more[3];  // further outputs
};
struct BlobRecord {
  uint64_t offset, bytes;
  uint32_t dtype, ndim, shape[4];
};
static_assert(sizeof(Header) == 256 && offsetof(Header, data_offset) == 112, "docs/format.md, header");
static_assert(sizeof(ValueRecord) == 16 && sizeof(StepRecord) == 64 && sizeof(BlobRecord) == 40, "records");

size_t element_bytes(Type type) {
  return type == Type::kU64 ? 8 : type == Type::kF16 ? 2 : type == Type::kI8 ? 1 : 4;
}

uint64_t up64(uint64_t n) { return (n + 63) / 64 * 64; }

// zlib's CRC-32, eight bytes at a time ("slicing by 8", Kounavis and Berry 2005).
struct CrcTables {
  std::array<std::array<uint32_t, 256>, 8> of{};
  constexpr CrcTables() {
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t crc = i;
      for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0);
      of[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; ++i)
      for (size_t t = 1; t < 8; ++t) of[t][i] = (of[t - 1][i] >> 8) ^ of[0][of[t - 1][i] & 255];
  }
};
constexpr CrcTables kCrc;

uint32_t crc32(uint32_t crc, const uint8_t* bytes, size_t count) {
  for (; count >= 8; bytes += 8, count -= 8) {
    uint32_t low = crc ^ (bytes[0] | bytes[1] << 8 | bytes[2] << 16 | uint32_t{bytes[3]} << 24);
    crc = kCrc.of[7][low & 255] ^ kCrc.of[6][low >> 8 & 255] ^ kCrc.of[5][low >> 16 & 255] ^
          kCrc.of[4][low >> 24] ^ kCrc.of[3][bytes[4]] ^ kCrc.of[2][bytes[5]] ^ kCrc.of[1][bytes[6]] ^
          kCrc.of[0][bytes[7]];
  }
  for (; count; ++bytes, --count) crc = (crc >> 8) ^ kCrc.of[0][(crc ^ *bytes) & 255];
  return crc;
}

uint32_t file_checksum(const uint8_t* file, size_t size) {
  const uint8_t zeros[4] = {};
  uint32_t crc = crc32(0xFFFFFFFFu, file, 12);
  crc = crc32(crc, zeros, 4);  // the checksum's own place
  return ~crc32(crc, file + 16, size - 16);
}

bool all_zero(const void* data, size_t bytes) {
  auto at = static_cast<const uint8_t*>(data);
  for (size_t i = 0; i < bytes; ++i)
    if (at[i]) return false;
  return true;
}

// How many bytes the UTF-8 character at `s` takes; 0 if it is none (as Python decodes: no surrogates, nothing
// longer than needed).
size_t utf8_length(const uint8_t* s, const uint8_t* end) {
  if (s[0] < 0x80) return 1;
  size_t length = s[0] >= 0xC2 && s[0] < 0xE0   ? 2
                  : (s[0] & 0xF0) == 0xE0       ? 3
                  : s[0] >= 0xF0 && s[0] < 0xF5 ? 4
                                                : 0;
  if (length == 0 || static_cast<size_t>(end - s) < length) return 0;
  for (size_t i = 1; i < length; ++i)
    if ((s[i] & 0xC0) != 0x80) return 0;
  if (s[0] == 0xE0 && s[1] < 0xA0) return 0;
  if (s[0] == 0xED && s[1] > 0x9F) return 0;
  if (s[0] == 0xF0 && s[1] < 0x90) return 0;
  if (s[0] == 0xF4 && s[1] > 0x8F) return 0;
  return length;
}

bool is_utf8(const uint8_t* s, const uint8_t* end) {
  while (s < end) {
    size_t length = utf8_length(s, end);
    if (length == 0) return false;
    s += length;
  }
  return true;
}

class Reader {
 public:
  Reader(const Mapping& file, const std::string& path) : file_(file), path_(path) {}

  Program read() {
    check_identity();
    std::memcpy(&header_, file_.data(), sizeof header_);
    check_header();
    check_sections();
    read_blobs();
    read_names();
    read_plan();
    read_values();
    read_steps();
    check_program(program_, path_);
    return std::move(program_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw Error(Fault::kFile, path_ + ": " + what); }

  void require(bool holds, const std::string& what) const {
    if (!holds) fail("inconsistent: " + what + "; pack the checkpoint again");
  }

  // Checks 2 to 7: is it a model file, of this version, whole and undamaged?
  void check_identity() const {
    const uint8_t* data = file_.data();
    size_t size = file_.size();
    if (size < 8 || std::memcmp(data, "POPCLOUD", 8) != 0)
      fail("not a model file: it does not start with POPCLOUD; pass a file that `popcloud pack` wrote");
    Header header{};
    std::memcpy(&header, data, std::min(size, sizeof header));
    if (size < 12) fail("truncated: " + std::to_string(size) + " bytes are left; copy or pack it again");
    if (header.version > kHalfVersion)
      fail("newer version: " + std::to_string(header.version) + ", this engine reads up to " +
           std::to_string(kHalfVersion) + "; update popcloud or pack the checkpoint again");
    if (header.version == 0) fail("damaged: version 0 does not exist; copy or pack it again");
    if (size < sizeof header)
      fail("truncated: expected a header of 256 bytes, found " + std::to_string(size) +
           "; copy or pack it again");
    if (size != header.file_bytes)
      fail(std::string(size < header.file_bytes ? "truncated" : "damaged") + ": expected " +
           std::to_string(header.file_bytes) + " bytes, found " + std::to_string(size) +
           "; copy or pack it again");
    if (file_checksum(data, size) != header.checksum)
      fail("damaged: the checksum does not fit the content; copy or pack it again");
  }

  void check_header() const {  // check 8
    const Header& h = header_;
    require(h.points <= kMostPoints, "points is " + std::to_string(h.points) + ", at most 2^24 is allowed");
    require(h.normalize <= 1, "normalize is " + std::to_string(h.normalize) + ", expected 0 or 1");
    bool on_grid = h.version >= kGridVersion;
    const char none[16] = "none", grid[16] = "grid";
    require(std::memcmp(h.plan_name, on_grid ? grid : none, sizeof none) == 0,
            "the geometry plan is not that of version " + std::to_string(h.version));
    size_t integers = on_grid ? 2 : 0, floats = on_grid ? 1 : 0;  // that the plan has
    require((on_grid || h.feature_count == 0) && h.reserved_a == 0 &&
                all_zero(h.reserved_b, sizeof h.reserved_b) &&
                all_zero(h.plan_integers + integers, (8 - integers) * sizeof(int32_t)) &&
                all_zero(h.plan_floats + floats, (4 - floats) * sizeof(double)),
            "a byte of the header that says nothing is not 0");
  }

  void check_sections() const {  // check 9
    const Header& h = header_;
    // On a grid alone a step may write several values.
    require(h.value_count >= 2 && h.step_count < h.value_count &&
                h.step_count >= (h.version == kVersion ? h.value_count - 1 : 1),
            std::to_string(h.value_count) + " values and " + std::to_string(h.step_count) + " steps");
    require(h.class_count >= 1, "no classes");
    require(h.names_bytes <= h.file_bytes && h.meta_bytes <= h.file_bytes, "names or meta outside the file");
    require(h.values_offset == 256 && h.steps_offset == up64(256 + sizeof(ValueRecord) * h.value_count) &&
                h.blobs_offset == up64(h.steps_offset + sizeof(StepRecord) * h.step_count) &&
                h.names_offset == up64(h.blobs_offset + sizeof(BlobRecord) * h.blob_count) &&
                h.meta_offset == up64(h.names_offset + h.names_bytes) &&
                h.data_offset == up64(h.meta_offset + h.meta_bytes) && h.data_offset <= h.file_bytes,
            "the sections do not lie where they should");
  }

  template <class Record>
  Record record(uint64_t section, size_t index) const {
    Record r;
    std::memcpy(&r, file_.data() + section + index * sizeof r, sizeof r);
    return r;
  }

  void check_padding(uint64_t end) const {  // check 11
    require(all_zero(file_.data() + end, up64(end) - end),
            "padding before byte " + std::to_string(up64(end)) + " is not 0");
  }

  void read_blobs() {  // checks 10 and 11
    uint64_t end = header_.data_offset;
    for (size_t i = 0; i < header_.blob_count; ++i) {
      BlobRecord r = record<BlobRecord>(header_.blobs_offset, i);
      blobs_.push_back(read_blob(r, "blob " + std::to_string(i), up64(end)));
      end = r.offset + r.bytes;
    }
    require(up64(end) == file_.size(), "the last blob ends before the file");
    bool halves =
        std::any_of(blobs_.begin(), blobs_.end(), [](const Blob& b) { return b.type == Type::kF16; });
    require(halves == (header_.version == kHalfVersion), "float16 is in version 3, and only there");
    const Header& h = header_;
    const uint64_t ends[] = {h.values_offset + sizeof(ValueRecord) * h.value_count,
                             h.steps_offset + sizeof(StepRecord) * h.step_count,
                             h.blobs_offset + sizeof(BlobRecord) * h.blob_count,
                             h.names_offset + h.names_bytes, h.meta_offset + h.meta_bytes};
    for (uint64_t stop : ends) check_padding(stop);
    for (const Blob& blob : blobs_) {
      size_t bytes = blob.count() * element_bytes(blob.type);
      check_padding(static_cast<size_t>(static_cast<const uint8_t*>(blob.data) - file_.data()) + bytes);
    }
  }

  Blob read_blob(const BlobRecord& r, const std::string& name, uint64_t expected_offset) const {
    require(r.dtype >= 1 && r.dtype <= 5, name + " has dtype " + std::to_string(r.dtype));
    require(r.ndim == 1 || r.ndim == 2, name + " has " + std::to_string(r.ndim) + " dimensions");
    bool filled = r.shape[0] >= 1 && (r.ndim == 1 ? r.shape[1] == 0 : r.shape[1] >= 1);
    require(filled && r.shape[0] <= kMostChannels && r.shape[1] <= kMostChannels && r.shape[2] == 0 &&
                r.shape[3] == 0,
            name + " has an impossible shape");
    uint64_t count = uint64_t{r.shape[0]} * (r.ndim == 2 ? r.shape[1] : 1);
    uint64_t size = element_bytes(static_cast<Type>(r.dtype));
    require(count <= file_.size() / size && r.bytes == count * size,
            name + " has bytes that don't fit its shape");
    require(r.offset == expected_offset && r.bytes <= file_.size() && r.offset <= file_.size() - r.bytes,
            name + " does not lie where it should");
    return {file_.data() + r.offset, static_cast<Type>(r.dtype), r.ndim, {r.shape[0], r.shape[1]}};
  }

  void read_names() {  // check 12
    auto at = file_.data() + header_.names_offset, end = at + header_.names_bytes;
    size_t wanted = size_t{header_.value_count} + header_.class_count + header_.feature_count;
    require(wanted <= header_.names_bytes, "fewer names than values, classes and features");
    std::vector<std::string> names;
    while (at < end && names.size() < wanted) {
      auto stop = static_cast<const uint8_t*>(std::memchr(at, 0, static_cast<size_t>(end - at)));
      require(stop && stop > at && is_utf8(at, stop), "name " + std::to_string(names.size()) + " is no text");
      names.emplace_back(reinterpret_cast<const char*>(at), static_cast<size_t>(stop - at));
      at = stop + 1;
    }
    require(names.size() == wanted && at == end, "more names than values, classes and features");
    auto values_end = names.begin() + header_.value_count, classes_end = values_end + header_.class_count;
    value_names_.assign(names.begin(), values_end);
    program_.classes.assign(values_end, classes_end);
    program_.features.assign(classes_end, names.end());
    for (auto list : {&value_names_, &program_.classes, &program_.features})
      require(std::set<std::string>(list->begin(), list->end()).size() == list->size(),
              "a name is there twice");
  }

  void read_plan() {  // check 14, its first half
    program_.points = header_.points;
    program_.normalize = header_.normalize ? "unit_sphere" : "none";
    if (header_.version == kVersion) return;
    double edge = header_.plan_floats[0];
    int32_t levels = header_.plan_integers[0], size = header_.plan_integers[1];
    require(
        std::isfinite(edge) && edge > 0 && levels >= 1 && levels <= kMostLevels && (size == 3 || size == 5),
        "the plan has a number out of range");
    require(header_.points == 0 && header_.normalize == 0,
            "a network on a grid takes all points as they are");
    require(header_.feature_count >= 1, "no features");
    program_.grid = Grid{edge, static_cast<size_t>(levels), static_cast<size_t>(size)};
  }

  void read_values() {  // check 14, its second half
    bool on_grid = program_.grid.has_value();
    size_t levels = on_grid ? program_.grid->levels : 1, features = on_grid ? program_.features.size() : 3;
    for (size_t i = 0; i < header_.value_count; ++i) {
      ValueRecord r = record<ValueRecord>(header_.values_offset, i);
      require(r.kind <= 1 && r.rows <= 2 && (r.rows == 2) == on_grid && r.channels >= 1 &&
                  r.channels <= kMostChannels && r.level < levels,
              "value " + value_names_[i] + " is of no known kind");
      program_.values.push_back(
          {value_names_[i], static_cast<Kind>(r.kind), static_cast<Rows>(r.rows), r.channels, r.level});
    }
    const Value& first = program_.values[0];
    require(
        first.kind == Kind::kFloat && first.rows != Rows::kCloud && first.channels == features &&
            first.level == 0,
        on_grid ? "value 0 is not a float per feature and site" : "value 0 is not a cloud of float x, y, z");
  }

  void read_steps() {  // the records of checks 15 and 16; what they mean together is check_program's
    size_t next_blob = 0;
    for (size_t i = 0; i < header_.step_count; ++i) {
      StepRecord r = record<StepRecord>(header_.steps_offset, i);
      program_.steps.push_back(read_step(r, "step " + std::to_string(i), next_blob));
    }
    require(next_blob == blobs_.size(), "a blob belongs to no step");
  }

  Step read_step(const StepRecord& r, const std::string& name, size_t& next_blob) const {
    require(r.op >= 1 && r.op <= 20, name + " has the unknown op " + std::to_string(r.op));
    require(r.activation <= 3, name + " has the unknown activation " + std::to_string(r.activation));
    Step step{static_cast<Op>(r.op), static_cast<Activation>(r.activation), {}, {}, {}};
    size_t inputs = 0, more = 0;
    for (; inputs < 4 && r.inputs[inputs] != -1; ++inputs) {
      require(is_value(r.inputs[inputs]), name + " reads a value that does not exist");
      step.inputs.push_back(static_cast<size_t>(r.inputs[inputs]));
    }
    for (; inputs < 4; ++inputs) require(r.inputs[inputs] == -1, name + " has a gap in its inputs");
    require(is_value(r.output), name + " writes a value that does not exist");
    step.outputs.push_back(static_cast<size_t>(r.output));
    for (; more < 3 && r.more[more] != 0; ++more) {
      require(is_value(r.more[more]), name + " writes a value that does not exist");
      step.outputs.push_back(r.more[more]);
    }
    for (; more < 3; ++more) require(r.more[more] == 0, name + " has a gap in its outputs");
    read_step_blobs(r, name, next_blob, step);
    return step;
  }

  // Values are counted in 32 bits, so a negative index is none.
  bool is_value(int64_t index) const { return index >= 0 && index < int64_t{header_.value_count}; }

  void read_step_blobs(const StepRecord& r, const std::string& name, size_t& next_blob, Step& step) const {
    size_t needed = needed_blobs(step.op), places = needed + optional_blobs(step.op);
    for (size_t i = 0; i < places; ++i) {
      if (i >= needed && r.blobs[i] == -1) {
        step.blobs.push_back({});
        continue;
      }
      require(r.blobs[i] >= 0 && static_cast<size_t>(r.blobs[i]) == next_blob && next_blob < blobs_.size(),
              "the blobs of " + name + " are not there, or not numbered in order");
      step.blobs.push_back(blobs_[next_blob++]);
    }
    for (size_t i = places; i < 6; ++i) require(r.blobs[i] == -1, name + " has too many blobs");
  }

  const Mapping& file_;
  const std::string& path_;
  Header header_{};
  std::vector<Blob> blobs_;
  std::vector<std::string> value_names_;
  Program program_;
};

}  // namespace

Mapping::Mapping(const std::string& path) {
  auto fail = [&](const std::string& why) {
    throw Error(Fault::kFile, path + ": can't be read (" + why + "); name a model file (*.popc)");
  };
  int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not block
  if (file < 0) fail(std::strerror(errno));
  struct stat info{};
  int error = fstat(file, &info) != 0 ? errno : 0;
  std::string why = error || S_ISREG(info.st_mode) ? "" : S_ISDIR(info.st_mode) ? "a folder" : "not a file";
  size_ = static_cast<size_t>(info.st_size);
  if (error == 0 && why.empty() && size_ > 0) {
    void* data = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
    if (data == MAP_FAILED)
      error = errno;
    else
      data_ = static_cast<const uint8_t*>(data);
  }
  close(file);
  if (error != 0) why = std::strerror(error);
  if (!why.empty()) fail(why);
}

Mapping::~Mapping() {
  if (data_) munmap(const_cast<uint8_t*>(data_), size_);
}

Program read_program(const Mapping& file, const std::string& path) { return Reader(file, path).read(); }

}  // namespace popcloud
