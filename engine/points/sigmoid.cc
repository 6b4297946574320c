#include "points/sigmoid.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace popcloud {
namespace {

constexpr double kLargest = 708.0;  // of exp's argument: 2^n stays a normal number
constexpr double kPerLn2 = 0x1.71547652b82fep+0;
constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 0x1.a39ef35793c76p-33;  // in two parts
constexpr int kTerms = 14;

// 1 / k!, each rounded once.
struct Terms {
  double of[kTerms];
};
constexpr Terms make_terms() {
  Terms terms{};
  double factorial = 1;
  for (int k = 0; k < kTerms; ++k) {
    if (k > 1) factorial *= k;
    terms.of[k] = 1 / factorial;
  }
  return terms;
}
constexpr Terms kSeries = make_terms();

// e^x of a number; Cody and Waite 1980 for the rest r, |r| < 0.35, whose series follows.
double exponential(double x) {
  x = std::min(std::max(x, -kLargest), kLargest);
  const double shifted = x * kPerLn2 + 0.5;
  auto n = static_cast<int64_t>(shifted);
  n -= static_cast<double>(n) > shifted;  // the floor
  const double whole = static_cast<double>(n), r = (x - whole * kLn2High) - whole * kLn2Low;
  double p = kSeries.of[kTerms - 1];
  for (int k = kTerms - 2; k >= 0; --k) p = p * r + kSeries.of[k];
  const uint64_t bits = static_cast<uint64_t>(n + 1023) << 52;
  double power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

}  // namespace

void sigmoid(float* x, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const double minus = -static_cast<double>(x[i]);
    x[i] = static_cast<float>(1 / (1 + (minus == minus ? exponential(minus) : minus)));
  }
}

}  // namespace popcloud
