"""What each Op means: one plain numpy function per Op; of those on points in `points.py`, on a grid in `sites.py`.

This is the slow reading of a program, the one the others are held to: the engine gives the same bits, floats
included. Speed is not its business, order is: every sum runs in the order that `packed/program.py` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from popcloud.cloud import prepare, prepare_rows
from popcloud.errors import CloudError
from popcloud.packed.bits import mismatches, pack, pack_minus, words
from popcloud.packed.program import Activation, Array, Kind, Op, Program, Rows, Sampling, Value
from popcloud.runtime import points
from popcloud.runtime.arithmetic import Floats, accumulate, activate, fma
from popcloud.runtime.arithmetic import rprelu as bent

Integers = NDArray[np.int64]
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Layer:
    """A step as its function sees it.

    blobs       constants by name
    activation  what follows
    channels    of the first input; signs, not words
    pooled      rows of which a pool makes one; 0: all
    """

    blobs: dict[str, Array]
    activation: Activation
    channels: int
    pooled: int = 0


def run(program: Program, cloud: ArrayLike) -> Floats:
    """Return the answer (classes,) to one cloud (n, 3), which is resampled and normalised as the program says.

    On points the cloud is (n, features), x, y, z first, and the answer may be (n, classes), a row per point: then it is
    not resampled. Raises CloudError if the cloud is empty, not finite, of another width or too small.
    """
    output = program.steps[-1].output
    answer: Floats = values(program, cloud)[output]
    return answer[0] if program.values[output].rows is Rows.CLOUD else answer


def values(program: Program, cloud: ArrayLike) -> list[Array]:
    """Return all values of a run in the order of Program.values; the first is the cloud as the network sees it.

    FLOAT values are float32 (rows, channels), BITS values uint64 (rows, words), INDEX values int32 (rows, channels).
    Raises CloudError as `run`.
    """
    made_ready = prepare_rows if isinstance(program.plan, Sampling) else prepare
    per_point = program.values[program.steps[-1].output].rows is Rows.POINT
    found: dict[int, Array] = {0: made_ready(cloud, 0 if per_point else program.points, program.normalize)}
    for index, each in enumerate(program.steps):
        found[each.output] = step(program, index, [found[i] for i in each.inputs], len(found[0]))
    return [found[i] for i in range(len(program.values))]


def step(program: Program, index: int, inputs: list[Array], rows: int) -> Array:
    """Return the output of step `index` alone, from its inputs and the number of points.

    Raises CloudError if an input is not as Program.values says, or the cloud is too small for a search.
    """
    this = program.steps[index]
    read, written = tuple(program.values[at] for at in this.inputs), program.values[this.output]
    plan = program.plan if isinstance(program.plan, Sampling) else Sampling()
    for value, x in zip(read, inputs, strict=True):
        check(value, x, plan.count(rows, value.level) * value.each if value.rows is Rows.POINT else 1)
        if value.kind is Kind.INDEX:
            check_index(value, x, len(inputs[0]))  # of GATHER, nobody else reads any
    with np.errstate(all="ignore"):  # infinities and NaN go their way in silence, as in the engine
        if this.op in points.OPS:
            return _on_points(points.PointStep(this, read, written, plan.count(rows, written.level)), inputs)
        pooled = read[0].each if written.rows is Rows.POINT else 0
        return OPS[this.op](Layer(this.blobs, this.activation, read[0].channels, pooled), *inputs)


def _on_points(this: points.PointStep, inputs: list[Array]) -> Array:
    try:
        return points.OPS[this.step.op](this, *inputs)
    except CloudError as error:
        raise CloudError(f"layer {this.output.name!r}: {error}") from error


def linear(this: Layer, x: Floats) -> Floats:
    """LINEAR: a float matrix product, one input channel after the other; weights of float16 are widened, exactly."""
    weight, bias = this.blobs["weight"].astype(np.float32, copy=False), this.blobs["bias"]
    total: Floats = np.repeat(bias[None], len(x), axis=0)
    return activate(accumulate(x, weight, total), this.activation)


def binarize(this: Layer, x: Floats) -> Words:
    """BINARIZE: signs against a threshold per channel."""
    return pack(x, this.blobs["threshold"])


def affine(this: Layer, x: Floats) -> Floats:
    """AFFINE: scale and bias per channel, or one for all."""
    return scaled(this, x)


def rprelu(this: Layer, x: Floats) -> Floats:
    """RPRELU: shift, a slope for what is below, offset."""
    return bent(x, this.blobs["shift"], this.blobs["slope"], this.blobs["offset"])


def transform(this: Layer, x: Floats, m: Floats) -> Floats:
    """TRANSFORM: every row times (m + identity), a matrix that the network made of the whole cloud."""
    size = x.shape[1]
    matrix = m.reshape(size, size) + np.eye(size, dtype=np.float32)
    return accumulate(x, matrix, np.zeros_like(x))


def pool_max(this: Layer, x: Floats) -> Floats:
    """POOL_MAX: the largest of each channel."""
    largest: Floats = _pooled(this, x).max(axis=1)
    return largest


def pool_mean(this: Layer, x: Floats) -> Floats:
    """POOL_MEAN: the mean of each channel, summed in row order in float64."""
    rows = _pooled(this, x)
    mean: Floats = (_total(rows, axis=1) / rows.shape[1]).astype(np.float32)
    return mean


def row_mean_abs(this: Layer, x: Floats) -> Floats:
    """ROW_MEAN_ABS: the mean magnitude of each row, summed in channel order in float64 (XNOR-Net, sec. 3.2)."""
    mean: Floats = (_total(np.abs(x), axis=1) / x.shape[1]).astype(np.float32)
    return mean[:, None]


def binary_linear(this: Layer, x: Words, row: Floats | None = None) -> Floats:
    """BINARY_LINEAR: the products of signs, per row times `row` (R, 1) if there is one, then scale and bias."""
    d = dots(this, x).astype(np.float32)
    return scaled(this, d if row is None else d * row)


def binary_linear_bits(this: Layer, x: Words) -> Words:
    """BINARY_LINEAR_BITS: signs of the products, against a limit of mismatches."""
    return pack_minus(mismatches(x, this.blobs["weight"]) > this.blobs["limit"])


def binary_max(this: Layer, x: Words) -> Floats:
    """BINARY_MAX: the largest product over the rows."""
    return scaled(this, _pooled(this, dots(this, x)).max(axis=1).astype(np.float32))


def binary_max_bits(this: Layer, x: Words) -> Words:
    """BINARY_MAX_BITS: the sign of the largest product over the rows, which has the fewest mismatches."""
    least = _pooled(this, mismatches(x, this.blobs["weight"])).min(axis=1)
    return pack_minus(least > this.blobs["limit"])


def binary_mean(this: Layer, x: Words) -> Floats:
    """BINARY_MEAN: the mean product over the rows."""
    return scaled(this, mean_dot(this, x))


def binary_mean_bits(this: Layer, x: Words) -> Words:
    """BINARY_MEAN_BITS: the sign of the mean product over the rows."""
    return pack(mean_dot(this, x), this.blobs["threshold"])


def dots(this: Layer, x: Words) -> Integers:
    """Return the exact products of signs (R, C)."""
    return this.channels - 2 * mismatches(x, this.blobs["weight"])


def mean_dot(this: Layer, x: Words) -> Floats:
    """Return the products' mean over the rows of each pool (pools, C): an exact sum, rounded, divided in float32."""
    rows = _pooled(this, dots(this, x))
    total = rows.sum(axis=1)  # of integers: no order to keep
    mean: Floats = total.astype(np.float32) / np.float32(rows.shape[1])
    return mean


