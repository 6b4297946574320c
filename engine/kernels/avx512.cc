// AVX-512 with VPOPCNTDQ: a lane per output channel.
//
// A vector holds the same word of 8 neighbouring output channels, as the bits lie in the model file, so
// nothing has to be prepared. The words of the 8 channels stay in registers while all rows pass by: xor with
// the row's word, popcount, add. No sum across lanes is ever needed, and comparing the counts gives 8 output
// bits as a mask.
#include "kernels/sparse.h"

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)  // GCC 12 warns of its own _mm512_undefined_* (its bug 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "kernels/target.h"

namespace popcloud {
namespace {

constexpr size_t kLanes = 8;     // output channels of a vector of counts
constexpr size_t kMaxHeld = 16;  // words of weights that fit registers beside the counts

size_t prepared_bytes(size_t, size_t) { return 0; }
void prepare(const uint64_t*, size_t, size_t, void*) {}

POPCLOUD_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq")

// The weights of 8 output channels: kWords words in registers, or, with kWords = 0, any number in memory.
template <int kWords>
struct Column {
  __m512i held[kWords ? kWords : 1];
  const uint64_t* bits;
  size_t words, stride;
  __mmask8 live;  // lanes that are channels
};

// Lanes that are no channels load as 0 instead of from beyond the matrix; their counts are not used.
template <int kWords>
POPCLOUD_INLINE Column<kWords> column_at(const PackedMatrix& w, size_t channel, __mmask8 live) {
  Column<kWords> column;
  column.bits = w.bits + channel, column.words = w.words, column.stride = w.channels, column.live = live;
  POPCLOUD_UNROLL
  for (int k = 0; k < kWords; ++k)
    column.held[k] = _mm512_maskz_loadu_epi64(live, column.bits + size_t(k) * w.channels);
  return column;
}

// In how many inputs the word of a row differs from the word of each channel.
POPCLOUD_INLINE __m512i differ(__m512i weights, uint64_t word) {
  return _mm512_popcnt_epi64(_mm512_xor_si512(weights, _mm512_set1_epi64(int64_t(word))));
}

// A row's mismatches with the 8 channels. 64-bit lanes never overflow, however many words there are.
template <int kWords>
POPCLOUD_INLINE __m512i count(const Column<kWords>& column, const uint64_t* row) {
  __m512i sum = _mm512_setzero_si512();
  POPCLOUD_UNROLL
  for (int k = 0; k < kWords; ++k) sum = _mm512_add_epi64(sum, differ(column.held[k], row[k]));
  if (kWords == 0)
    for (size_t k = 0; k < column.words; ++k)
      sum = _mm512_add_epi64(
          sum, differ(_mm512_maskz_loadu_epi64(column.live, column.bits + k * column.stride), row[k]));
  return sum;
}

// What becomes of the counts of 8 channels: built once for the channels, `take` gets each row, `end` writes.

// The counts themselves.
struct Mismatches {
  int32_t* out;
  size_t channels;
  __mmask8 live;

  void take(size_t row, __m512i counts) {
    _mm256_mask_storeu_epi32(out + row * channels, live, _mm512_cvtepi64_epi32(counts));
  }
  void end() {}
};

// One byte of the answer per row. Eight of these write a word, one after the other.
struct Threshold {
  uint8_t* out;  // the byte of the 8 channels in row 0: this processor's words start with their lowest bits
  size_t stride;
  __mmask8 live;
  __m512i limit;

  void take(size_t row, __m512i counts) {
    out[row * stride] = uint8_t(_mm512_mask_cmpgt_epi64_mask(live, counts, limit));
  }
  void end() {}
};

// The least stays in a register over all rows.
struct Minimum {
  int32_t* out;
  __mmask8 live;
  __m512i least;

  void take(size_t, __m512i counts) { least = _mm512_min_epi64(least, counts); }
  void end() { _mm256_mask_storeu_epi32(out, live, _mm512_cvtepi64_epi32(least)); }
};

// The least and its row; a type of its own, so that those who need no row pay nothing for it.
struct MinimumWhere {
  int32_t *out, *out_where;
  __mmask8 live;
  __m512i least, where;

  void take(size_t row, __m512i counts) {
    const __mmask8 better = _mm512_cmpgt_epi64_mask(least, counts);  // strictly: the first row stays
    least = _mm512_min_epi64(least, counts);
    where = _mm512_mask_mov_epi64(where, better, _mm512_set1_epi64(int64_t(row)));
  }
  void end() {
    _mm256_mask_storeu_epi32(out, live, _mm512_cvtepi64_epi32(least));
    _mm256_mask_storeu_epi32(out_where, live, _mm512_cvtepi64_epi32(where));
  }
};

// Unlike the minimum this could be had without any row's count, see
// sum_by_columns.h; here a row's count is cheap.
struct Sum {
  int64_t* out;
  __mmask8 live;
  __m512i total;

