// NEON: a byte lane per output channel.
//
// The processor counts the bits of bytes (vcnt), so a vector holds the same 8 inputs of 16 output channels,
// and the row's byte is broadcast: exclusive or, count, add are 3 operations for 128 binary multiply-adds,
// and no sum across lanes is ever needed.
#include "kernels/sparse.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include "kernels/sum_by_columns.h"
#include "kernels/target.h"

namespace popcloud {
namespace {

constexpr int kVectors = 4;  // vectors of 16 channels in a group of 64
constexpr int kRows = 4;     // rows that share the loads of weights

size_t prepared_bytes(size_t words, size_t channels) { return (channels + 63) / 64 * 64 * words * 8; }

// [group of 64 channels][byte of the row][channel of the group]: 8 inputs in a byte.
void prepare(const uint64_t* bits, size_t words, size_t channels, void* prepared) {
  uint8_t* out = static_cast<uint8_t*>(prepared);
  for (size_t c = 0; c < (channels + 63) / 64 * 64; ++c)
    for (size_t k = 0; k < words; ++k) {
      const uint64_t word = c < channels ? bits[k * channels + c] : 0;  // padding: never read as an answer
      for (size_t i = 0; i < 8; ++i)
        out[((c / 64 * words + k) * 8 + i) * 64 + c % 64] = uint8_t(word >> (8 * i));
    }
}

#include "kernels/groups.inc"

// A row's counts with a group, in the order of the channels.
struct Bytes {
  uint8x16_t part[kVectors];
};
struct Shorts {
  uint16x8_t part[2 * kVectors];
};

POPCLOUD_INLINE void get(const Block& m, Bytes& x) {
  POPCLOUD_UNROLL
  for (int i = 0; i < kVectors; ++i) x.part[i] = vld1q_u8(reinterpret_cast<const uint8_t*>(m.lanes) + 16 * i);
}
POPCLOUD_INLINE void get(const Block& m, Shorts& x) {
  POPCLOUD_UNROLL
  for (int i = 0; i < 2 * kVectors; ++i) x.part[i] = vreinterpretq_u16_s16(vld1q_s16(m.lanes + 8 * i));
}
POPCLOUD_INLINE void put(Block& m, const Bytes& x) {
  POPCLOUD_UNROLL
  for (int i = 0; i < kVectors; ++i) vst1q_u8(reinterpret_cast<uint8_t*>(m.lanes) + 16 * i, x.part[i]);
}
POPCLOUD_INLINE void put(Block& m, const Shorts& x) {
  POPCLOUD_UNROLL
  for (int i = 0; i < 2 * kVectors; ++i) vst1q_s16(m.lanes + 8 * i, vreinterpretq_s16_u16(x.part[i]));
}

inline int32_t get_one(const Block& m, size_t c, const Bytes*) {
  return reinterpret_cast<const uint8_t*>(m.lanes)[c];
}
inline int32_t get_one(const Block& m, size_t c, const Shorts*) { return m.lanes[c]; }
inline void put_one(Block& m, size_t c, int32_t v, const Bytes*) {
  reinterpret_cast<uint8_t*>(m.lanes)[c] = uint8_t(v);
}
inline void put_one(Block& m, size_t c, int32_t v, const Shorts*) { m.lanes[c] = int16_t(v); }

POPCLOUD_INLINE Bytes smaller(const Bytes& x, const Bytes& y) {
  Bytes least;
  POPCLOUD_UNROLL
  for (int i = 0; i < kVectors; ++i) least.part[i] = vminq_u8(x.part[i], y.part[i]);
  return least;
}
POPCLOUD_INLINE Shorts smaller(const Shorts& x, const Shorts& y) {
  Shorts least;
  POPCLOUD_UNROLL
  for (int i = 0; i < 2 * kVectors; ++i) least.part[i] = vminq_u16(x.part[i], y.part[i]);
  return least;
}

// One bit of each of 64 bytes that are 0 or 255: keep bit i % 8 of byte i, then add neighbours three times.
POPCLOUD_INLINE uint64_t one_bit_each(const uint8x16_t (&byte)[kVectors]) {
  const uint8x16_t keep = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
  const uint8x16_t low = vpaddq_u8(vandq_u8(byte[0], keep), vandq_u8(byte[1], keep));
  const uint8x16_t high = vpaddq_u8(vandq_u8(byte[2], keep), vandq_u8(byte[3], keep));
  const uint8x16_t quarter = vpaddq_u8(low, high);
  return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(quarter, quarter)), 0);
}

