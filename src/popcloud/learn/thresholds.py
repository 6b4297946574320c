"""Where a sign turns: exact thresholds by bisection against the layer itself, over the values that it can take."""

from __future__ import annotations

import torch
from torch import Tensor

from popcloud.errors import ExportError
from popcloud.learn.bisection import LARGEST, smallest
from popcloud.learn.layers import Layer, PooledLayer, RPReLU
from popcloud.learn.point_layers import RowNorm
from popcloud.learn.sparse_layers import NormAct
from popcloud.packed.program import Array


def mismatch_limit(layer: Layer | PooledLayer, turned: Tensor, threshold: Tensor) -> Array:
    """Return (outputs,) int32: the largest count of mismatches whose output is not below `threshold`, -1 if none.

    turned  (outputs,) -1 where the packed weights are the negated ones
    The output falls as mismatches m rise (d = K - 2 m), so there is one switch at most, and bisection finds it.
    """
    good = torch.full((layer.outputs,), -1, dtype=torch.int64)
    bad = torch.full_like(good, layer.inputs + 1)
    while bool((bad - good > 1).any()):
        middle = (good + bad) // 2
        d = (layer.inputs - 2 * middle).float() * turned
        stays = (layer.tail(d) >= threshold) & (bad - good > 1)
        falls = ~stays & (bad - good > 1)
        good, bad = torch.where(stays, middle, good), torch.where(falls, middle, bad)
    return good.to(torch.int32).numpy()


def mean_threshold(layer: Layer | PooledLayer, turned: Tensor, threshold: Tensor) -> Array:
    """Return (outputs,) float32: the smallest mean d in [-K, K] whose output is not below `threshold`.

    -inf if all are, +inf if none is.
    """
    return smallest(lambda d: layer.tail(d * turned) >= threshold, layer.outputs, float(layer.inputs)).numpy()


def switch(norm: NormAct | RowNorm, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Return (t, flipped), each (channels,): norm(x) >= `threshold` exactly where x >= t, or x < t if flipped.

    t is infinite where the sign never turns. Raises ExportError if the activation may fall.
    """
    if isinstance(norm.activation, RPReLU) and bool((norm.activation.slope < 0).any()):
        raise ExportError("batch norm with RPReLU before a sign is no single switch; use another activation there")
    flipped = norm.norm.folded()[0] < 0
    found = smallest(lambda x: (norm(x[None])[0] >= threshold) ^ flipped, norm.channels, LARGEST)
    return found, flipped