  void take(size_t, __m512i counts) { total = _mm512_add_epi64(total, counts); }
  void end() { _mm512_mask_storeu_epi64(out, live, total); }
};

// Answer by value: a copy that no pointer knows stays in registers.
template <int kWords, class Answer>
void walk_held(const uint64_t* x, size_t rows, const PackedMatrix& w, size_t channel, Answer answer) {
  const Column<kWords> column = column_at<kWords>(w, channel, answer.live);
  for (size_t r = 0; r < rows; ++r) answer.take(r, count<kWords>(column, x + r * w.words));
  answer.end();
}

// The rows against the 8 channels, with the loop that fits the number of words.
template <int kWords, class Answer>
void walk(const uint64_t* x, size_t rows, const PackedMatrix& w, size_t channel, const Answer& answer) {
  // Unrolled for each number of words up to kMaxHeld, then one loop for all longer rows.
  if (w.words == size_t(kWords) || kWords == 0) return walk_held<kWords>(x, rows, w, channel, answer);
  walk<kWords ? kWords - 1 : 0>(x, rows, w, channel, answer);
}

template <class Answer>
void walk_any(const uint64_t* x, size_t rows, const PackedMatrix& w, size_t channel, const Answer& answer) {
  walk<kMaxHeld>(x, rows, w, channel, answer);
}

// Which of the 8 lanes from `channel` on are output channels of `at`.
POPCLOUD_INLINE __mmask8 live_at(size_t channel, Channels at) {
  return at.last - channel >= kLanes ? __mmask8(255) : __mmask8((1u << (at.last - channel)) - 1);
}

void mismatches(const uint64_t* x, size_t rows, const PackedMatrix& w, Channels at, int32_t* out) {
  for (size_t c = at.first; c < at.last; c += kLanes)
    walk_any(x, rows, w, c, Mismatches{out + c, w.channels, live_at(c, at)});
}

void threshold(const uint64_t* x, size_t rows, const PackedMatrix& w, Channels at, const int32_t* limit,
               uint64_t* out) {
  const size_t words = (w.channels + 63) / 64, last = (at.last + 63) / 64 * 64;
  for (size_t c = at.first; c < last; c += kLanes) {
    uint8_t* byte = reinterpret_cast<uint8_t*>(out) + c / kLanes;
    if (c < at.last) {
      const __mmask8 live = live_at(c, at);
      const __m512i limits = _mm512_cvtepi32_epi64(_mm256_maskz_loadu_epi32(live, limit + c));
      walk_any(x, rows, w, c, Threshold{byte, words * 8, live, limits});
    } else {
      for (size_t r = 0; r < rows; ++r) byte[r * words * 8] = 0;  // the rest of the last word
    }
  }
}

void minimum(const uint64_t* x, size_t rows, const PackedMatrix& w, Channels at, int32_t* least,
             int32_t* where) {
  const __m512i most = _mm512_set1_epi64(INT64_MAX), zero = _mm512_setzero_si512();
  for (size_t c = at.first; c < at.last; c += kLanes) {
    const __mmask8 live = live_at(c, at);
    if (where)
      walk_any(x, rows, w, c, MinimumWhere{least + c, where + c, live, most, zero});
    else
      walk_any(x, rows, w, c, Minimum{least + c, live, most});
  }
}

void sum(const uint64_t* x, size_t rows, const PackedMatrix& w, Channels at, int64_t* total) {
  for (size_t c = at.first; c < at.last; c += kLanes)
    walk_any(x, rows, w, c, Sum{total + c, live_at(c, at), _mm512_setzero_si512()});
}

// Floats: a lane per channel here too, so each number keeps its own chain of fused multiply-adds.

constexpr size_t kFloats = 16;

POPCLOUD_INLINE __mmask16 first_lanes(size_t channel, size_t channels) {
  const size_t left = channel < channels ? channels - channel : 0;
  return left >= kFloats ? __mmask16(0xffff) : __mmask16((1u << left) - 1);
}

// `max` and `min` give their second operand for NaN and for two zeros: as in the contract, both pass through.
POPCLOUD_INLINE __m512 activate(__m512 x, Activation act) {
  if (act == Activation::kRelu) return _mm512_max_ps(_mm512_setzero_ps(), x);
  if (act == Activation::kHardtanh)
    return _mm512_min_ps(_mm512_set1_ps(1), _mm512_max_ps(_mm512_set1_ps(-1), x));
  return x;
}

// The arguments of `linear`, as every tile needs them.
struct Linear {
  const float *x, *w, *bias;
  size_t inputs, channels;
  Activation act;
  float* out;
};

// kRows rows from r on, kVectors vectors of 16 channels from c on; lanes beyond the channels are masked.
template <int kRows, int kVectors>
POPCLOUD_INLINE void linear_tile(const Linear& p, size_t r, size_t c) {
  __mmask16 live[kVectors];
  __m512 sum[kRows][kVectors], weight[kVectors];
  POPCLOUD_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const size_t channel = c + size_t(v) * kFloats;
    live[v] = first_lanes(channel, p.channels);
    const __m512 start = p.bias ? _mm512_maskz_loadu_ps(live[v], p.bias + channel) : _mm512_setzero_ps();
    POPCLOUD_UNROLL
    for (int i = 0; i < kRows; ++i) sum[i][v] = start;
  }
  // Every sum takes the inputs in their order; the tile only says which sums are in registers meanwhile.
  for (size_t k = 0; k < p.inputs; ++k) {
    POPCLOUD_UNROLL
    for (int v = 0; v < kVectors; ++v)
      weight[v] = _mm512_maskz_loadu_ps(live[v], p.w + k * p.channels + c + size_t(v) * kFloats);
    POPCLOUD_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const __m512 x = _mm512_set1_ps(p.x[(r + size_t(i)) * p.inputs + k]);
      POPCLOUD_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[i][v] = _mm512_fmadd_ps(x, weight[v], sum[i][v]);
    }
  }
  POPCLOUD_UNROLL
  for (int i = 0; i < kRows; ++i) {
    float* out = p.out + (r + size_t(i)) * p.channels + c;
    POPCLOUD_UNROLL
    for (int v = 0; v < kVectors; ++v)
      _mm512_mask_storeu_ps(out + size_t(v) * kFloats, live[v], activate(sum[i][v], p.act));
  }
}

