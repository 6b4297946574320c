"""What the ops on points mean: samples, searches, gathered rows, products per point; one plain numpy function per Op.

As in `reference.py`, which runs them, order is the business here, not speed. Searches are those of
`geometry/neighbors.py`. Ops that know nothing of neighbours are `reference.py`'s, a row like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from popcloud.geometry import neighbors
from popcloud.packed.bits import mismatches, pack_minus, unpack
from popcloud.packed.program import Array, Kind, Op, Rows, Step, Value
from popcloud.runtime.arithmetic import Floats, accumulate, activate, fma

Words = NDArray[np.uint64]
Indices = NDArray[np.int32]


@dataclass(frozen=True)
class PointStep:
    """A step as its function sees it: the step, what its inputs and its output are, points of the output's level."""

    step: Step
    inputs: tuple[Value, ...]
    output: Value
    points: int


def farthest_points(this: PointStep, x: Floats) -> Indices:
    """FARTHEST_POINTS: as many rows as the next level has points (PointNet++, Qi et al. 2017)."""
    return neighbors.farthest_points(x, this.points)[:, None]


def nearest(this: PointStep, queries: Floats, points: Floats) -> Indices:
    """NEAREST: rows of the k nearest positions."""
    return neighbors.nearest(queries, points, this.output.channels, _dilation(this))


def nearest_features(this: PointStep, queries: Floats, points: Floats) -> Indices:
    """NEAREST_FEATURES: rows of the k nearest features (DGCNN, Wang et al. 2019)."""
    return neighbors.nearest_features(queries, points, this.output.channels, _dilation(this))


def nearest_signs(this: PointStep, queries: Words, points: Words) -> Indices:
    """NEAREST_SIGNS: rows of the k features with the fewest signs that differ."""
    return neighbors.nearest_signs(queries, points, this.output.channels, _dilation(this))


def ball(this: PointStep, queries: Floats, points: Floats) -> Indices:
    """BALL: the first k rows within the radius (PointNet++, Qi et al. 2017)."""
    return neighbors.ball(queries, points, this.step.blobs["radius"][0], this.output.channels)


def gather(this: PointStep, x: Array, index: Indices) -> Array:
    """GATHER: the rows that the indices name, those of one point together."""
    return x[index.ravel()]


def subtract(this: PointStep, x: Floats, other: Floats) -> Floats:
    """SUBTRACT: the difference to another value, or to the row of the point."""
    return x - _spread(this, other, 1)


def multiply(this: PointStep, x: Floats, factor: Floats) -> Floats:
    """MULTIPLY: the product with another value, the row of the point, one row for all; or with its one channel."""
    return x * _spread(this, factor, 1)


def reshape(this: PointStep, x: Floats) -> Floats:
    """RESHAPE: the same floats in the same order, in rows of another length."""
    return x.reshape(-1, this.output.channels)


def product(this: PointStep, x: Floats, matrix: Floats) -> Floats:
    """PRODUCT: per point the transposed neighbours times a matrix (PointConv, Wu et al. 2019; PointCNN, Li 2018)."""
    rows = this.inputs[0].each
    x, matrix = x.reshape(-1, rows, x.shape[1]), matrix.reshape(-1, rows, matrix.shape[1])
    total = np.zeros((len(x), x.shape[2], matrix.shape[2]), np.float32)
    for i in range(rows):
        total = fma(x[:, i, :, None], matrix[:, i, None, :], total)
    return total.reshape(len(x), -1)


def density(this: PointStep, x: Floats) -> Floats:
    """DENSITY: how sparse the points are around each (PointConv, Wu et al. 2019, sec. 3.2)."""
    return neighbors.density(x, this.step.blobs["bandwidth"][0])[:, None]


def columns(this: PointStep, x: Floats) -> Floats:
    """SLICE: some channels, side by side."""
    first, count = this.step.blobs["columns"].tolist()
    return np.ascontiguousarray(x[:, first : first + count])


