// What the reader of model files asks of bytes: their checksum, and what they can be.
#pragma once
#include <cstddef>
#include <cstdint>

namespace popcloud {

// The checksum of a model file of `size` >= 16 bytes: zlib's CRC-32 of it all, with the four bytes at 12,
// where the checksum itself lies, taken as zero.
uint32_t file_checksum(const uint8_t* file, size_t size);

bool all_zero(const void* data, size_t bytes);

// Whether [s, end) is UTF-8 as Python decodes it: no surrogates, nothing longer than needed.
bool is_utf8(const uint8_t* s, const uint8_t* end);

}  // namespace popcloud