POPCLOUD_INLINE uint64_t reaches(const Bytes& x, const Bytes& y) {
  uint8x16_t yes[kVectors];
  POPCLOUD_UNROLL
  for (int i = 0; i < kVectors; ++i) yes[i] = vcgeq_u8(x.part[i], y.part[i]);
  return one_bit_each(yes);
}
POPCLOUD_INLINE uint64_t reaches(const Shorts& x, const Shorts& y) {
  uint8x16_t yes[kVectors];
  POPCLOUD_UNROLL
  for (int i = 0; i < kVectors; ++i)
    yes[i] = vcombine_u8(vmovn_u16(vcgeq_u16(x.part[2 * i], y.part[2 * i])),
                         vmovn_u16(vcgeq_u16(x.part[2 * i + 1], y.part[2 * i + 1])));
  return one_bit_each(yes);
}

// 8 bits to 16.
POPCLOUD_INLINE void widen(const Bytes& x, Shorts& wide) {
  POPCLOUD_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    wide.part[2 * i] = vmovl_u8(vget_low_u8(x.part[i]));
    wide.part[2 * i + 1] = vmovl_high_u8(x.part[i]);
  }
}

// 16 bits to the 32 of the answer.
POPCLOUD_INLINE void spread(const Shorts& x, int32_t* out) {
  POPCLOUD_UNROLL
  for (int i = 0; i < 2 * kVectors; ++i) {
    vst1q_s32(out + 8 * i, vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(x.part[i]))));
    vst1q_s32(out + 8 * i + 4, vreinterpretq_s32_u32(vmovl_high_u16(x.part[i])));
  }
}
POPCLOUD_INLINE void spread(const Bytes& x, int32_t* out) {
  Shorts wide;
  widen(x, wide);
  spread(wide, out);
}

// kCount rows, `stride` words apart, against a group; `words` is at most kByteWords.
template <int kCount>
POPCLOUD_INLINE void count(const uint8_t* weights, const uint64_t* x, size_t stride, size_t words,
                           Bytes (&out)[kCount]) {
  POPCLOUD_UNROLL
  for (int r = 0; r < kCount; ++r) {
    POPCLOUD_UNROLL
    for (int i = 0; i < kVectors; ++i) out[r].part[i] = vdupq_n_u8(0);
  }
  const uint8_t* row =
      reinterpret_cast<const uint8_t*>(x);  // little-endian: byte i holds the inputs 8 i to 8 i + 7
  for (size_t k = 0; k < 8 * words; ++k) {
    uint8x16_t weight[kVectors];  // one load of weights serves all rows, one broadcast all vectors
    POPCLOUD_UNROLL
    for (int i = 0; i < kVectors; ++i) weight[i] = vld1q_u8(weights + k * kGroup + size_t(i) * 16);
    POPCLOUD_UNROLL
    for (int r = 0; r < kCount; ++r) {
      const uint8x16_t eight = vld1q_dup_u8(row + size_t(r) * stride * 8 + k);
      POPCLOUD_UNROLL
      for (int i = 0; i < kVectors; ++i)
        out[r].part[i] = vaddq_u8(out[r].part[i], vcntq_u8(veorq_u8(weight[i], eight)));
    }
  }
}

