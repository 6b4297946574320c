"""Float arithmetic with its roundings written out: the same bits on any machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
