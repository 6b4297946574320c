"""A network as a flat list: values, steps, blobs.

Every Op is defined here in words, in `runtime/reference.py` in numpy and in `engine/` in C++. The bit convention is
`packed/bits.py`'s: bit 1 means -1, channel 0 is the lowest bit of word 0, tail bits are 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

CATEGORY = "category:"  # before the category's name, in the name of the column that is 1 for its objects


class Kind(IntEnum):
    """What the elements of a value are."""

    FLOAT = 0  # float32 (rows, channels)
    BITS = 1  # uint64 (rows, ceil(channels / 64))
    INDEX = 2  # int32 (rows, channels), each the row of a point; on points only


class Rows(IntEnum):
    """How many rows a value has."""

    POINT = 0  # one per point of the cloud, or of a level of sampled points; or several per point, its neighbours
    CLOUD = 1  # one
    SITES = 2  # one per active site of the value's level


class Activation(IntEnum):
    """What follows an affine map."""

    NONE = 0
    RELU = 1  # x < 0 ? 0 : x
    HARDTANH = 2  # x < -1 ? -1 : x > 1 ? 1 : x
    RPRELU = 3  # as the op, with the rows of the blob `prelu` (3, C): shift, slope, offset; sparse convolutions only
    SIGMOID = 4  # 1 / (1 + exp(-x)) as runtime/arithmetic.py has it; LINEAR on points only


class Op(IntEnum):
    """What a step does.

    Shapes: x is (R, K), the answer (R, C) unless it pools, then (1, C). `fma` is one rounding. For signs,
    dot = K - 2 * mismatches and mismatches = popcount(x ^ w). `weight` of binary ops is bits (words, C): column c of
    word w holds the signs of inputs 64 w .. 64 w + 63 of output channel c. `scale` and `bias` have C elements or 1.

    =====================  ======================  =========================================================
    op                     blobs                   meaning
    =====================  ======================  =========================================================
    LINEAR                 weight f32 (K, C),      y = act(sum), sum starts at bias[c] and takes
                           bias f32 (C)            fma(x[r, k], weight[k, c], sum) for k = 0 .. K - 1 in order;
                                                   on a grid weight may be f16, widened to float32 before use
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

    On a voxel grid a value has a row per active site of its level, in Morton order; the parent of a site at level l is
    one of level l + 1. A step sees pairs (row in, row out) per kernel offset, offsets in lexicographic order; an absent
    neighbour has no pair and adds nothing. x (S, K) is at level l.

    =====================  ==============================  =================================================
    op                     blobs                           meaning
    =====================  ==============================  =================================================
    SPARSE_CONV            weight f32 (O * K, C), scale,   s = sum over offsets and within one over k, starts
                           bias f32 (J, C), prelu,         at 0, takes fma(x[in, k], weight[o K + k, c], s)
                           thresholds, shifts
    BINARY_SPARSE_CONV     weight bits (words of O K, C),  s = float32(sum over pairs of K - 2 * mismatches); sign
                           scale, ...                      o K + k of column c is that of offset o, input k
    SITE_MEAN              -                               y[parent] = sum of its children in order / their
                                                           number, both in float32
    UNPOOL                 -                               y[child] = x[parent], bit for bit
    CONCAT                 -                               the channels of two to four values side by side
    ADD                    -                               y = x0 + x1; x1 of level l + 1: the parent's row
    =====================  ==============================  =================================================

    Both convolutions: the level of the answer says which pairs. l: the neighbours at the O = 27 offsets of -1 to 1;
    l + 1: the parent's up to O = 8 children, offset 4 (x & 1) + 2 (y & 1) + (z & 1); l - 1: the same pairs backwards.
    `shifts` i8 (G, 3), of -1 to 1, adds shift g to the 27 offsets of the g-th of G equal groups of output channels
    (BSC-Net, Xu et al. 2023, its shifted sparse convolution). A second input is the shortcut (S, C) of the answer's
    level, or of the one above: the parent's row. Then y_j = act((s * scale[j]) + bias[j] + shortcut) for the J rows of
    scale and bias, where every operation rounds. The outputs are J values y_j in floats (none, if J is 1 and nobody
    reads it), then signs of y_0 (J is 1): bit = y_0[r, c] < thresholds[b, c] for output b of the (B, C) thresholds.
    `prelu` is there if the activation is RPRELU, `thresholds` if there are signs, `shifts` if groups are shifted.

    On points (the plan `Sampling`) a value has `each` rows per point of its level, which lie together: the rows of a
    point's neighbours. A pool whose answer has POINT rows pools those of each point, (P * each, K) -> (P, C). Indices
    are rows of a level with each 1. Distances d between positions (3 channels) are float32: (dx dx + dy dy) + dz dz,
    every operation rounded. "In order" of distances: the smaller first, of equal ones the smaller row first, NaN last.

    =====================  ======================  =========================================================
    op                     blobs                   meaning
    =====================  ======================  =========================================================
    FARTHEST_POINTS        -                       INDEX 1, level l + 1, of positions at l: row 0, then again and
                                                   again the row farthest from all chosen ones, the first of equal
    NEAREST                dilation i32 (1)        INDEX k of queries x (level a) among points x1 (level b): in order
                                                   of d, numbers 0, D, 2 D, ... (k - 1) D
    NEAREST_FEATURES       dilation i32 (1)        the same of features: d starts at half of |p|^2 (from 0, takes
                                                   fma(p[c], p[c], s); times 0.5) and takes fma(-p[c], q[c], d), c in
                                                   order: half the squared distance but for what is the query's alone
    NEAREST_SIGNS          dilation i32 (1)        the same of BITS, d = mismatches
    BALL                   radius f32 (1)          INDEX k of queries x among x1: the first k rows with d <= radius
                                                   radius, in the order of rows; fewer: the first one again
    GATHER                 -                       x (level b), index (level a, k): the rows of x, each k at level a
    SUBTRACT               -                       y = x - x1; x1 may be the row of the point, for all its neighbours
    MULTIPLY               -                       y = x * x1; x1 may be that too, or CLOUD, or have one channel
    RESHAPE                -                       the same floats with another `each` and other channels
    PRODUCT                -                       x (P * k, C), m (P * k, M) -> (P, C M): y[p, c M + j] starts at 0
                                                   and takes fma(x[p k + i, c], m[p k + i, j], sum), i in order
    DENSITY                bandwidth f32 (1)       (P, 1) of positions: float32(P) / sum over all rows in order, in
                                                   float32, of max(0, 1 - d / (bandwidth bandwidth)), all rounded
    SLICE                  columns i32 (2)         the channels from columns[0], columns[1] of them; of floats
    LINEAR_GROUPS          weight f32 (K, C),      as LINEAR in G = `groups` groups: of C / G outputs each, which read
                           bias (C), groups (1)    K inputs each
    BINARY_GROUPS          weight bits (words, C), as BINARY_LINEAR in such groups, dot = K - 2 * mismatches
                           scale, bias, groups
    BINARY_SUM             weight bits             y = act(sum), sum starts at bias[c], or at x1[r, c] + bias[c]
                           (words, M C),           rounded if there is a second input, and takes
                           scale f32 (M, C), bias  fma(scale[m, c], float32(dot with column m C + c), sum), m in order
    =====================  ======================  =========================================================

    There CONCAT takes POINT values: each has the answer's rows, or is repeated: the row of a point for all its
    neighbours, the row of a CLOUD for all. FARTHEST_POINTS and the searches need positions (each 1, 3 channels). A
    search in fewer points than (k - 1) D + 1, a ball with nothing in it, and positions there or in DENSITY that are
    not finite, are errors of the cloud.
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
    SPARSE_CONV = 15
    BINARY_SPARSE_CONV = 16
    SITE_MEAN = 17
    UNPOOL = 18
    CONCAT = 19
    ADD = 20
    FARTHEST_POINTS = 21
    NEAREST = 22
    NEAREST_FEATURES = 23
    NEAREST_SIGNS = 24
    BALL = 25
    GATHER = 26
    SUBTRACT = 27
    MULTIPLY = 28
    RESHAPE = 29
    PRODUCT = 30
    DENSITY = 31
    SLICE = 32
    LINEAR_GROUPS = 33
    BINARY_GROUPS = 34
    BINARY_SUM = 35


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
    Op.SPARSE_CONV: ("weight", "scale", "bias", "prelu", "thresholds", "shifts"),
    Op.BINARY_SPARSE_CONV: ("weight", "scale", "bias", "prelu", "thresholds", "shifts"),
    Op.SITE_MEAN: (),
    Op.UNPOOL: (),
    Op.CONCAT: (),
    Op.ADD: (),
    Op.FARTHEST_POINTS: (),
    Op.NEAREST: ("dilation",),
    Op.NEAREST_FEATURES: ("dilation",),
    Op.NEAREST_SIGNS: ("dilation",),
    Op.BALL: ("radius",),
    Op.GATHER: (),
    Op.SUBTRACT: (),
    Op.MULTIPLY: (),
    Op.RESHAPE: (),
    Op.PRODUCT: (),
    Op.DENSITY: ("bandwidth",),
    Op.SLICE: ("columns",),
    Op.LINEAR_GROUPS: ("weight", "bias", "groups"),
    Op.BINARY_GROUPS: ("weight", "scale", "bias", "groups"),
    Op.BINARY_SUM: ("weight", "scale", "bias"),
}
OPTIONAL = frozenset(("prelu", "thresholds", "shifts"))  # blobs that a step may be without
CONVOLUTIONS = frozenset((Op.SPARSE_CONV, Op.BINARY_SPARSE_CONV))
GRID_OPS = frozenset(op for op in Op if Op.SPARSE_CONV <= op <= Op.ADD)  # that know of sites and levels
POINT_OPS = frozenset(op for op in Op if op >= Op.FARTHEST_POINTS)  # of the plan Sampling alone, as CONCAT of points
NEIGHBOURS, CHILDREN = 27, 8  # offsets of a convolution that stays on its level, and of one that leaves it


