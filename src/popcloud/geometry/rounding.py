"""Float arithmetic with its roundings written out: the same bits on any machine."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]

LARGEST = 708.0  # of exp's argument: 2^n stays a normal number
PER_LN2 = float.fromhex("0x1.71547652b82fep+0")  # 1 / ln 2
LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")  # ln 2 in two parts: n times the first is exact
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
EXP_TERMS = tuple(1 / math.factorial(k) for k in range(14))  # of the series, each rounded once


def fma(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> Floats:
    """Return a * b + c in float32 with one rounding, as std::fma: for float32 arrays that broadcast.

    A product of float32 is exact in float64. The sum may not be, and rounding it twice (to float64, then to float32)
    can miss by one unit; so it is rounded to odd first, which keeps the second rounding right
    (Boldo and Melquiond 2008, Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd).
    """
    product = np.multiply(a, b, dtype=np.float64)
    added = np.asarray(c, dtype=np.float64)
    total = product + added
    part = total - product
    lost = (product - (total - part)) + (added - part)  # total + lost is the sum exactly (Knuth's two-sum)
    inexact = (lost < 0) | (lost > 0)  # NaN beside infinities counts as exact
    even = (total.view(np.int64) & 1) == 0
    odd = np.where(inexact & even, np.nextafter(total, np.copysign(np.inf, lost)), total)
    return odd.astype(np.float32)


def exp(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return e^x in float64, to 1e-15 of it, by operations that round alike everywhere: *, +, -, floor and 2^n.

    x is first clamped to -LARGEST .. LARGEST; NaN stays NaN. Then n = floor(x * PER_LN2 + 0.5),
    r = (x - n * LN2_HIGH) - n * LN2_LOW, and p = EXP_TERMS[13], p = p * r + EXP_TERMS[k] for k = 12 .. 0, where every
    product and every sum rounds (Cody and Waite 1980 for r; |r| < 0.35, where the next term is below 1e-17). The answer
    is p * 2^n, exact.
    """
    x = np.where(x < -LARGEST, -LARGEST, np.where(x > LARGEST, LARGEST, x))
    n = np.floor(x * PER_LN2 + 0.5)
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = np.full_like(r, EXP_TERMS[-1])
    for term in EXP_TERMS[-2::-1]:
        p = p * r + term
    power: NDArray[np.float64] = np.ldexp(p, np.where(np.isnan(n), 0, n).astype(np.int32))
    return power


def sigmoid(x: Floats) -> Floats:
    """Return float32(1 / (1 + exp(-x))), in float64 up to there; NaN stays NaN."""
    y: Floats = (1 / (1 + exp(-np.asarray(x, np.float64)))).astype(np.float32)
    return y
