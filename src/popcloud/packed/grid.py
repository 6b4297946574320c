"""The rules of steps on a voxel grid: levels, kernels, shortcuts, several outputs. A part of validate.py."""

from __future__ import annotations

import numpy as np

from popcloud.errors import FileError
from popcloud.packed.bits import words
from popcloud.packed.program import CHILDREN, CONVOLUTIONS, NEIGHBOURS, Activation, Grid, Kind, Op, Step, Value

MOST_TERMS = 1 << 24  # in one sum: float32 holds that of as many signs exactly

Types = dict[str, tuple[np.dtype[np.generic], list[tuple[int, ...]]]]


def inconsistent(where: str, expected: object, found: object) -> FileError:
    """Return the error for a Program that contradicts itself."""
    return FileError(f"inconsistent: {where}: expected {expected}, found {found}; pack the checkpoint again")


def show(value: Value) -> str:
    """Return what a value is, in words."""
    level = f" of level {value.level}" if value.level else ""
    each = f", {value.each} each" if value.each != 1 else ""
    return f"{value.kind.name}, {value.rows.name}{level}{each}, {value.channels} channels"


def check_step(where: str, step: Step, values: tuple[Value, ...], plan: Grid | None) -> None:
    """Check kinds, levels, channels and activation of one of GRID_OPS. Raises FileError, "inconsistent"."""
    if plan is None:
        raise inconsistent(where, "an op for clouds, without a plan", step.op.name)
    inputs = [values[i] for i in step.inputs]
    if step.op in CONVOLUTIONS:
        _check_convolution(where, step, inputs, [values[i] for i in step.outputs], plan)
        return
    y = values[step.output]
    if step.op is Op.CONCAT:
        wanted = [(inputs[0].kind, y.level)] * len(inputs)
        channels = sum(x.channels for x in inputs)
    else:
        wanted = [(Kind.FLOAT, y.level + STEP_UP.get(step.op, 0))] * len(inputs)
        channels = inputs[0].channels
    for number, (x, (kind, level)) in enumerate(zip(inputs, wanted, strict=True)):
        levels = (level, level + 1) if step.op is Op.ADD and number == 1 else (level,)
        same = step.op is not Op.ADD or x.channels == channels
        if x.kind is not kind or x.level not in levels or not same:
            raise inconsistent(f"input {number} of {where}", f"{kind.name} of level {levels}", show(x))
    if (y.kind, y.channels) != (wanted[0][0], channels):
        raise inconsistent(f"output of {where}", f"{wanted[0][0].name}, {channels} channels", show(y))
    if step.activation is not Activation.NONE:
        raise inconsistent(f"activation of {where}", "NONE", step.activation.name)


STEP_UP = {Op.SITE_MEAN: -1, Op.UNPOOL: 1}  # how much coarser the input is than the output


def _check_convolution(where: str, step: Step, inputs: list[Value], outputs: list[Value], plan: Grid) -> None:
    x, y = inputs[0], outputs[0]
    kind = Kind.FLOAT if step.op is Op.SPARSE_CONV else Kind.BITS
    if x.kind is not kind or abs(x.level - y.level) > 1:
        raise inconsistent(f"input of {where}", f"{kind.name}, at most one level away", show(x))
    for other in inputs[1:]:
        if (other.kind, other.channels) != (Kind.FLOAT, y.channels) or other.level - y.level not in (0, 1):
            wanted = f"FLOAT, {y.channels} channels, level {y.level} or above"
            raise inconsistent(f"shortcut of {where}", wanted, show(other))
    for other in outputs:
        if (other.channels, other.level) != (y.channels, y.level):
            raise inconsistent(f"outputs of {where}", f"all as {show(y)}", show(other))
    kinds = [value.kind for value in outputs]
    floats = kinds.count(Kind.FLOAT)
    if kinds != sorted(kinds) or (floats > 1 and Kind.BITS in kinds):
        raise inconsistent(
            f"outputs of {where}", "floats, or floats once at most and then signs", [k.name for k in kinds]
        )
    _check_optional(where, step, kinds.count(Kind.BITS))
    _check_kernel(where, step, x, y, plan)


def _check_optional(where: str, step: Step, signs: int) -> None:
    for name, needed in (("prelu", step.activation is Activation.RPRELU), ("thresholds", signs > 0)):
        if (name in step.blobs) != needed:
            raise inconsistent(f"blobs of {where}", f"{'' if needed else 'no '}{name}", ", ".join(step.blobs))


def _check_kernel(where: str, step: Step, x: Value, y: Value, plan: Grid) -> None:
    """Check the length of the sums, and the groups."""
    terms = offsets_of(x, y) * x.channels
    if terms > MOST_TERMS:
        raise inconsistent(f"channels of {where}", f"at most {MOST_TERMS} terms in a sum", terms)
    shifts = step.blobs.get("shifts")
    groups = 1 if shifts is None else len(np.atleast_1d(shifts))
    if shifts is not None and (plan.size != 5 or x.level != y.level or groups < 1 or y.channels % groups):
        found = f"size {plan.size}, level {x.level} to {y.level}, {groups} groups of {y.channels} channels"
        raise inconsistent(f"shifts of {where}", "a plan of size 5, one level, equal groups", found)


def offsets_of(x: Value, y: Value) -> int:
    """Return how many kernel offsets a convolution from x to y has."""
    return NEIGHBOURS if x.level == y.level else CHILDREN


def blob_types(step: Step, values: tuple[Value, ...]) -> Types:
    """Return the dtype and the shapes that each blob of a convolution may have."""
    x, outputs = values[step.inputs[0]], [values[i] for i in step.outputs]
    channels, kinds = outputs[0].channels, [value.kind for value in outputs]
    terms, single, integer = offsets_of(x, outputs[0]) * x.channels, np.dtype(np.float32), np.dtype(np.uint64)
    maps = (max(1, kinds.count(Kind.FLOAT)), channels)
    groups = len(np.atleast_1d(step.blobs.get("shifts", 0)))
    return {
        "weight": (single, [(terms, channels)]) if x.kind is Kind.FLOAT else (integer, [(words(terms), channels)]),
        "scale": (single, [maps]),
        "bias": (single, [maps]),
        "prelu": (single, [(3, channels)]),
        "thresholds": (single, [(kinds.count(Kind.BITS), channels)]),
        "shifts": (np.dtype(np.int8), [(groups, 3)]),
    }
