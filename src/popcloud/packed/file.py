"""The model file: write · read · validate. docs/format.md is the law, and says it byte by byte.

`write` and `read` are the doors to the disk; `encode` and `decode` the same on bytes in memory.
"""

from __future__ import annotations

import mmap
import os
import stat
import threading
from pathlib import Path

import numpy as np

from popcloud.errors import FileError
from popcloud.packed.decode import decode
from popcloud.packed.layout import (
    BLOB,
    CODES,
    HALF,
    HEADER,
    MAGIC,
    PLAN_NAMES,
    STEP,
    VALUE,
    Bytes,
    checksum,
    sections,
    up,
)
from popcloud.packed.program import BLOBS, Array, Grid, Program, Sampling, Step, Value
from popcloud.packed.validate import NORMALIZE, validate

__all__ = ["data_offset", "decode", "encode", "read", "validate", "write"]


def write(program: Program, path: str | os.PathLike[str]) -> None:
    """Write a model file, whole or not at all: beside its place first, then moved there.

    Raises FileError if the program is inconsistent or the path can't be written.
    """
    data = encode(program)
    try:
        target = Path(path)
        part = target.parent / f".{os.getpid()}-{threading.get_ident()}.popc.part"
        try:
            with open(part, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)  # there only if something went wrong
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: can't be written ({_cause(error)}); name a file in a folder you may write") from error


def read(path: str | os.PathLike[str]) -> Program:
    """Read a model file. Its arrays are read-only views of the mapped file: nothing is copied.

    Raises FileError if it is missing, no model file, newer, truncated, damaged or inconsistent.
    """
    try:
        data = _map(path)
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: can't be read ({_cause(error)}); name a model file (*.popc)") from error
    try:
        return decode(data)
    except FileError as error:
        raise FileError(f"{path}: {error}") from error


def encode(program: Program) -> bytes:
    """Return the bytes of a model file. Raises FileError if the program is inconsistent."""
    validate(program)
    arrays = [step.blobs[name] for step in program.steps for name in BLOBS[step.op] if name in step.blobs]
    names, meta = _names(program), _meta(program)
    starts = sections(len(program.values), len(program.steps), len(arrays), len(names), len(meta))
    blobs = _blob_table(arrays, starts["data"])
    end = up(int(blobs[-1]["offset"] + blobs[-1]["bytes"])) if arrays else starts["data"]
    raw = np.zeros(end, np.uint8)
    _put(raw, 0, _header(program, starts, end, len(arrays), len(names), len(meta)))
    _put(raw, starts["values"], _value_table(program.values))
    _put(raw, starts["steps"], _step_table(program.steps))
    _put(raw, starts["blobs"], blobs)
    _put(raw, starts["names"], np.frombuffer(names, np.uint8))
    _put(raw, starts["meta"], np.frombuffer(meta, np.uint8))
    for record, array in zip(blobs, arrays, strict=True):
        _put(raw, int(record["offset"]), np.ascontiguousarray(array))
    raw[12:16] = np.array([checksum(raw)], "<u4").view(np.uint8)
    return raw.tobytes()


def data_offset(program: Program) -> int:
    """Return how many bytes of the program's file come before its arrays: header, tables and text."""
    arrays = sum(len(step.blobs) for step in program.steps)
    return sections(len(program.values), len(program.steps), arrays, len(_names(program)), len(_meta(program)))["data"]


def _version(program: Program) -> int:
    if program.plan is None:
        return 1
    if isinstance(program.plan, Sampling):
        return 4
    return 3 if any(blob.dtype == HALF for step in program.steps for blob in step.blobs.values()) else 2


def _names(program: Program) -> bytes:
    names = [*(value.name for value in program.values), *program.classes, *program.features]
    return b"".join(name.encode() + b"\0" for name in names)


def _meta(program: Program) -> bytes:
    texts = [text.encode() for pair in program.meta.items() for text in pair]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _header(program: Program, starts: dict[str, int], end: int, blobs: int, names: int, meta: int) -> Array:
    header = np.zeros(1, HEADER)
    fields = {
        "magic": MAGIC,
        "version": _version(program),
        "file_bytes": end,
        "points": program.points,
        "normalize": NORMALIZE.index(program.normalize),
        "value_count": len(program.values),
        "step_count": len(program.steps),
        "blob_count": blobs,
        "class_count": len(program.classes),
        "meta_count": len(program.meta),
        "feature_count": len(program.features),
        "names_bytes": names,
        "meta_bytes": meta,
        "plan_name": PLAN_NAMES[_version(program)],
    }
    if isinstance(program.plan, Grid):
        header["plan_integers"][0, :2] = program.plan.levels, program.plan.size
        header["plan_floats"][0, 0] = program.plan.edge
    if isinstance(program.plan, Sampling):
        header["plan_integers"][0, 0] = len(program.plan.ratios)
        header["plan_floats"][0, : len(program.plan.ratios)] = program.plan.ratios
    for name, value in (fields | {f"{name}_offset": start for name, start in starts.items()}).items():
        header[name] = value
    return header


def _value_table(values: tuple[Value, ...]) -> Array:
    """Return the records; rows per point are 0 where there is one, as in files of before there were several."""
    return np.array([(v.kind, v.rows, v.channels, v.level, v.each if v.each > 1 else 0) for v in values], VALUE)


def _step_table(steps: tuple[Step, ...]) -> Array:
    table, blob = np.zeros(len(steps), STEP), 0
    table["inputs"] = table["blobs"] = -1
    for record, step in zip(table, steps, strict=True):
        record["op"], record["output"], record["activation"] = step.op, step.output, step.activation
        record["inputs"][: len(step.inputs)] = step.inputs
        record["more"][: len(step.more)] = step.more
        for place, name in enumerate(BLOBS[step.op]):
            if name in step.blobs:
                record["blobs"][place] = blob
                blob += 1
    return table


def _blob_table(arrays: list[Array], at: int) -> Array:
    table = np.zeros(len(arrays), BLOB)
    for record, array in zip(table, arrays, strict=True):
        record["offset"], record["bytes"] = at, array.nbytes
        record["dtype"], record["ndim"] = CODES[array.dtype], array.ndim
        record["shape"][: array.ndim] = array.shape
        at = up(at + array.nbytes)
    return table


def _put(raw: Bytes, at: int, array: Array) -> None:
    raw[at : at + array.nbytes] = array.reshape(-1).view(np.uint8)


def _map(path: str | os.PathLike[str]) -> bytes | mmap.mmap:
    """Map a file. Raises OSError if there is none; an empty one, which can't be mapped, gives no bytes."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise OSError("a folder")
    if not stat.S_ISREG(mode):
        raise OSError("not a file")  # opening a pipe would wait for ever
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""


def _cause(error: Exception) -> str:
    """Return what the system says, without the path, which the message has already."""
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).lower()
