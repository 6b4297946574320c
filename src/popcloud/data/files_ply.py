"""PLY: the polygon file format (Turk 1994), ASCII and binary of both byte orders."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import check_xyz
from popcloud.errors import CloudError

TYPES = {  # both spellings in use
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
BYTE_ORDER = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass
class _Element:
    """One kind of record: its name, how many there are, and per property its name, type and, of a list, count type."""

    name: str
    count: int
    properties: list[tuple[str, str, str | None]] = field(default_factory=list)

    @property
    def has_lists(self) -> bool:
        return any(count_type for _, _, count_type in self.properties)


def read_columns(path: Path) -> dict[str, NDArray[Any]]:
    """Return the scalar properties of the vertices by name, each (N,); other elements are skipped.

    Raises CloudError that names the line (text) or the byte offset (binary) where the file departs from its header.
    """
    content = path.read_bytes()
    form, elements, start, lines = _header(path, content)
    if all(element.name != "vertex" for element in elements):
        raise CloudError(f"{path}: expected an element vertex, found {', '.join(e.name for e in elements) or 'none'}")
    if form == "ascii":
        return _read_ascii(path, content[start:], elements, lines)
    return _read_binary(path, content, start, elements, BYTE_ORDER[form])


def _header(path: Path, content: bytes) -> tuple[str, list[_Element], int, int]:
    """Return the format, the elements, the offset of the data and the number of header lines."""
    form, elements, start, number = "", list[_Element](), 0, 0
    while True:
        end = content.find(b"\n", start)
        line = content[start : end if end >= 0 else start + 80].decode("ascii", errors="replace").strip()
        number, words = number + 1, line.split()
        if number == 1 and line != "ply":
            raise CloudError(f"{path}, line 1: expected ply, found {line[:20]!r}; this is no PLY file")
        if end < 0:
            raise CloudError(f"{path}, line {number}: expected end_header, found the end of the file; it is cut short")
        start = end + 1
        if words == ["end_header"]:
            break
        try:
            if words[:1] == ["format"]:
                form = words[1]
            elif words[:1] == ["element"]:
                elements.append(_Element(words[1], _count(words[2])))
            elif words[:1] == ["property"]:
                elements[-1].properties.append(_property(words))
            elif number > 1 and words and words[0] not in ("comment", "obj_info"):
                raise ValueError
        except (ValueError, IndexError, KeyError) as error:
            raise CloudError(f"{path}, line {number}: expected a PLY header line, found {line[:60]!r}") from error
    if form not in BYTE_ORDER:
        raise CloudError(f"{path}: expected format {', '.join(BYTE_ORDER)}, found {form or 'none'!r}")
    return form, elements, start, number


def _count(word: str) -> int:
    if int(word) < 0:
        raise ValueError(word)
    return int(word)


def _property(words: list[str]) -> tuple[str, str, str | None]:
    if words[1] == "list":
        return words[4], TYPES[words[3]], TYPES[words[2]]
    return words[2], TYPES[words[1]], None


def _scalars(element: _Element) -> list[tuple[int, str]]:
    return [(i, name) for i, (name, _, count_type) in enumerate(element.properties) if not count_type]


# --- text -------------------------------------------------------------------------------------------------------------


def _read_ascii(path: Path, body: bytes, elements: list[_Element], header_lines: int) -> dict[str, NDArray[Any]]:
    text = body.decode("ascii", errors="replace").splitlines()
    lines = ((number, line.split()) for number, line in enumerate(text, start=header_lines + 1) if line.strip())
    for element in elements:
        # No more memory than the file has lines for, whatever its header says.
        rows = np.empty((min(element.count, len(text)), len(element.properties)))
        for row in range(element.count):
            number, words = next(lines, (0, []))
            if not words:
                raise CloudError(f"{path}: expected {element.count} of {element.name}, found {row}; it is cut short")
            if element.name != "vertex":
                continue
            try:
                rows[row] = _ascii_row(words, element)
            except (ValueError, IndexError) as error:
                names = " ".join(name for name, _, _ in element.properties)
                found = " ".join(words)[:40]
                raise CloudError(f"{path}, line {number}: expected {names}, found {found!r}") from error
        if element.name == "vertex":
            return {name: _typed(rows[:, i], element.properties[i][1]) for i, name in _scalars(element)}
    raise AssertionError("read_columns has seen to it that there is an element vertex")


def _typed(column: NDArray[Any], kind: str) -> NDArray[Any]:
    """Return numbers in the type that the header declares if it is a whole one and holds them."""
    if np.dtype(kind).kind == "f":
        return column
    limits = np.iinfo(kind)
    fits = (column == np.rint(column)) & (column >= limits.min) & (column <= limits.max)
    return column.astype(kind) if fits.all() else column


def _ascii_row(words: list[str], element: _Element) -> list[float]:
    """Return one number per property, 0 for a list."""
    if not element.has_lists:
        if len(words) != len(element.properties):
            raise ValueError
        return [float(word) for word in words]
    row, at = [], 0
    for _, _, count_type in element.properties:
        row.append(0.0 if count_type else float(words[at]))
        at += 1 + (int(words[at]) if count_type else 0)
    if at != len(words):
        raise ValueError
    return row


# --- binary -----------------------------------------------------------------------------------------------------------


def _read_binary(
    path: Path, content: bytes, start: int, elements: list[_Element], order: str
) -> dict[str, NDArray[Any]]:
    at = start
    for element in elements:
        columns, at = (_walk if element.has_lists else _block)(path, content, at, element, order)
        if element.name == "vertex":
            return columns
    raise AssertionError("read_columns has seen to it that there is an element vertex")


def _cut_short(path: Path, element: _Element, at: int, needed: int, size: int) -> CloudError:
    return CloudError(
        f"{path}, offset {at}: expected {needed} bytes for {element.count} of {element.name}, found {size - at}; "
        "it is cut short"
    )


def _block(path: Path, content: bytes, at: int, element: _Element, order: str) -> tuple[dict[str, NDArray[Any]], int]:
    """Return the columns of an element whose records are all of one size, and the offset after it."""
    # Fields by number: nothing forbids two properties of one name, and numpy does.
    record = np.dtype([(str(i), order + kind) for i, (_, kind, _) in enumerate(element.properties)])
    needed = record.itemsize * element.count
    if at + needed > len(content):
        raise _cut_short(path, element, at, needed, len(content))
    rows = np.frombuffer(content, record, element.count, at) if needed else np.empty(element.count, record)
    return {name: rows[str(i)] for i, name in _scalars(element)}, at + needed


def _walk(path: Path, content: bytes, at: int, element: _Element, order: str) -> tuple[dict[str, NDArray[Any]], int]:
    """Return the scalar columns of an element with lists, and the offset after it: its records differ in size."""
    columns: dict[str, list[Any]] = {name: [] for _, name in _scalars(element)}
    types = [
        (name, np.dtype(order + kind), np.dtype(order + count_type) if count_type else None)
        for name, kind, count_type in element.properties
    ]
    for _ in range(element.count):
        for name, kind, count_type in types:
            head = count_type or kind
            if at + head.itemsize > len(content):
                raise _cut_short(path, element, at, head.itemsize, len(content))
            value = np.frombuffer(content, head, 1, at)[0]
            at += head.itemsize
            if count_type is None:
                columns[name].append(value)
            else:
                at += max(int(value), 0) * kind.itemsize
    if at > len(content):
        raise CloudError(f"{path}: {element.name} ends at offset {at}, the file at {len(content)}; it is cut short")
    return {name: np.array(values) for name, values in columns.items()}, at


# --- writing ----------------------------------------------------------------------------------------------------------


def write_ply(
    path: Path | str,
    xyz: NDArray[Any],
    labels: NDArray[Any] | None = None,
    colours: NDArray[Any] | None = None,
) -> None:
    """Write a cloud as binary little-endian PLY, which any viewer opens.

    xyz      (N, 3), stored as float
    labels   (N,) whole numbers or None, stored as int `label`
    colours  (N, 3), 0 to 255, or None, stored as uchar red, green, blue
    Raises CloudError for arrays that don't fit each other, or a path that can't be written.
    """
    points = check_xyz(xyz, "xyz")
    columns: list[tuple[str, str, NDArray[Any]]] = [("float", name, points[:, i]) for i, name in enumerate("xyz")]
    if colours is not None:
        shades = _fitting("colours", np.asarray(colours), (len(points), 3))
        if shades.min() < 0 or shades.max() > 255:
            raise CloudError(f"colours: expected 0 to 255, found {shades.min()} to {shades.max()}")
        columns += [("uchar", name, shades[:, i]) for i, name in enumerate(("red", "green", "blue"))]
    if labels is not None:
        columns.append(("int", "label", _fitting("labels", np.asarray(labels), (len(points),))))
    rows = np.empty(len(points), np.dtype([(name, "<" + TYPES[kind]) for kind, name, _ in columns]))
    for _, name, column in columns:
        rows[name] = column
    properties = "".join(f"property {kind} {name}\n" for kind, name, _ in columns)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{properties}end_header\n"
    try:
        Path(path).write_bytes(header.encode("ascii") + rows.tobytes())
    except OSError as error:
        raise CloudError(f"{path}: can't be written ({error.strerror}); choose another path") from error


def _fitting(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if array.shape != shape or array.dtype.kind not in "iuf":
        raise CloudError(f"{name}: expected numbers of shape {shape}, found {array.dtype} {array.shape}")
    return array
