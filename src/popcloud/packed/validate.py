"""What a Program must be: the rules of docs/format.md, checked before it is written and after it is read.

Every error begins with "inconsistent" and names the step or the value.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from popcloud.packed import points
from popcloud.packed.bits import WORD, words
from popcloud.packed.grid import blob_types, check_step, inconsistent, offsets_of, show
from popcloud.packed.program import (
    BLOBS,
    CONVOLUTIONS,
    GRID_OPS,
    OPTIONAL,
    POINT_OPS,
    Activation,
    Array,
    Grid,
    Kind,
    Op,
    Program,
    Rows,
    Sampling,
    Step,
    Value,
)

LIMIT = 1 << 24  # of channels and points: float32 holds every dot product of so many signs exactly
LEVELS = 16
NORMALIZE = ("none", "unit_sphere", "blocks")  # the last one on points alone
POSITION = ("x", "y", "z")  # the first features of points

BINARY = frozenset(op for op in Op if op.name.startswith("BINARY_") and op not in GRID_OPS)  # packed signs in, in rows
TO_BITS = frozenset(op for op in Op if op.name.endswith("_BITS")) | {Op.BINARIZE}  # packed signs out
POOLED = frozenset(  # points in, one row out
    (Op.POOL_MAX, Op.POOL_MEAN, Op.BINARY_MAX, Op.BINARY_MAX_BITS, Op.BINARY_MEAN, Op.BINARY_MEAN_BITS)
)
PROJECT = BINARY | {Op.LINEAR}  # as many channels out as the weight has
ACTIVATED = (PROJECT | {Op.AFFINE, Op.LINEAR_GROUPS}) - TO_BITS
INPUTS = {  # how many inputs an op may have; the others have one
    Op.TRANSFORM: (2,),
    Op.BINARY_LINEAR: (1, 2),
    Op.SPARSE_CONV: (1, 2),
    Op.BINARY_SPARSE_CONV: (1, 2),
    Op.CONCAT: (2, 3, 4),
    Op.ADD: (2,),
    Op.NEAREST: (2,),
    Op.NEAREST_FEATURES: (2,),
    Op.NEAREST_SIGNS: (2,),
    Op.BALL: (2,),
    Op.GATHER: (2,),
    Op.SUBTRACT: (2,),
    Op.MULTIPLY: (2,),
    Op.PRODUCT: (2,),
    Op.BINARY_SUM: (1, 2),
}
MOST_OUTPUTS = 4


def validate(program: Program) -> None:
    """Check everything docs/format.md asks of a Program.

    Raises FileError with the step or the value that is wrong.
    """
    _check_settings(program)
    _check_values(program)
    if len(program.steps) >= len(program.values) or not program.steps:
        raise inconsistent("steps", f"one for each value but the cloud, {len(program.values) - 1}", len(program.steps))
    written = {0}
    pointed: dict[int, int] = {}  # by INDEX value: the level whose rows it has
    for index, step in enumerate(program.steps):
        where = f"step {index} ({step.op.name})"
        _check_wires(where, step, len(program.values), written)
        where = f"{where} {program.values[step.output].name!r}"
        _check_blob_names(where, step)
        _check_step(where, step, program, pointed)
        _check_blobs(where, step, program.values)
        written.update(step.outputs)
    if len(written) != len(program.values):
        raise inconsistent("steps", f"to write all {len(program.values)} values", f"{len(written)} written")
    _check_answer(program.values[program.steps[-1].output], program)


def _check_answer(answer: Value, program: Program) -> None:
    rows = (Rows.SITES,) if isinstance(program.plan, Grid) else (Rows.CLOUD, Rows.POINT)
    rows = rows[:1] if program.plan is None else rows
    expected = (Kind.FLOAT, len(program.classes), 0, 1)
    if (answer.kind, answer.channels, answer.level, answer.each) != expected or answer.rows not in rows:
        wanted = f"FLOAT, {' or '.join(one.name for one in rows)}, {len(program.classes)} classes"
        raise inconsistent(f"the answer {answer.name!r}", wanted, show(answer))


def _check_step(where: str, step: Step, program: Program, pointed: dict[int, int]) -> None:
    """Check kinds, rows, levels, channels and activation by the rules of the plan."""
    on_points = isinstance(program.plan, Sampling)
    if step.op in POINT_OPS and not on_points:
        raise inconsistent(where, "an op for clouds or for grids, without the plan of points", step.op.name)
    if step.activation is Activation.SIGMOID and not (on_points and step.op is Op.LINEAR):
        raise inconsistent(f"activation of {where}", "SIGMOID after LINEAR on points alone", step.activation.name)
    if on_points and step.op in points.OPS:
        points.check_step(where, step, program.values, pointed)
    elif step.op in GRID_OPS:
        check_step(where, step, program.values, program.plan if isinstance(program.plan, Grid) else None)
    else:
        _check_types(where, step, program.values, on_points)


def _check_settings(program: Program) -> None:
    if not 0 <= program.points <= LIMIT:
        raise inconsistent("points", f"0 to {LIMIT}", program.points)
    if program.normalize not in NORMALIZE:
        raise inconsistent("normalize", " or ".join(NORMALIZE), repr(program.normalize))
    if program.normalize == "blocks" and not isinstance(program.plan, Sampling):
        raise inconsistent("normalize", "blocks on points alone", repr(program.normalize))
    if not program.classes:
        raise inconsistent("classes", "at least one", "none")
    _check_names("class", program.classes)
    _check_names("meta key", program.meta)
    for key, text in program.meta.items():
        _check_utf8(f"meta text of {key!r}", text)
    _check_names("feature", program.features)
    _check_plan(program)


def _check_plan(program: Program) -> None:
    plan = program.plan
    if plan is None:
        if program.features:
            raise inconsistent("features", "none without a plan", len(program.features))
        return
    if isinstance(plan, Sampling):
        _check_sampling(plan, program.features)
        return
    if not (0 < plan.edge < np.inf and 1 <= plan.levels <= LEVELS and plan.size in (3, 5)):
        raise inconsistent("plan", f"edge > 0, 1 to {LEVELS} levels, size 3 or 5", plan)
    if program.points or program.normalize != "none":
        raise inconsistent("plan", "all points as they are", f"{program.points} points, {program.normalize}")
    if not program.features:
        raise inconsistent("features", "a name per channel of value 0", "none")


def _check_sampling(plan: Sampling, features: tuple[str, ...]) -> None:
    if len(plan.ratios) > points.MOST_RATIOS or not all(0 < ratio <= 1 for ratio in plan.ratios):
        raise inconsistent("plan", f"at most {points.MOST_RATIOS} ratios, more than 0 and at most 1", plan.ratios)
    if features[:3] != POSITION:
        raise inconsistent("features", f"{', '.join(POSITION)} first", ", ".join(features[:3]) or "none")


def _check_names(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        _check_utf8(what, name)
        if not name or "\0" in name or name in seen:
            raise inconsistent(what, "a name of its own, not empty, without NUL", repr(name))
        seen.add(name)


def _check_utf8(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise inconsistent(what, "text that UTF-8 can write", ascii(text)) from error


def _check_values(program: Program) -> None:
    values = program.values
    if len(values) < 2:
        raise inconsistent("values", "the cloud and at least one step's output", f"{len(values)} values")
    _check_names("value name", (value.name for value in values))
    for index, value in enumerate(values):
        where = f"value {index} {value.name!r}"
        if not 1 <= value.channels <= LIMIT:
            raise inconsistent(f"channels of {where}", f"1 to {LIMIT}", value.channels)
        _check_rows(where, value, program.plan)
    first = Value("", Kind.FLOAT, Rows.POINT, len(program.features) if program.plan else 3)
    if isinstance(program.plan, Grid):
        first = replace(first, rows=Rows.SITES)
    if replace(values[0], name="") != first:
        raise inconsistent(f"value 0 {values[0].name!r}", show(first), show(values[0]))


def _check_rows(where: str, value: Value, plan: Grid | Sampling | None) -> None:
    """Check where a value's rows are: rows, level and each, and an INDEX's kind."""
    if (value.rows is Rows.SITES) != isinstance(plan, Grid):
        raise inconsistent(f"rows of {where}", "SITES on a grid, and only there", value.rows.name)
    on_points = isinstance(plan, Sampling) and value.rows is Rows.POINT
    levels = plan.levels if isinstance(plan, Grid) else 1
    if on_points and isinstance(plan, Sampling):
        levels += len(plan.ratios)
    if not 0 <= value.level < levels:
        raise inconsistent(f"level of {where}", "one of the plan's", value.level)
    if value.kind is Kind.INDEX and not (on_points and value.each == 1 and value.channels <= points.MOST_EACH):
        raise inconsistent(where, f"INDEX per point, each 1, at most {points.MOST_EACH} channels", show(value))
    most = min(points.MOST_EACH, LIMIT // value.channels) if on_points else 1
    if not 1 <= value.each <= most:
        raise inconsistent(f"rows per point of {where}", f"1 to {most}", value.each)


def _check_wires(where: str, step: Step, count: int, written: set[int]) -> None:
    """Check which values a step reads and writes, before anything looks them up."""
    allowed = INPUTS.get(step.op, (1,))
    if len(step.inputs) not in allowed:
        raise inconsistent(f"inputs of {where}", " or ".join(map(str, allowed)), len(step.inputs))
    for index in step.inputs:
        if index not in written:
            raise inconsistent(f"inputs of {where}", "the cloud or what an earlier step wrote", f"value {index}")
    most = MOST_OUTPUTS if step.op in CONVOLUTIONS else 1
    if len(step.outputs) > most or len(set(step.outputs)) != len(step.outputs):
        raise inconsistent(f"outputs of {where}", f"1 to {most}, each once", step.outputs)
    for index in step.outputs:
        if not 0 < index < count or index in written:
            raise inconsistent(f"output of {where}", "a value that no step has written yet", f"value {index}")


def _check_types(where: str, step: Step, values: tuple[Value, ...], on_points: bool) -> None:
    """Check kinds, rows, channels and activation against the table of ops."""
    x, y = values[step.inputs[0]], values[step.output]
    kind = Kind.BITS if step.op in BINARY else Kind.FLOAT
    rows = Rows.POINT if step.op in POOLED else x.rows
    if (x.kind, x.rows) != (kind, rows):
        raise inconsistent(f"input of {where}", f"{kind.name}, {rows.name}", show(x))
    kind = Kind.BITS if step.op in TO_BITS else Kind.FLOAT
    channels = y.channels if step.op in PROJECT else 1 if step.op is Op.ROW_MEAN_ABS else x.channels
    wanted = Value(y.name, kind, x.rows, channels, x.level, x.each)
    if step.op in POOLED:
        by_point = on_points and y.rows is Rows.POINT  # or the whole cloud
        wanted = replace(wanted, each=1) if by_point else Value(y.name, kind, Rows.CLOUD, channels)
    if y != wanted:
        raise inconsistent(f"output of {where}", show(wanted), show(y))
    if len(step.inputs) == 2:
        _check_second(where, step.op, x, values[step.inputs[1]])
    if step.activation is not Activation.NONE and step.op not in ACTIVATED:
        raise inconsistent(f"activation of {where}", "NONE", step.activation.name)
    if step.activation is Activation.RPRELU:
        raise inconsistent(f"activation of {where}", "one without constants", step.activation.name)


def _check_second(where: str, op: Op, x: Value, second: Value) -> None:
    wanted = Value(second.name, Kind.FLOAT, x.rows, 1, x.level, x.each)
    if op is Op.TRANSFORM:
        wanted = Value(second.name, Kind.FLOAT, Rows.CLOUD, x.channels * x.channels)
    if second != wanted:
        raise inconsistent(f"second input of {where}", show(wanted), show(second))


def _check_blob_names(where: str, step: Step) -> None:
    needed = [name for name in BLOBS[step.op] if name not in OPTIONAL]
    if not set(needed) <= set(step.blobs) <= set(BLOBS[step.op]):
        raise inconsistent(f"blobs of {where}", ", ".join(BLOBS[step.op]) or "none", ", ".join(step.blobs) or "none")


def _check_blobs(where: str, step: Step, values: tuple[Value, ...]) -> None:
    """Check dtypes, shapes and numbers of a step's constants."""
    inputs, outputs = values[step.inputs[0]].channels, values[step.output].channels
    signs = inputs
    if step.op in CONVOLUTIONS:
        types = blob_types(step, values)
        signs *= offsets_of(values[step.inputs[0]], values[step.output])
    elif step.op in POINT_OPS:
        types = points.blob_types(where, step, inputs, outputs)
        signs = points.group_inputs(where, step, inputs, outputs)
    else:
        types = {name: blob_type(step.op, name, inputs, outputs) for name in step.blobs}
    for name, blob in step.blobs.items():
        dtype, shapes = types[name]
        half = may_be_half(step.op, name, values[0].rows)
        if not (blob.dtype == dtype or (half and blob.dtype == np.float16)) or blob.shape not in shapes:
            expected = f"{dtype}{' or float16' if half else ''} {' or '.join(map(str, shapes))}"
            raise inconsistent(f"{name} of {where}", expected, f"{blob.dtype} {blob.shape}")
        _check_numbers(f"{name} of {where}", name, blob, signs)
        points.check_numbers(f"{name} of {where}", name, blob, inputs, outputs)