@dataclass(frozen=True)
class Value:
    """What flows between steps.

    name      unique, the layer's
    channels  of BITS: signs, not words
    level     of SITES and POINT: 0 is the finest; else 0
    each      of POINT: rows per point of the level
    """

    name: str
    kind: Kind
    rows: Rows
    channels: int
    level: int = 0
    each: int = 1


@dataclass(frozen=True)
class Step:
    """One op with its inputs, its outputs and its constants.

    inputs      indices into Program.values: one, or two (TRANSFORM, BINARY_LINEAR with a row scale), or as GRID_OPS say
    output      index into Program.values; each value is the output of exactly one step, value 0 is the cloud
    activation  read by LINEAR, AFFINE, the sparse convolutions and the BINARY_* ops that give floats
    blobs       arrays by the names in BLOBS[op], but for those of OPTIONAL that the step is without
    more        further outputs, of sparse convolutions
    """

    op: Op
    inputs: tuple[int, ...]
    output: int
    activation: Activation = Activation.NONE
    blobs: dict[str, Array] = field(default_factory=dict)
    more: tuple[int, ...] = ()

    @property
    def outputs(self) -> tuple[int, ...]:
        """Return all outputs, the first one too."""
        return (self.output, *self.more)


@dataclass(frozen=True)
class Grid:
    """What a network on a voxel grid asks of geometry: the plan "grid".

    edge    of a site of level 0, metres
    levels  how many; each has sites twice as large as the one before
    size    of the cube of neighbours of a site, 3 or 5
    """

    edge: float
    levels: int
    size: int


