"""Bytes → Program: the checks of docs/format.md, in its order."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np

from popcloud.errors import FileError
from popcloud.packed.grid import inconsistent
from popcloud.packed.layout import (
    BLOB,
    DTYPES,
    HALF,
    HEADER,
    MAGIC,
    PLAN_NAMES,
    STEP,
    VALUE,
    VERSIONS,
    Bytes,
    checksum,
    sections,
    up,
)
from popcloud.packed.points import MOST_RATIOS
from popcloud.packed.program import (
    BLOBS,
    OPTIONAL,
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
from popcloud.packed.validate import LIMIT, NORMALIZE, validate

Member = TypeVar("Member", bound=IntEnum)


def decode(data: bytes | mmap.mmap) -> Program:
    """Return the program in the bytes of a model file; its arrays are read-only views of them.

    Raises FileError, without the path, at the first check of docs/format.md that fails.
    """
    raw = np.frombuffer(data, np.uint8) if len(data) else np.zeros(0, np.uint8)
    raw.flags.writeable = False
    header = _checked_header(raw)
    starts = _checked_sections(raw, header)
    arrays = _arrays(raw, header, starts)
    names = _read_names(raw, header, starts)
    meta = _read_meta(raw, header, starts)
    count, last = int(header["value_count"]), int(header["value_count"]) + int(header["class_count"])
    values = _read_values(_table(raw, starts["values"], VALUE, count), names[:count])
    program = Program(
        values=values,
        steps=_read_steps(_table(raw, starts["steps"], STEP, int(header["step_count"])), arrays),
        points=int(header["points"]),
        normalize=NORMALIZE[header["normalize"]],
        classes=tuple(names[count:last]),
        meta=meta,
        plan=_plan(header),
        features=tuple(names[last:]),
    )
    validate(program)
    return program


def _checked_header(raw: Bytes) -> Array:
    """Return the header record after checks 2 to 8 of docs/format.md."""
    if raw[:8].tobytes() != MAGIC:
        raise FileError("not a model file: expected it to begin with POPCLOUD; `popcloud pack` writes model files")
    if len(raw) < 12:
        raise FileError(f"truncated: expected {HEADER.itemsize} bytes of header, found {len(raw)}; copy it again")
    version = int(raw[8:12].view("<u4")[0])
    if version > VERSIONS[-1]:
        raise FileError(
            f"newer version: expected version 1 to {VERSIONS[-1]}, found {version}; update popcloud or pack again"
        )
    if version not in VERSIONS:
        raise FileError(f"damaged: expected version 1 to {VERSIONS[-1]}, found {version}; copy it again")
    if len(raw) < HEADER.itemsize:
        raise FileError(f"truncated: expected {HEADER.itemsize} bytes of header, found {len(raw)}; copy it again")
    header: Array = raw[: HEADER.itemsize].view(HEADER)[0]
    if len(raw) != header["file_bytes"]:
        fault = "truncated" if len(raw) < header["file_bytes"] else "damaged"
        raise FileError(f"{fault}: expected {header['file_bytes']} bytes, found {len(raw)}; copy it again")
    if checksum(raw) != header["checksum"]:
        raise FileError(
            f"damaged: expected checksum {header['checksum']:08x}, found {checksum(raw):08x}; copy it again"
        )
    if header["points"] > LIMIT or header["normalize"] >= len(NORMALIZE):
        raise inconsistent("header", "known points and normalisation", f"{header['points']}, {header['normalize']}")
    wanted = PLAN_NAMES[version]
    if header["plan_name"] != wanted:
        raise inconsistent("header", f"the plan {wanted!r} in version {version}", header["plan_name"])
    integers, floats = {b"none": (0, 0), b"grid": (2, 1), b"points": (1, int(header["plan_integers"][0]))}[wanted]
    if not 0 <= floats <= MOST_RATIOS:
        raise inconsistent("header", f"at most {MOST_RATIOS} ratios", floats)
    unused = raw[208:256].any() or raw[120:128].any() or header["plan_integers"][integers:].any()
    if unused or raw[176 + 8 * floats : 208].any() or (not integers and header["feature_count"]):
        raise inconsistent("header", "zeros where nothing is said", "other bytes")
    return header


def _plan(header: Array) -> Grid | Sampling | None:
    """Return the plan; validate() looks at its numbers."""
    if header["plan_name"] == b"none":
        return None
    if header["plan_name"] == b"points":
        return Sampling(tuple(header["plan_floats"][: header["plan_integers"][0]].tolist()))
    levels, size = (int(number) for number in header["plan_integers"][:2])
    return Grid(edge=float(header["plan_floats"][0]), levels=levels, size=size)


def _checked_sections(raw: Bytes, header: Array) -> dict[str, int]:
    """Return where the sections start after check 9, and their part of check 11."""
    values, steps, blobs = (int(header[f"{name}_count"]) for name in ("value", "step", "blob"))
    names, meta = int(header["names_bytes"]), int(header["meta_bytes"])
    fewest = 1 if header["plan_name"] == b"grid" else values - 1  # a step may write several values on a grid
    if values < 2 or not fewest <= steps < values or header["class_count"] < 1:
        raise inconsistent("header", "a step for each value but the cloud, and a class", "other counts")
    starts = sections(values, steps, blobs, names, meta)
    if starts["data"] > len(raw) or any(header[f"{name}_offset"] != start for name, start in starts.items()):
        raise inconsistent("sections", "each where the one before ends, inside the file", "others")
    ends = (values * VALUE.itemsize, steps * STEP.itemsize, blobs * BLOB.itemsize, names, meta)
    for (name, start), size in zip(starts.items(), ends, strict=False):
        _check_padding(raw, name, start + size)
    return starts


def _check_padding(raw: Bytes, name: str, end: int) -> None:
    if raw[end : up(end)].any():
        raise inconsistent(f"padding after {name}", "zeros", "other bytes")


def _table(raw: Bytes, start: int, dtype: np.dtype[Any], count: int) -> Array:
    return raw[start : start + count * dtype.itemsize].view(dtype)


def _arrays(raw: Bytes, header: Array, starts: dict[str, int]) -> list[Array]:
    """Return a view for each blob record after checks 10 and 11."""
    at, arrays = starts["data"], []
    for index, record in enumerate(_table(raw, starts["blobs"], BLOB, int(header["blob_count"]))):
        where = f"blob {index}"
        dtype, ndim = DTYPES.get(int(record["dtype"])), int(record["ndim"])
        shape = [int(size) for size in record["shape"]]
        if dtype is None or ndim not in (1, 2) or any(shape[ndim:]):
            wanted = f"dtype 1 to {len(DTYPES)}, 1 or 2 dimensions"
            raise inconsistent(where, wanted, f"{record['dtype']}, {ndim}, {shape}")
        if not all(1 <= size <= LIMIT for size in shape[:ndim]):
            raise inconsistent(where, f"sizes of 1 to {LIMIT}", shape[:ndim])
        size = int(np.prod(shape[:ndim])) * dtype.itemsize
        if (record["offset"], record["bytes"]) != (at, size) or at + size > len(raw):
            raise inconsistent(where, f"{size} bytes at {at}", f"{record['bytes']} at {record['offset']}")
        arrays.append(raw[at : at + size].view(dtype).reshape(shape[:ndim]))
        _check_padding(raw, where, at + size)
        at = up(at + size)
    if at != len(raw):
        raise inconsistent("blobs", f"to end with the file at {len(raw)}", at)
    halves = sum(array.dtype == HALF for array in arrays)
    if (halves > 0) != (header["version"] == 3):
        raise inconsistent("blobs", "float16 in version 3, and only there", f"{halves} in version {header['version']}")
    return arrays


def _read_names(raw: Bytes, header: Array, starts: dict[str, int]) -> list[str]:
    texts = raw[starts["names"] : starts["names"] + int(header["names_bytes"])].tobytes().split(b"\0")
    count = sum(int(header[f"{name}_count"]) for name in ("value", "class", "feature"))
    if len(texts) != count + 1 or texts.pop():  # what follows the last NUL is empty
        raise inconsistent("names", f"{count} texts, each ended by NUL", "others")
    return [_text("names", text) for text in texts]


def _read_meta(raw: Bytes, header: Array, starts: dict[str, int]) -> dict[str, str]:
    texts = list(_prefixed(raw[starts["meta"] : starts["meta"] + int(header["meta_bytes"])].tobytes()))
    meta = dict(zip(texts[::2], texts[1::2], strict=False))
    if len(texts) % 2 or len(meta) != len(texts) // 2 or len(meta) != header["meta_count"]:
        raise inconsistent("meta", f"{header['meta_count']} pairs of different keys", f"{len(texts)} texts")
    return meta


def _prefixed(data: bytes) -> Iterator[str]:
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        if at + 4 + size > len(data):
            raise inconsistent("meta", "lengths that end with the section", f"{size} at {at}")
        yield _text("meta", data[at + 4 : at + 4 + size])
        at += 4 + size


def _text(where: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise inconsistent(where, "UTF-8", repr(data)) from error


def _member(members: Callable[[int], Member], number: Array, where: str) -> Member:
    try:
        return members(int(number))
    except ValueError as error:
        raise inconsistent(where, "a known number", number) from error


def _read_values(table: Array, names: list[str]) -> tuple[Value, ...]:
    return tuple(
        Value(name, _member(Kind, row["kind"], f"kind of {name!r}"), _member(Rows, row["rows"], f"rows of {name!r}"),
              int(row["channels"]), int(row["level"]), _each(row["each"], name))
        for name, row in zip(names, table, strict=True)
    )  # fmt: skip


def _each(number: Array, name: str) -> int:
    """Return how many rows per point a value has: one is written as 0."""
    if number == 1:
        raise inconsistent(f"rows per point of {name!r}", "0 for one, or several", number)
    return int(number) or 1


def _read_steps(table: Array, arrays: list[Array]) -> tuple[Step, ...]:
    steps, used = [], 0
    for index, record in enumerate(table):
        step = _read_step(f"step {index}", record, arrays, used)
        steps.append(step)
        used += len(step.blobs)
    if used != len(arrays):
        raise inconsistent("blobs", f"{used}, all used", len(arrays))
    return tuple(steps)


def _read_step(where: str, record: Array, arrays: list[Array], used: int) -> Step:
    op = _member(Op, record["op"], f"op of {where}")
    return Step(
        op=op,
        inputs=_leading(f"inputs of {where}", record["inputs"], -1),
        output=int(record["output"]),
        activation=_member(Activation, record["activation"], f"activation of {where}"),
        blobs=_blobs(f"blobs of {where} ({op.name})", op, record["blobs"], arrays, used),
        more=_leading(f"outputs of {where}", record["more"], 0),  # value 0 is nobody's output
    )


def _leading(where: str, numbers: Array, end: int) -> tuple[int, ...]:
    """Return the numbers before the first that is `end`; all after it must be."""
    found = [int(number) for number in numbers]
    count = found.index(end) if end in found else len(found)
    if any(number != end for number in found[count:]):
        raise inconsistent(where, f"{end} after the last", found)
    return tuple(found[:count])


def _blobs(where: str, op: Op, record: Array, arrays: list[Array], used: int) -> dict[str, Array]:
    """Return a step's constants by name: each has its place in the record, -1 where an optional one is left out."""
    found, names = [int(index) for index in record], BLOBS[op]
    there = [name for name, index in zip(names, found, strict=False) if not (name in OPTIONAL and index == -1)]
    places = {name: used + i for i, name in enumerate(there)}
    expected = [places.get(name, -1) for name in names] + [-1] * (len(found) - len(names))
    if found != expected or used + len(there) > len(arrays):
        raise inconsistent(where, f"{expected} of {len(arrays)}", found)
    return {name: arrays[index] for name, index in places.items()}