void linear(const float* x, size_t rows, size_t inputs, const float* w, const float* bias, size_t channels,
            Activation act, float* out) {
  const Linear p{x, w, bias, inputs, channels, act, out};
  size_t r = 0;
  for (; r + 8 <= rows; r += 8)  // 8 x 2 sums leave registers for the weights and hide the latency
    for (size_t c = 0; c < channels; c += 2 * kFloats) linear_tile<8, 2>(p, r, c);
  for (; r < rows; ++r)
    for (size_t c = 0; c < channels; c += 8 * kFloats) linear_tile<1, 8>(p, r, c);
}

// _CMP_LT_OQ: ordered, so that NaN is not below anything.
void binarize(const float* x, size_t rows, size_t channels, const float* threshold, uint64_t* out) {
  for (size_t r = 0; r < rows; ++r)
    for (size_t word = 0; word * 64 < channels; ++word) {
      uint64_t bits = 0;
      for (size_t c = word * 64; c < channels && c < word * 64 + 64; c += kFloats) {
        const __mmask16 live = first_lanes(c, channels);
        const __m512 value = _mm512_maskz_loadu_ps(live, x + r * channels + c);
        const __m512 limit =
            _mm512_maskz_loadu_ps(live, threshold + c);  // outside the mask 0 < 0: tail bits are 0
        bits |= uint64_t{_mm512_cmp_ps_mask(value, limit, _CMP_LT_OQ)} << (c % 64);
      }
      *out++ = bits;
    }
}

void affine(const float* x, size_t rows, size_t channels, const float* scale, const float* bias,
            Activation act, float* out) {
  for (size_t r = 0; r < rows; ++r)
    for (size_t c = 0; c < channels; c += kFloats) {
      const __mmask16 live = first_lanes(c, channels);
      const __m512 value = _mm512_maskz_loadu_ps(live, x + r * channels + c);
      const __m512 y = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(live, scale + c), value,
                                       _mm512_maskz_loadu_ps(live, bias + c));
      _mm512_mask_storeu_ps(out + r * channels + c, live, activate(y, act));
    }
}

POPCLOUD_TARGET_END

// These also ask whether the operating system saves the wide registers.
bool supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vpopcntdq");
}

}  // namespace

const KernelTable kAvx512{"avx512",
                          supported,
                          prepared_bytes,
                          prepare,
                          mismatches,
                          threshold,
                          minimum,
                          sum,
                          linear,
                          binarize,
                          affine,
                          avx512::sparse_conv,
                          avx512::sparse_weight_grad,
                          avx512::sum_floats,
                          portable::pick,
                          avx512::sign_kernel_bytes,
                          avx512::prepare_sign_kernel,
                          avx512::sum_signs,
                          avx512::finish,
                          portable::largest};

}  // namespace popcloud

#else  // another processor's file: present, never chosen

namespace popcloud {
const KernelTable kAvx512{"avx512", never,   nullptr, nullptr, nullptr, nullptr, nullptr,
                          nullptr,  nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                          nullptr,  nullptr, nullptr, nullptr, nullptr};
}  // namespace popcloud

#endif