@dataclass(frozen=True)
class Sampling:
    """What a network on points asks of geometry: the plan "points".

    ratios  level l has ceil(ratios[l - 1] * P) points (in float64), P those of level l - 1; four at most, in (0, 1]
    """

    ratios: tuple[float, ...] = ()

    def count(self, points: int, level: int) -> int:
        """Return how many points a level has in a cloud of so many."""
        for ratio in self.ratios[:level]:
            points = math.ceil(ratio * points)
        return points


@dataclass(frozen=True)
class Program:
    """A network ready to run; the last step's output is the answer.

    Without a plan value 0 is the cloud (points, 3) FLOAT, and the answer is one row. On a grid value 0 is the mean
    of the points' features per site of level 0, and the answer has a row per such site, which is that of its points.
    On points value 0 is (points, features), of which the first three are x, y, z, and the answer is one row, or one
    per point.

    points     how many points a cloud is resampled to before the first step; 0 keeps all. Where each point is answered
               nothing is resampled: who runs it deals a larger cloud out into sets of at most so many
    normalize  "none" or "unit_sphere", see popcloud.cloud.normalize; on points also "blocks": the cloud is a room, cut
               and described as popcloud.geometry.blocks does, each block run by itself
    classes    the class names, one per channel of the answer
    meta       free text by key: recipe, licence note, how it was trained; the engine does not read it
    plan       None, the grid, or the sampling of points
    features   names of the channels of value 0 with a plan, () without; on points the first three are "x", "y", "z",
               and "category:NAME" is 1 in every row of a cloud of that category, else 0
    """

    values: tuple[Value, ...]
    steps: tuple[Step, ...]
    points: int
    normalize: str
    classes: tuple[str, ...]
    meta: dict[str, str] = field(default_factory=dict)
    plan: Grid | Sampling | None = None
    features: tuple[str, ...] = ()
