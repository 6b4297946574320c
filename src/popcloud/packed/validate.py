"""What a Program must be: the rules of docs/format.md, checked before it is written and after it is read.

Every error begins with "inconsistent" and names the step or the value.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from popcloud.errors import FileError
from popcloud.packed.bits import WORD, words
from popcloud.packed.program import BLOBS, Activation, Array, Kind, Op, Program, Rows, Step, Value

LIMIT = 1 << 24  # of channels and points: float32 holds every dot product of so many signs exactly
NORMALIZE = ("none", "unit_sphere")

BINARY = frozenset(op for op in Op if op.name.startswith("BINARY_"))  # packed signs in
TO_BITS = frozenset(op for op in Op if op.name.endswith("_BITS")) | {Op.BINARIZE}  # packed signs out
POOLED = frozenset(  # points in, one row out
    (Op.POOL_MAX, Op.POOL_MEAN, Op.BINARY_MAX, Op.BINARY_MAX_BITS, Op.BINARY_MEAN, Op.BINARY_MEAN_BITS)
)
PROJECT = BINARY | {Op.LINEAR}  # as many channels out as the weight has
ACTIVATED = (PROJECT | {Op.AFFINE}) - TO_BITS


def inconsistent(where: str, expected: object, found: object) -> FileError:
    """Return the error for a Program that contradicts itself."""
    return FileError(f"inconsistent: {where}: expected {expected}, found {found}; pack the checkpoint again")


def validate(program: Program) -> None:
    """Check everything docs/format.md asks of a Program.

    Raises FileError with the step or the value that is wrong.
    """
    _check_settings(program)
    _check_values(program.values)
    if len(program.steps) != len(program.values) - 1:
        raise inconsistent("steps", f"one for each value but the cloud, {len(program.values) - 1}", len(program.steps))
    written = {0}
    for index, step in enumerate(program.steps):
        where = f"step {index} ({step.op.name})"
        _check_wires(where, step, len(program.values), written)
        _check_types(f"{where} {program.values[step.output].name!r}", step, program.values)
        _check_blobs(f"{where} {program.values[step.output].name!r}", step, program.values)
        written.add(step.output)
    answer = program.values[program.steps[-1].output]
    expected = (Kind.FLOAT, Rows.CLOUD, len(program.classes))
    if (answer.kind, answer.rows, answer.channels) != expected:
        raise inconsistent(
            f"the answer {answer.name!r}", f"FLOAT, CLOUD, {len(program.classes)} classes", _show(answer)
        )


def _check_settings(program: Program) -> None:
    if not 0 <= program.points <= LIMIT:
        raise inconsistent("points", f"0 to {LIMIT}", program.points)
    if program.normalize not in NORMALIZE:
        raise inconsistent("normalize", " or ".join(NORMALIZE), repr(program.normalize))
    if not program.classes:
        raise inconsistent("classes", "at least one", "none")
    _check_names("class", program.classes)
    _check_names("meta key", program.meta)
    for key, text in program.meta.items():
        _check_utf8(f"meta text of {key!r}", text)


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


def _check_values(values: tuple[Value, ...]) -> None:
    if len(values) < 2:
        raise inconsistent("values", "the cloud and at least one step's output", f"{len(values)} values")
    _check_names("value name", (value.name for value in values))
    for index, value in enumerate(values):
        if not 1 <= value.channels <= LIMIT:
            raise inconsistent(f"channels of value {index} {value.name!r}", f"1 to {LIMIT}", value.channels)
    cloud = values[0]
    if (cloud.kind, cloud.rows, cloud.channels) != (Kind.FLOAT, Rows.POINT, 3):
        raise inconsistent(f"value 0 {cloud.name!r}", "FLOAT, POINT, 3 channels", _show(cloud))


def _check_wires(where: str, step: Step, count: int, written: set[int]) -> None:
    """Check which values a step reads and writes, before anything looks them up."""
    allowed = {Op.TRANSFORM: (2,), Op.BINARY_LINEAR: (1, 2)}.get(step.op, (1,))
    if len(step.inputs) not in allowed:
        raise inconsistent(f"inputs of {where}", " or ".join(map(str, allowed)), len(step.inputs))
    for index in step.inputs:
        if index not in written:
            raise inconsistent(f"inputs of {where}", "the cloud or what an earlier step wrote", f"value {index}")
    if not 0 < step.output < count or step.output in written:
        raise inconsistent(f"output of {where}", "a value that no step has written yet", f"value {step.output}")


def _check_types(where: str, step: Step, values: tuple[Value, ...]) -> None:
    """Check kinds, rows, channels and activation against the table of ops."""
    x, y = values[step.inputs[0]], values[step.output]
    kind = Kind.BITS if step.op in BINARY else Kind.FLOAT
    rows = Rows.POINT if step.op in POOLED else x.rows
    if (x.kind, x.rows) != (kind, rows):
        raise inconsistent(f"input of {where}", f"{kind.name}, {rows.name}", _show(x))
    kind = Kind.BITS if step.op in TO_BITS else Kind.FLOAT
    rows = Rows.CLOUD if step.op in POOLED else x.rows
    channels = y.channels if step.op in PROJECT else 1 if step.op is Op.ROW_MEAN_ABS else x.channels
    if (y.kind, y.rows, y.channels) != (kind, rows, channels):
        raise inconsistent(f"output of {where}", f"{kind.name}, {rows.name}, {channels} channels", _show(y))
    if len(step.inputs) == 2:
        _check_second(where, step.op, x, values[step.inputs[1]])
    if step.activation is not Activation.NONE and step.op not in ACTIVATED:
        raise inconsistent(f"activation of {where}", "NONE", step.activation.name)


def _check_second(where: str, op: Op, x: Value, second: Value) -> None:
    rows, channels = (Rows.CLOUD, x.channels * x.channels) if op is Op.TRANSFORM else (x.rows, 1)
    if (second.kind, second.rows, second.channels) != (Kind.FLOAT, rows, channels):
        raise inconsistent(f"second input of {where}", f"FLOAT, {rows.name}, {channels} channels", _show(second))


def _check_blobs(where: str, step: Step, values: tuple[Value, ...]) -> None:
    """Check names, dtypes, shapes and numbers of a step's constants."""
    inputs, outputs = values[step.inputs[0]].channels, values[step.output].channels
    if set(step.blobs) != set(BLOBS[step.op]):
        raise inconsistent(f"blobs of {where}", ", ".join(BLOBS[step.op]) or "none", ", ".join(step.blobs) or "none")
    for name in BLOBS[step.op]:
        blob = step.blobs[name]
        dtype, shapes = blob_type(step.op, name, inputs, outputs)
        if blob.dtype != dtype or blob.shape not in shapes:
            expected = f"{dtype} {' or '.join(map(str, shapes))}"
            raise inconsistent(f"{name} of {where}", expected, f"{blob.dtype} {blob.shape}")
        _check_numbers(f"{name} of {where}", name, blob, inputs)


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


def _check_numbers(where: str, name: str, blob: Array, inputs: int) -> None:
    if blob.dtype == np.uint64:
        tail = inputs % WORD
        if tail and (blob[-1] >> np.uint64(tail)).any():
            raise inconsistent(where, f"zeros beyond sign {inputs}", "other bits")
    elif name == "limit":
        if blob.min() < -1 or blob.max() > inputs:
            raise inconsistent(where, f"-1 to {inputs}", f"{blob.min()} to {blob.max()}")
    elif np.isnan(blob).any() or (name != "threshold" and np.isinf(blob).any()):
        raise inconsistent(where, "finite numbers", f"{int((~np.isfinite(blob)).sum())} that are not")


def _show(value: Value) -> str:
    return f"{value.kind.name}, {value.rows.name}, {value.channels} channels"
