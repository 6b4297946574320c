"""The rules of steps on points: levels, rows per point, searches, indices, groups. A part of validate.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from popcloud.packed.bits import words
from popcloud.packed.grid import Types, inconsistent, show
from popcloud.packed.program import POINT_OPS, Activation, Array, Kind, Op, Rows, Step, Value

MOST = 1 << 24  # of channels, of what a search looks at
MOST_RATIOS = 4
MOST_EACH = (1 << 16) - 1  # rows per point, and neighbours that a search finds

Rule = tuple[Sequence[tuple[Value, ...]], Value]  # what each input may be, and what the output is; without names

OPS = POINT_OPS | {Op.CONCAT}
SETTINGS = frozenset(("dilation", "radius", "bandwidth", "columns", "groups"))  # blobs that nobody learns
ACTIVATED = frozenset((Op.LINEAR_GROUPS, Op.BINARY_GROUPS, Op.BINARY_SUM))


def check_step(where: str, step: Step, values: tuple[Value, ...], into: dict[int, int]) -> None:
    """Check kinds, rows, levels, channels and activation of one of OPS.

    into  by INDEX value that is written: the level whose rows its numbers are; gets what this step writes
    Raises FileError, "inconsistent".
    """
    inputs, y = [values[i] for i in step.inputs], values[step.output]
    wanted, output = RULES[step.op](y, *inputs)
    for number, (x, allowed) in enumerate(zip(inputs, wanted, strict=True)):
        if _bare(x) not in allowed:
            raise inconsistent(f"input {number} of {where}", " or ".join(map(show, allowed)), show(x))
    if _bare(y) != output:
        raise inconsistent(f"output of {where}", show(output), show(y))
    if step.op is Op.GATHER and into[step.inputs[1]] != inputs[0].level:
        expected = f"rows of level {inputs[0].level}, those of its first"
        raise inconsistent(f"index of {where}", expected, f"rows of level {into[step.inputs[1]]}")
    if y.kind is Kind.INDEX:
        into[step.output] = inputs[-1].level
    plain = (Activation.NONE, Activation.RELU, Activation.HARDTANH)[: 3 if step.op in ACTIVATED else 1]
    if step.activation not in plain:
        raise inconsistent(f"activation of {where}", " or ".join(a.name for a in plain), step.activation.name)


def _bare(value: Value) -> Value:
    return replace(value, name="")


def _at(kind: Kind, channels: int, level: int, each: int = 1) -> Value:
    return Value("", kind, Rows.POINT, channels, level, each)


def _farthest_points(y: Value, x: Value) -> Rule:
    return [(_at(Kind.FLOAT, 3, x.level),)], _at(Kind.INDEX, 1, x.level + 1)


def _positions(y: Value, queries: Value, points: Value) -> Rule:
    wanted = [(_at(Kind.FLOAT, 3, x.level),) for x in (queries, points)]
    return wanted, _at(Kind.INDEX, y.channels, queries.level)


def _features(y: Value, queries: Value, points: Value) -> Rule:
    wanted = [(_at(Kind.FLOAT, queries.channels, x.level),) for x in (queries, points)]
    return wanted, _at(Kind.INDEX, y.channels, queries.level)


def _signs(y: Value, queries: Value, points: Value) -> Rule:
    wanted = [(_at(Kind.BITS, queries.channels, x.level),) for x in (queries, points)]
    return wanted, _at(Kind.INDEX, y.channels, queries.level)


def _gather(y: Value, x: Value, index: Value) -> Rule:
    wanted = [
        tuple(_at(kind, x.channels, x.level) for kind in (Kind.FLOAT, Kind.BITS)),
        (_at(Kind.INDEX, index.channels, index.level),),
    ]
    return wanted, _at(x.kind, x.channels, index.level, index.channels)


def _subtract(y: Value, x: Value, other: Value) -> Rule:
    floats = replace(_bare(x), kind=Kind.FLOAT)
    return [(floats,), (floats, replace(floats, each=1))], floats


def _multiply(y: Value, x: Value, other: Value) -> Rule:
    floats = replace(_bare(x), kind=Kind.FLOAT)
    factors = [
        factor
        for channels in (x.channels, 1)
        for factor in (
            replace(floats, channels=channels),
            replace(floats, channels=channels, each=1),
            Value("", Kind.FLOAT, Rows.CLOUD, channels),
        )
    ]
    return [(floats,), tuple(factors)], floats


def _reshape(y: Value, x: Value) -> Rule:
    total = x.each * x.channels
    each = y.each if total % y.each == 0 else 1
    return [(_at(Kind.FLOAT, x.channels, x.level, x.each),)], _at(Kind.FLOAT, total // each, x.level, each)


def _product(y: Value, x: Value, matrix: Value) -> Rule:
    wanted = [(_at(Kind.FLOAT, value.channels, x.level, x.each),) for value in (x, matrix)]
    return wanted, _at(Kind.FLOAT, x.channels * matrix.channels, x.level)


def _density(y: Value, x: Value) -> Rule:
    return [(_at(Kind.FLOAT, 3, x.level),)], _at(Kind.FLOAT, 1, x.level)


def _float_rows(y: Value, x: Value) -> Rule:
    floats = replace(_bare(x), kind=Kind.FLOAT)
    return [(floats,)], replace(floats, channels=y.channels)


def _sign_rows(y: Value, x: Value, *added: Value) -> Rule:
    output = replace(_bare(x), kind=Kind.FLOAT, channels=y.channels)
    return [(replace(_bare(x), kind=Kind.BITS),), *[(output,) for _ in added]], output


def _concat(y: Value, *parts: Value) -> Rule:
    kind = Kind.BITS if parts[0].kind is Kind.BITS else Kind.FLOAT
    wanted = [
        (
            _at(kind, part.channels, y.level, y.each),
            _at(kind, part.channels, y.level),
            Value("", kind, Rows.CLOUD, part.channels),
        )
        for part in parts
    ]
    return wanted, _at(kind, sum(part.channels for part in parts), y.level, y.each)


RULES: dict[Op, Callable[..., Rule]] = {
    Op.FARTHEST_POINTS: _farthest_points,
    Op.NEAREST: _positions,
    Op.NEAREST_FEATURES: _features,
    Op.NEAREST_SIGNS: _signs,
    Op.BALL: _positions,
    Op.GATHER: _gather,
    Op.SUBTRACT: _subtract,
    Op.MULTIPLY: _multiply,
    Op.RESHAPE: _reshape,
    Op.PRODUCT: _product,
    Op.DENSITY: _density,
    Op.SLICE: _float_rows,
    Op.LINEAR_GROUPS: _float_rows,
    Op.BINARY_GROUPS: _sign_rows,
    Op.BINARY_SUM: _sign_rows,
    Op.CONCAT: _concat,
}


def blob_types(where: str, step: Step, inputs: int, outputs: int) -> Types:
    """Return the dtype and the shapes that each blob of one of OPS may have, from `inputs` to `outputs` channels.

    Raises FileError, "inconsistent", if the groups don't divide the channels.
    """
    single, integer, signs = np.dtype(np.float32), np.dtype(np.int32), np.dtype(np.uint64)
    types: Types = {
        "dilation": (integer, [(1,)]),
        "radius": (single, [(1,)]),
        "bandwidth": (single, [(1,)]),
        "columns": (integer, [(2,)]),
        "groups": (integer, [(1,)]),
    }
    if step.op not in ACTIVATED:
        return types
    types["bias"] = (single, [(outputs,), (1,)] if step.op is Op.BINARY_GROUPS else [(outputs,)])
    if step.op is Op.BINARY_SUM:
        bases = max(len(np.atleast_1d(step.blobs["scale"])), 1)
        return types | {"weight": (signs, [(words(inputs), bases * outputs)]), "scale": (single, [(bases, outputs)])}
    terms = group_inputs(where, step, inputs, outputs)
    if step.op is Op.LINEAR_GROUPS:
        return types | {"weight": (single, [(terms, outputs)])}
    return types | {"weight": (signs, [(words(terms), outputs)]), "scale": (single, [(outputs,), (1,)])}


def group_inputs(where: str, step: Step, inputs: int, outputs: int) -> int:
    """Return how many inputs an output of a step reads: all, or those of its group.

    Raises FileError, "inconsistent", if the groups don't divide the channels.
    """
    groups = step.blobs.get("groups", np.ones(1, np.int32))
    count = int(groups[0]) if groups.dtype == np.int32 and groups.shape == (1,) else 0
    if count < 1 or inputs % count or outputs % count:
        raise inconsistent(f"groups of {where}", f"a divisor of {inputs} and of {outputs}", groups.ravel()[:4])
    return inputs // count


def check_numbers(where: str, name: str, blob: Array, inputs: int, outputs: int) -> None:
    """Check the numbers of dilation, radius, bandwidth or columns. Raises FileError, "inconsistent"."""
    if name == "dilation":
        if blob[0] < 1 or (outputs - 1) * int(blob[0]) + 1 > MOST:
            raise inconsistent(where, f"at least 1, to look at no more than {MOST}", blob[0])
    elif name in ("radius", "bandwidth"):
        with np.errstate(over="ignore", under="ignore"):
            square = blob[0] * blob[0]
        if not (blob[0] > 0 and 0 < square < np.inf):
            raise inconsistent(where, "more than 0, with a square in float32", blob[0])
    elif name == "columns" and (blob[0] < 0 or int(blob[1]) != outputs or int(blob[0]) + outputs > inputs):
        raise inconsistent(where, f"{outputs} of {inputs} channels", blob.tolist())
