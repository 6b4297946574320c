"""A network as a flat list: values, steps, blobs.

Every Op is defined here in words, in `runtime/reference.py` in numpy and in `engine/` in C++. The bit convention is
`packed/bits.py`'s: bit 1 means -1, channel 0 is the lowest bit of word 0, tail bits are 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


class Kind(IntEnum):
    """What the elements of a value are."""

    FLOAT = 0  # float32 (rows, channels)
    BITS = 1  # uint64 (rows, ceil(channels / 64))


class Rows(IntEnum):
    """How many rows a value has."""

    POINT = 0  # one per point of the cloud
    CLOUD = 1  # one


class Activation(IntEnum):
    """What follows an affine map."""

    NONE = 0
    RELU = 1  # x < 0 ? 0 : x
    HARDTANH = 2  # x < -1 ? -1 : x > 1 ? 1 : x


class Op(IntEnum):
    """What a step does.

    Shapes: x is (R, K), the answer (R, C) unless it pools, then (1, C). `fma` is one rounding. For signs,
    dot = K - 2 * mismatches and mismatches = popcount(x ^ w). `weight` of binary ops is bits (words, C): column c of
    word w holds the signs of inputs 64 w .. 64 w + 63 of output channel c. `scale` and `bias` have C elements or 1.

    =====================  ======================  =========================================================
    op                     blobs                   meaning
    =====================  ======================  =========================================================
    LINEAR                 weight f32 (K, C),      y = act(sum), sum starts at bias[c] and takes
                           bias f32 (C)            fma(x[r, k], weight[k, c], sum) for k = 0 .. K - 1 in order
    BINARIZE               threshold f32 (C)       bit = x[r, c] < threshold[c]
    AFFINE                 scale, bias             y = act(fma(scale[c], x[r, c], bias[c]))
    RPRELU                 shift, slope, offset    y = (x > shift ? x - shift : slope * (x - shift)) + offset
    TRANSFORM              -                       inputs x (R, d) and m (1, d * d): sum starts at 0 and takes
                                                   fma(x[r, k], M[k, c], sum) in order, M = m as (d, d) + identity
    POOL_MAX               -                       largest x[r, c] over rows
    POOL_MEAN              -                       float32(sum over rows in order, in float64, / rows)
    ROW_MEAN_ABS           -                       (R, 1): float32(sum over channels in order, in float64, of |x| / C)
    BINARY_LINEAR          weight, scale, bias     y = act(fma(scale[c], d, bias[c])), d = float32(dot); with a second
                                                   input (R, 1), d = float32(dot) * its row's value, rounded
    BINARY_LINEAR_BITS     weight, limit i32 (C)   bit = mismatches > limit[c]
    BINARY_MAX             weight, scale, bias     as BINARY_LINEAR, d = float32(largest dot over rows)
    BINARY_MAX_BITS        weight, limit i32 (C)   bit = smallest mismatches over rows > limit[c]
    BINARY_MEAN            weight, scale, bias     as BINARY_LINEAR, d = float32(sum of dots) / float32(rows)
    BINARY_MEAN_BITS       weight, threshold (C)   bit = d < threshold[c], d as in BINARY_MEAN
    =====================  ======================  =========================================================

    `largest` and `smallest` need no rule for ties: equal values are equal.
    """

    LINEAR = 1
    BINARIZE = 2
    AFFINE = 3
    RPRELU = 4
    TRANSFORM = 5
    POOL_MAX = 6
    POOL_MEAN = 7
    ROW_MEAN_ABS = 8
    BINARY_LINEAR = 9
    BINARY_LINEAR_BITS = 10
    BINARY_MAX = 11
    BINARY_MAX_BITS = 12
    BINARY_MEAN = 13
    BINARY_MEAN_BITS = 14


BLOBS: dict[Op, tuple[str, ...]] = {  # the constants of each op, in the order in which a step lists them
    Op.LINEAR: ("weight", "bias"),
    Op.BINARIZE: ("threshold",),
    Op.AFFINE: ("scale", "bias"),
    Op.RPRELU: ("shift", "slope", "offset"),
    Op.TRANSFORM: (),
    Op.POOL_MAX: (),
    Op.POOL_MEAN: (),
    Op.ROW_MEAN_ABS: (),
    Op.BINARY_LINEAR: ("weight", "scale", "bias"),
    Op.BINARY_LINEAR_BITS: ("weight", "limit"),
    Op.BINARY_MAX: ("weight", "scale", "bias"),
    Op.BINARY_MAX_BITS: ("weight", "limit"),
    Op.BINARY_MEAN: ("weight", "scale", "bias"),
    Op.BINARY_MEAN_BITS: ("weight", "threshold"),
}


@dataclass(frozen=True)
class Value:
    """What flows between steps: its name (unique, the layer's), kind, rows and channels (of BITS: signs, not words)."""

    name: str
    kind: Kind
    rows: Rows
    channels: int


@dataclass(frozen=True)
class Step:
    """One op with its inputs, its output and its constants.

    inputs      indices into Program.values: one, or two (TRANSFORM, BINARY_LINEAR with a row scale)
    output      index into Program.values; each value is the output of exactly one step, value 0 is the cloud
    activation  read by LINEAR, AFFINE and the BINARY_* ops that give floats
    blobs       arrays by the names in BLOBS[op]
    """

    op: Op
    inputs: tuple[int, ...]
    output: int
    activation: Activation = Activation.NONE
    blobs: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """A network ready to run: value 0 is the cloud (points, 3) FLOAT, the last step's output is the answer.

    points     how many points a cloud is resampled to before the first step; 0 keeps all
    normalize  "none" or "unit_sphere", see popcloud.cloud.normalize
    classes    the class names, one per channel of the answer
    meta       free text by key: recipe, licence note, how it was trained; the engine does not read it
    """

    values: tuple[Value, ...]
    steps: tuple[Step, ...]
    points: int
    normalize: str
    classes: tuple[str, ...]
    meta: dict[str, str] = field(default_factory=dict)