def linear_groups(this: PointStep, x: Floats) -> Floats:
    """LINEAR_GROUPS: a float matrix product per group of channels, one input after the other."""
    weight, bias = this.step.blobs["weight"], this.step.blobs["bias"]
    total = np.repeat(bias[None], len(x), axis=0)
    for read, written in _groups(this):
        total[:, written] = accumulate(x[:, read], weight[:, written], total[:, written])
    return activate(total, this.step.activation)


def binary_groups(this: PointStep, x: Words) -> Floats:
    """BINARY_GROUPS: the products of signs per group of channels, then scale and bias."""
    blobs, signs = this.step.blobs, unpack(x, this.inputs[0].channels)
    d = np.empty((len(x), this.output.channels), np.float32)
    for read, written in _groups(this):
        part = signs[:, read]
        d[:, written] = part.shape[1] - 2 * mismatches(pack_minus(part < 0), blobs["weight"][:, written])
    return activate(fma(blobs["scale"], d, blobs["bias"]), this.step.activation)


def binary_sum(this: PointStep, x: Words, added: Floats | None = None) -> Floats:
    """BINARY_SUM: a weighted sum of the products with several bases (ABC-Net, Lin et al. 2017)."""
    blobs, channels = this.step.blobs, this.output.channels
    d = (this.inputs[0].channels - 2 * mismatches(x, blobs["weight"])).astype(np.float32)
    total: Floats = np.repeat(blobs["bias"][None], len(x), axis=0)
    if added is not None:
        total = added + total
    for base, scale in enumerate(blobs["scale"]):
        total = fma(scale, d[:, base * channels : (base + 1) * channels], total)
    return activate(total, this.step.activation)


def concat(this: PointStep, *parts: Array) -> Array:
    """CONCAT: channels side by side, of floats or of signs; rows of a point, or of the cloud, are repeated."""
    rows = this.points * this.output.each
    spread = [np.broadcast_to(_spread(this, part, i), (rows, part.shape[1])) for i, part in enumerate(parts)]
    if this.output.kind is Kind.FLOAT:
        return np.concatenate(spread, axis=1)
    signs = [unpack(part, value.channels) for part, value in zip(spread, this.inputs, strict=True)]
    return pack_minus(np.concatenate(signs, axis=1) < 0)


OPS: dict[Op, Callable[..., Array]] = {
    Op.FARTHEST_POINTS: farthest_points,
    Op.NEAREST: nearest,
    Op.NEAREST_FEATURES: nearest_features,
    Op.NEAREST_SIGNS: nearest_signs,
    Op.BALL: ball,
    Op.GATHER: gather,
    Op.SUBTRACT: subtract,
    Op.MULTIPLY: multiply,
    Op.RESHAPE: reshape,
    Op.PRODUCT: product,
    Op.DENSITY: density,
    Op.SLICE: columns,
    Op.LINEAR_GROUPS: linear_groups,
    Op.BINARY_GROUPS: binary_groups,
    Op.BINARY_SUM: binary_sum,
    Op.CONCAT: concat,
}


def _dilation(this: PointStep) -> int:
    return int(this.step.blobs["dilation"][0])


def _spread(this: PointStep, x: Array, place: int) -> Array:
    """Return the input at `place` with a row of its point for each of the output's rows; of a CLOUD the one row."""
    value = this.inputs[place]
    return x if value.rows is Rows.CLOUD else np.repeat(x, this.output.each // value.each, axis=0)


def _groups(this: PointStep) -> list[tuple[slice, slice]]:
    """Return the channels that each group reads, and those that it writes."""
    count = int(this.step.blobs["groups"][0])
    read, written = this.inputs[0].channels // count, this.output.channels // count
    return [(slice(g * read, (g + 1) * read), slice(g * written, (g + 1) * written)) for g in range(count)]