def scaled(this: Layer, d: Floats) -> Floats:
    """Return act(scale * d + bias)."""
    return activate(fma(this.blobs["scale"], d, this.blobs["bias"]), this.activation)


OPS: dict[Op, Callable[..., Array]] = {
    Op.LINEAR: linear,
    Op.BINARIZE: binarize,
    Op.AFFINE: affine,
    Op.RPRELU: rprelu,
    Op.TRANSFORM: transform,
    Op.POOL_MAX: pool_max,
    Op.POOL_MEAN: pool_mean,
    Op.ROW_MEAN_ABS: row_mean_abs,
    Op.BINARY_LINEAR: binary_linear,
    Op.BINARY_LINEAR_BITS: binary_linear_bits,
    Op.BINARY_MAX: binary_max,
    Op.BINARY_MAX_BITS: binary_max_bits,
    Op.BINARY_MEAN: binary_mean,
    Op.BINARY_MEAN_BITS: binary_mean_bits,
}
DTYPES = {Kind.FLOAT: np.dtype(np.float32), Kind.BITS: np.dtype(np.uint64), Kind.INDEX: np.dtype(np.int32)}


def check(value: Value, x: Array, rows: int) -> None:
    """Raise CloudError if `x` is not what the value says, with that many rows."""
    shape = (rows, words(value.channels) if value.kind is Kind.BITS else value.channels)
    dtype = DTYPES[value.kind]
    if x.shape != shape or x.dtype != dtype:
        raise CloudError(f"value {value.name!r}: expected {dtype} {shape}, found {x.dtype} {x.shape}")


def check_index(value: Value, x: Array, rows: int) -> None:
    """Raise CloudError if an index (rows, k) names a row that a value of so many rows has not."""
    if x.min() < 0 or x.max() >= rows:
        raise CloudError(f"value {value.name!r}: expected rows of 0 to {rows - 1}, found {x.min()} to {x.max()}")


def _pooled(this: Layer, x: Array) -> Array:
    """Return x (R, C) as (pools, rows, C)."""
    return x.reshape(-1, this.pooled or len(x), x.shape[1])


def _total(x: Floats, axis: int) -> NDArray[np.float64]:
    """Return the sum along an axis, in order: np.sum may take another one."""
    total: NDArray[np.float64] = np.add.accumulate(x, axis=axis, dtype=np.float64).take(-1, axis=axis)
    return total
