#include "bytes.h"

#include <array>

namespace popcloud {
namespace {

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

}  // namespace

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

bool is_utf8(const uint8_t* s, const uint8_t* end) {
  while (s < end) {
    size_t length = utf8_length(s, end);
    if (length == 0) return false;
    s += length;
  }
  return true;
}

}  // namespace popcloud