def blob_type(op: Op, name: str, inputs: int, outputs: int) -> tuple[np.dtype[np.generic], list[tuple[int, ...]]]:
    """Return the dtype and the shapes that the blob `name` of `op` may have, from `inputs` to `outputs` channels."""
    if name == "weight" and op in BINARY:
        return np.dtype(np.uint64), [(words(inputs), outputs)]
    if name == "weight":
        return np.dtype(np.float32), [(inputs, outputs)]
    if name == "limit":
        return np.dtype(np.int32), [(outputs,)]
    broadcast = name in ("scale", "bias") and op is not Op.LINEAR
    return np.dtype(np.float32), [(outputs,), (1,)] if broadcast else [(outputs,)]


def may_be_half(op: Op, name: str, rows: Rows) -> bool:
    """Return whether the blob `name` of `op` may also be float16: LINEAR's weight, where value 0 is of sites."""
    return op is Op.LINEAR and name == "weight" and rows is Rows.SITES


def _check_numbers(where: str, name: str, blob: Array, inputs: int) -> None:
    if blob.dtype == np.uint64:
        tail = inputs % WORD
        if tail and (blob[-1] >> np.uint64(tail)).any():
            raise inconsistent(where, f"zeros beyond sign {inputs}", "other bits")
    elif name == "limit":
        if blob.min() < -1 or blob.max() > inputs:
            raise inconsistent(where, f"-1 to {inputs}", f"{blob.min()} to {blob.max()}")
    elif name == "shifts":
        if blob.min() < -1 or blob.max() > 1:
            raise inconsistent(where, "-1 to 1", f"{blob.min()} to {blob.max()}")
    elif np.isnan(blob).any() or (not name.startswith("threshold") and np.isinf(blob).any()):
        raise inconsistent(where, "finite numbers", f"{int((~np.isfinite(blob)).sum())} that are not")
