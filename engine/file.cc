// Map a model file and check all of it, in the order of docs/format.md.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <set>

#include "bytes.h"
#include "check.h"

namespace popcloud {
namespace {

// Of a network without a plan, of one on a voxel grid, of such a one with float16, and of one on points.
constexpr uint32_t kVersion = 1, kGridVersion = 2, kHalfVersion = 3, kPointsVersion = 4;
constexpr uint32_t kMostPoints = 1u << 24, kMostChannels = 1u << 24;  // the latter of all rows of a point
constexpr uint32_t kMostIndices = 65535;
constexpr int32_t kMostLevels = 16, kMostRatios = 4;
constexpr const char* kNormalize[] = {"none", "unit_sphere", "blocks"};  // the last on points only

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
  uint32_t kind, rows, channels;
  uint16_t level, each;
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
    if (header.version > kPointsVersion)
      fail("newer version: " + std::to_string(header.version) + ", this engine reads up to " +
           std::to_string(kPointsVersion) + "; update popcloud or pack the checkpoint again");
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

  bool on_points() const { return header_.version == kPointsVersion; }
  bool on_grid() const { return header_.version != kVersion && !on_points(); }

  void check_header() const {  // check 8
    const Header& h = header_;
    require(h.points <= kMostPoints, "points is " + std::to_string(h.points) + ", at most 2^24 is allowed");
    require(h.normalize <= (on_points() ? 2 : 1),
            "normalize is " + std::to_string(h.normalize) + ", expected 0 or 1, or 2 of a network on points");
    const char none[16] = "none", grid[16] = "grid", points[16] = "points";
    require(std::memcmp(h.plan_name,
                        on_points() ? points
                        : on_grid() ? grid
                                    : none,
                        sizeof none) == 0,
            "the geometry plan is not that of version " + std::to_string(h.version));
    require((h.version != kVersion || h.feature_count == 0) && h.reserved_a == 0 &&
                all_zero(h.reserved_b, sizeof h.reserved_b) && unused_plan_is_zero(),
            "a byte of the header that says nothing is not 0");
  }

  // Whether the bytes behind the plan's numbers are; on points the first number says how many floats there
  // are.
  bool unused_plan_is_zero() const {
    size_t integers = on_points() ? 1 : on_grid() ? 2 : 0, floats = on_grid() ? 1 : 0;
    if (on_points()) floats = static_cast<size_t>(std::clamp(header_.plan_integers[0], 0, kMostRatios));
    return all_zero(header_.plan_integers + integers, (8 - integers) * sizeof(int32_t)) &&
           all_zero(header_.plan_floats + floats, (4 - floats) * sizeof(double));
  }

  void check_sections() const {  // check 9
    const Header& h = header_;
    // On a grid alone may a step write several values.
    require(h.value_count >= 2 && h.step_count < h.value_count &&
                h.step_count >= (on_grid() ? 1 : h.value_count - 1),
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
    program_.normalize = kNormalize[header_.normalize];
    if (header_.version == kVersion) return;
    require(header_.feature_count >= 1, "no features");
    on_grid() ? read_grid() : read_sampling();
  }

  void read_grid() {
    double edge = header_.plan_floats[0];
    int32_t levels = header_.plan_integers[0], size = header_.plan_integers[1];
    require(
        std::isfinite(edge) && edge > 0 && levels >= 1 && levels <= kMostLevels && (size == 3 || size == 5),
        "the plan has a number out of range");
    require(header_.points == 0 && header_.normalize == 0,
            "a network on a grid takes all points as they are");
    program_.grid = Grid{edge, static_cast<size_t>(levels), static_cast<size_t>(size)};
  }

  void read_sampling() {
    int32_t count = header_.plan_integers[0];
    require(count >= 0 && count <= kMostRatios, "the plan has a number out of range");
    program_.sampling = Sampling{{header_.plan_floats, header_.plan_floats + count}};
    for (double ratio : program_.sampling->ratios)  // a NaN fails too
      require(ratio > 0 && ratio <= 1, "the plan has a ratio that is not in (0, 1]");
    const std::vector<std::string>& names = program_.features;
    require(names.size() >= 3 && names[0] == "x" && names[1] == "y" && names[2] == "z",
            "the first features are not x, y, z");
  }

  void read_values() {  // check 14, its second half
    for (size_t i = 0; i < header_.value_count; ++i) {
      ValueRecord r = record<ValueRecord>(header_.values_offset, i);
      require(r.channels >= 1 && r.channels <= kMostChannels && (on_points() ? fits_points(r) : fits_plan(r)),
              "value " + value_names_[i] + " is of no known kind");
      program_.values.push_back({value_names_[i], static_cast<Kind>(r.kind), static_cast<Rows>(r.rows),
                                 r.channels, r.level, std::max<size_t>(r.each, 1)});
    }
    const Value& first = program_.values[0];
    size_t features = program_.features.empty() ? 3 : program_.features.size();
    require(first.kind == Kind::kFloat && first.rows != Rows::kCloud && first.channels == features &&
                first.level == 0 && first.each == 1,
            on_grid() ? "value 0 is not a float per feature and site"
                      : "value 0 is not a cloud of a float per feature");
  }

  // Whether a value's record says what there is on a grid, or without a plan.
  bool fits_plan(const ValueRecord& r) const {
    size_t levels = program_.grid ? program_.grid->levels : 1;
    return r.kind <= 1 && r.rows <= 2 && (r.rows == 2) == on_grid() && r.level < levels && r.each == 0;
  }

  // The same on points. Indices are of one point a row; one row is of no level.
  bool fits_points(const ValueRecord& r) const {
    if (r.kind > 2 || r.rows > 1 || r.each == 1) return false;  // one a point is written as 0
    if (r.rows == 1) return r.kind != 2 && r.level == 0 && r.each == 0;
    if (r.level > program_.sampling->ratios.size()) return false;
    return r.kind == 2 ? r.each == 0 && r.channels <= kMostIndices
                       : uint64_t{r.channels} * std::max<uint64_t>(r.each, 1) <= kMostChannels;
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
    require(r.op >= 1 && r.op <= (on_points() ? 35 : 20),
            name + " has the unknown op " + std::to_string(r.op));
    require(r.activation <= (on_points() ? 4 : 3),
            name + " has the unknown activation " + std::to_string(r.activation));
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
