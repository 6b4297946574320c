"""Float arithmetic with its roundings written out: what the numpy readings of all ops share."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from popcloud.packed.program import Activation

Floats = NDArray[np.float32]


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


def activate(x: Floats, how: Activation) -> Floats:
    """Return act(x); NaN stays NaN."""
    if how is Activation.RELU:
        return np.where(x < 0, np.float32(0), x)
    if how is Activation.HARDTANH:
        return np.where(x < -1, np.float32(-1), np.where(x > 1, np.float32(1), x))
    return x


def rprelu(x: Floats, shift: Floats, slope: Floats, offset: Floats) -> Floats:
    """Return (x > shift ? x - shift : slope (x - shift)) + offset, each operation rounded (ReActNet 2020)."""
    shifted = x - shift
    bent: Floats = np.where(x > shift, shifted, slope * shifted)
    return bent + offset


def accumulate(x: Floats, weight: Floats, total: Floats) -> Floats:
    """Return total + x @ weight, one fma per input channel, in order."""
    for k in range(len(weight)):
        total = fma(x[:, k, None], weight[k], total)
    return total