// Longer rows: bytes for kByteWords words at a time, then added up in 16 bits.
template <int kCount>
POPCLOUD_INLINE void count(const uint8_t* weights, const uint64_t* x, size_t stride, size_t words,
                           Shorts (&out)[kCount]) {
  POPCLOUD_UNROLL
  for (int r = 0; r < kCount; ++r)
    widen(Bytes{{vdupq_n_u8(0), vdupq_n_u8(0), vdupq_n_u8(0), vdupq_n_u8(0)}}, out[r]);
  for (size_t k = 0; k < words; k += kByteWords) {
    Bytes bytes[kCount];
    const size_t some = words - k < kByteWords ? words - k : kByteWords;
    count<kCount>(weights + k * 8 * kGroup, x + k, stride, some, bytes);
    POPCLOUD_UNROLL
    for (int r = 0; r < kCount; ++r) {
      POPCLOUD_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        out[r].part[2 * i] = vaddw_u8(out[r].part[2 * i], vget_low_u8(bytes[r].part[i]));
        out[r].part[2 * i + 1] = vaddw_high_u8(out[r].part[2 * i + 1], bytes[r].part[i]);
      }
    }
  }
}

// kCount rows against a group.
template <int kCount, class Answer>
POPCLOUD_INLINE void tile(const uint8_t* weights, const uint64_t* x, size_t row, size_t group, size_t words,
                          Answer& answer) {
  typename Answer::Counts counts[kCount];
  count<kCount>(weights + group * words * 8 * kGroup, x + row * words, words, words, counts);
  POPCLOUD_UNROLL
  for (int r = 0; r < kCount; ++r) answer.take(row + size_t(r), group, counts[r]);
}

// Group by group, so that a group's weights stay in the first cache over all rows.
template <class Answer>
void walk(const uint64_t* x, size_t rows, size_t words, const uint8_t* weights, size_t groups,
          Answer& answer) {
  for (size_t g = 0; g < groups; ++g) {
    size_t r = 0;
    for (; r + kRows <= rows; r += kRows) tile<kRows>(weights, x, r, g, words, answer);
    for (; r < rows; ++r) tile<1>(weights, x, r, g, words, answer);
  }
}

// Floats: a lane per channel here too, so each number keeps its own chain of fused multiply-adds.

constexpr size_t kFloats = 4;

// Comparisons and selections as the contract words them: NaN and -0 pass through.
POPCLOUD_INLINE float32x4_t activate(float32x4_t x, Activation act) {
  const float32x4_t zero = vdupq_n_f32(0), one = vdupq_n_f32(1), minus = vdupq_n_f32(-1);
  if (act == Activation::kRelu) return vbslq_f32(vcltq_f32(x, zero), zero, x);
  if (act == Activation::kHardtanh)
    return vbslq_f32(vcltq_f32(x, minus), minus, vbslq_f32(vcgtq_f32(x, one), one, x));
  return x;
}

// The first `live` of 4 floats; the others are 0. NEON has no masked
// loads, and memory beyond may not be there.
POPCLOUD_INLINE float32x4_t load_some(const float* from, size_t live) {
  if (live >= kFloats) return vld1q_f32(from);
  float lanes[kFloats] = {};
  for (size_t i = 0; i < live; ++i) lanes[i] = from[i];
  return vld1q_f32(lanes);
}
POPCLOUD_INLINE void store_some(float* to, size_t live, float32x4_t v) {
  if (live >= kFloats) return vst1q_f32(to, v);
  float lanes[kFloats];
  vst1q_f32(lanes, v);
  for (size_t i = 0; i < live; ++i) to[i] = lanes[i];
}

// The arguments of `linear`, as every tile needs them.
struct Linear {
  const float *x, *w, *bias;
  size_t inputs, channels;
  Activation act;
  float* out;
};

