"""Float arithmetic with its roundings written out: what the numpy readings of all ops share."""

from __future__ import annotations

import numpy as np

from popcloud.geometry.rounding import Floats, exp, fma, sigmoid
from popcloud.packed.program import Activation

__all__ = ["Floats", "accumulate", "activate", "exp", "fma", "rprelu", "sigmoid"]


def activate(x: Floats, how: Activation) -> Floats:
    """Return act(x); NaN stays NaN."""
    if how is Activation.RELU:
        return np.where(x < 0, np.float32(0), x)
    if how is Activation.HARDTANH:
        return np.where(x < -1, np.float32(-1), np.where(x > 1, np.float32(1), x))
    if how is Activation.SIGMOID:
        return sigmoid(x)
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
