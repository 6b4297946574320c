// What the checks of a program's steps share (docs/format.md, checks 15 to 18).
#pragma once
#include <string>
#include <vector>

#include "program.h"

namespace popcloud {

// How many blobs an op must have, and how many more it may be without; those come last.
size_t needed_blobs(Op op);
size_t optional_blobs(Op op);

// Says where in which file something is wrong.
struct Complaint {
  const std::string& path;
  std::string where;  // the step or the value

  // Throws Error(kFile) unless `holds`; `what` goes on after `where`.
  void require(bool holds, const std::string& what) const;
};

// Whether a blob is that kind of array. `signs` of a column of packed weights lie in whole words.
bool is_matrix(const Blob& blob, Type type, size_t rows, size_t columns);
bool is_vector(const Blob& blob, Type type, size_t length);
bool is_packed(const Blob& blob, size_t signs, size_t columns);

// Whether two values have as many rows for every cloud, each for the same thing.
bool same_rows(const Value& x, const Value& y);

bool all_finite(const Blob& floats);  // f32 or f16
bool no_nan(const Blob& floats);
bool tail_is_zero(const Blob& packed, size_t signs);  // the bits beyond `signs` in a column's last word

// Checks kinds, levels, channels, activation, blobs and numbers of a step that knows of sites (ops 15 to 20),
// whose inputs and outputs exist. Throws as Complaint::require.
void check_grid_step(const Program& program, const Step& step, const Complaint& complaint);

// The same of ops on points (21 and above, and CONCAT of points). points_to[value] is the level whose rows an
// INDEX value holds: read of inputs, set for outputs.
void check_point_step(const Program& program, const Step& step, std::vector<size_t>& points_to,
                      const Complaint& complaint);

}  // namespace popcloud