// kCount rows from r on, kWide vectors of 4 channels from c on; the last has `live` channels.
template <int kCount, int kWide>
POPCLOUD_INLINE void linear_tile(const Linear& p, size_t r, size_t c, size_t live) {
  float32x4_t sum[kCount][kWide], weight[kWide];
  POPCLOUD_UNROLL
  for (int v = 0; v < kWide; ++v) {
    const size_t lanes = v == kWide - 1 ? live : kFloats;
    const float32x4_t start = p.bias ? load_some(p.bias + c + size_t(v) * kFloats, lanes) : vdupq_n_f32(0);
    POPCLOUD_UNROLL
    for (int i = 0; i < kCount; ++i) sum[i][v] = start;
  }
  // Every sum takes the inputs in their order; the tile only says which sums are in registers meanwhile.
  for (size_t k = 0; k < p.inputs; ++k) {
    POPCLOUD_UNROLL
    for (int v = 0; v < kWide; ++v)
      weight[v] = load_some(p.w + k * p.channels + c + size_t(v) * kFloats, v == kWide - 1 ? live : kFloats);
    POPCLOUD_UNROLL
    for (int i = 0; i < kCount; ++i) {
      const float x = p.x[(r + size_t(i)) * p.inputs + k];
      POPCLOUD_UNROLL
      for (int v = 0; v < kWide; ++v) sum[i][v] = vfmaq_n_f32(sum[i][v], weight[v], x);
    }
  }
  POPCLOUD_UNROLL
  for (int i = 0; i < kCount; ++i) {
    float* out = p.out + (r + size_t(i)) * p.channels + c;
    POPCLOUD_UNROLL
    for (int v = 0; v < kWide; ++v)
      store_some(out + size_t(v) * kFloats, v == kWide - 1 ? live : kFloats, activate(sum[i][v], p.act));
  }
}

template <int kCount>
POPCLOUD_INLINE void linear_rows(const Linear& p, size_t r) {
  size_t c = 0;
  for (; c + 16 <= p.channels; c += 16) linear_tile<kCount, 4>(p, r, c, kFloats);
  for (; c < p.channels; c += kFloats) linear_tile<kCount, 1>(p, r, c, p.channels - c);
}

void linear(const float* x, size_t rows, size_t inputs, const float* w, const float* bias, size_t channels,
            Activation act, float* out) {
  const Linear p{x, w, bias, inputs, channels, act, out};
  size_t r = 0;
  for (; r + 4 <= rows; r += 4) linear_rows<4>(p, r);  // 16 sums, 4 weights: of 32 registers
  for (; r < rows; ++r) linear_rows<1>(p, r);
}

// A comparison with NaN is false, as the contract has it.
void binarize(const float* x, size_t rows, size_t channels, const float* threshold, uint64_t* out) {
  const uint32_t place[kFloats] = {1, 2, 4, 8};
  for (size_t r = 0; r < rows; ++r)
    for (size_t word = 0; word * 64 < channels; ++word) {
      uint64_t bits = 0;
      for (size_t c = word * 64; c < channels && c < word * 64 + 64; c += kFloats) {
        const float32x4_t value = load_some(x + r * channels + c, channels - c);
        const float32x4_t limit = load_some(threshold + c, channels - c);  // beyond it 0 < 0: tail bits are 0
        const uint32x4_t below = vcltq_f32(value, limit);
        bits |= uint64_t{vaddvq_u32(vandq_u32(below, vld1q_u32(place)))} << (c % 64);
      }
      *out++ = bits;
    }
}

void affine(const float* x, size_t rows, size_t channels, const float* scale, const float* bias,
            Activation act, float* out) {
  for (size_t r = 0; r < rows; ++r)
    for (size_t c = 0; c < channels; c += kFloats) {
      const size_t live = channels - c;
      const float32x4_t y = vfmaq_f32(load_some(bias + c, live), load_some(scale + c, live),
                                      load_some(x + r * channels + c, live));
      store_some(out + r * channels + c, live, activate(y, act));
    }
}

bool supported() { return true; }  // NEON is part of aarch64

}  // namespace

const KernelTable kNeon{"neon",
                        supported,
                        prepared_bytes,
                        prepare,
                        mismatches,
                        threshold,
                        minimum,
                        sum_by_columns,
                        linear,
                        binarize,
                        affine,
                        neon::sparse_conv,
                        neon::sparse_weight_grad,
                        neon::sum_floats,
                        portable::pick,
                        neon::sign_kernel_bytes,
                        neon::prepare_sign_kernel,
                        neon::sum_signs,
                        neon::finish,
                        portable::largest};

}  // namespace popcloud

#else  // another processor's file: present, never chosen

namespace popcloud {
const KernelTable kNeon{"neon",  never,   nullptr, nullptr, nullptr, nullptr, nullptr,
                        nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                        nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
}  // namespace popcloud

#endif
