"""PCD: the Point Cloud Library's format, version 0.7, as text, binary or compressed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popcloud.errors import CloudError

FORMS = ("ascii", "binary", "binary_compressed")
KINDS = {"F": "f", "I": "i", "U": "u"}
MOST_VALUES = 4096  # of one field; the longest descriptors in use have some hundreds
Columns = dict[str, NDArray[Any]]


def read_columns(path: Path) -> Columns:
    """Return the fields by name, each (N,); a field of COUNT c > 1 becomes name0 ... name(c - 1).

    Points that are not finite (an organised cloud marks its holes so) are left out; a packed rgb or rgba field becomes
    red, green, blue. Raises CloudError that names the line or the byte offset.
    """
    content = path.read_bytes()
    header, start, lines = _header(path, content)
    names, kinds = _fields(path, header)
    count = _whole(path, "POINTS", header.get("POINTS") or _area(path, header))
    form = header["DATA"][0]
    if form == "ascii":
        columns = _read_ascii(path, content[start:], names, kinds, count, lines)
    elif form == "binary":
        columns = _records(path, content[start:], names, kinds, count, start)
    else:
        columns = _compressed(path, content, names, kinds, count, start)
    return _unpack_colour(_without_holes({name: array for name, array in columns.items() if name != "_"}))


def _header(path: Path, content: bytes) -> tuple[dict[str, list[str]], int, int]:
    """Return the header's words by key, the offset of the data and the number of header lines."""
    header: dict[str, list[str]] = {}
    start = number = 0
    while "DATA" not in header:
        end, number = content.find(b"\n", start), number + 1
        if end < 0:
            what = "this is no PCD file" if not header else "it is cut short"
            raise CloudError(f"{path}, line {number}: expected the line DATA, found the end of the file; {what}")
        words = content[start:end].partition(b"#")[0].decode("ascii", errors="replace").split()
        start = end + 1
        if words:
            header[words[0].upper()] = words[1:]
    for key in ("FIELDS", "SIZE", "TYPE"):
        if key not in header:
            raise CloudError(f"{path}: expected the header line {key}, found {', '.join(header)}; this is no PCD file")
    if header["DATA"][:1] not in [[form] for form in FORMS]:
        raise CloudError(f"{path}, line {number}: expected DATA {', '.join(FORMS)}, found {header['DATA']}")
    return header, start, number


def _whole(path: Path, key: str, words: list[str]) -> int:
    try:
        value = int(words[0])
        if value < 0:
            raise ValueError
    except (ValueError, IndexError) as error:
        raise CloudError(f"{path}: expected {key} and a whole number, found {words}") from error
    return value


def _area(path: Path, header: dict[str, list[str]]) -> list[str]:
    return [str(np.prod([_whole(path, key, header.get(key, [])) for key in ("WIDTH", "HEIGHT")]))]


def _fields(path: Path, header: dict[str, list[str]]) -> tuple[list[str], list[np.dtype[Any]]]:
    """Return one name and type per column, little endian as PCL writes them. Padding is called "_"."""
    fields = header["FIELDS"]
    counts = header.get("COUNT", ["1"] * len(fields))
    names: list[str] = []
    kinds: list[np.dtype[Any]] = []
    try:
        for name, size, kind, count in zip(fields, header["SIZE"], header["TYPE"], counts, strict=True):
            repeated = int(count)
            if repeated > MOST_VALUES:
                raise ValueError(count)
            names += [name] if repeated == 1 or name == "_" else [f"{name}{i}" for i in range(repeated)]
            one = np.dtype(f"<{KINDS[kind]}{size}")
            padded = np.dtype((np.void, one.itemsize * repeated)) if name == "_" else one
            kinds += [padded] * (1 if name == "_" else repeated)
    except (ValueError, KeyError, TypeError) as error:
        raise CloudError(f"{path}: FIELDS, SIZE, TYPE and COUNT don't fit each other: {header}") from error
    return names, kinds


def _read_ascii(
    path: Path, body: bytes, names: list[str], kinds: list[np.dtype[Any]], count: int, header_lines: int
) -> Columns:
    rows: list[list[float]] = []
    # A packed colour is a float in the file's text too, so numbers are enough here.
    for number, line in enumerate(body.decode("ascii", errors="replace").splitlines(), start=header_lines + 1):
        words = line.split()
        if not words or len(rows) == count:
            continue
        try:
            if len(words) != len(names):
                raise ValueError
            rows.append([float(word) for word in words])
        except ValueError as error:
            raise CloudError(
                f"{path}, line {number}: expected the numbers {' '.join(names)}, found {line.strip()[:40]!r}"
            ) from error
    if len(rows) < count:
        raise CloudError(f"{path}: expected {count} points, found {len(rows)}; it is cut short")
    table = np.array(rows).reshape(-1, len(names))
    return {name: table[:, i].astype(kind) for i, (name, kind) in enumerate(zip(names, kinds, strict=True))}


def _records(path: Path, body: bytes, names: list[str], kinds: list[np.dtype[Any]], count: int, start: int) -> Columns:
    """Return the columns of point after point."""
    record = np.dtype([(str(i), kind) for i, kind in enumerate(kinds)])
    needed = record.itemsize * count
    if len(body) < needed:
        raise CloudError(
            f"{path}, offset {start}: expected {needed} bytes for {count} points, found {len(body)}; it is cut short"
        )
    rows = np.frombuffer(body, record, count)
    return {name: rows[str(i)] for i, name in enumerate(names)}


def _compressed(
    path: Path, content: bytes, names: list[str], kinds: list[np.dtype[Any]], count: int, start: int
) -> Columns:
    """Return the columns of LZF-compressed data: the whole first field, the whole second, ..."""
    needed = sum(kind.itemsize for kind in kinds) * count
    sizes = np.frombuffer(content[start : start + 8], "<u4") if len(content) >= start + 8 else np.array([0, 0])
    packed = content[start + 8 : start + 8 + int(sizes[0])]
    if len(packed) < sizes[0] or len(content) < start + 8:
        raise CloudError(
            f"{path}, offset {start}: expected {sizes[0]} compressed bytes, found {len(packed)}; it is cut short"
        )
    if sizes[1] != needed:
        raise CloudError(f"{path}, offset {start + 4}: expected {needed} bytes for {count} points, found {sizes[1]}")
    try:
        body = lzf_decompress(packed, needed)
    except ValueError as error:
        raise CloudError(f"{path}, offset {start + 8}: damaged compressed data ({error})") from error
    columns: Columns = {}
    at = 0
    for name, kind in zip(names, kinds, strict=True):
        columns[name] = np.frombuffer(body, kind, count, at)
        at += kind.itemsize * count
    return columns


def lzf_decompress(packed: bytes, size: int) -> bytes:
    """Return the `size` bytes that LZF (Lehmann's liblzf) packed. Raises ValueError for damaged data.

    A control byte c < 32 is followed by c + 1 literal bytes. Otherwise c's upper 3 bits + 2 are the length of a copy
    from earlier output (7: another length byte follows), its lower 5 bits and the next byte how far back, minus 1.
    """
    out = bytearray()
    at = 0
    try:
        while at < len(packed):
            control = packed[at]
            at += 1
            if control < 32:
                if at + control >= len(packed):
                    raise ValueError("literal bytes are missing")
                out += packed[at : at + control + 1]
                at += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += packed[at]
                at += 1
            back = ((control & 31) << 8) + packed[at] + 1
            at += 1
            if back > len(out):
                raise ValueError("a copy reaches before the beginning")
            start, length = len(out) - back, length + 2
            # A copy may overlap what it writes: then the bytes it starts from repeat.
            chunk = out[start : start + length]
            out += (chunk * (length // len(chunk) + 1))[:length]
    except IndexError as error:
        raise ValueError("it ends within a copy") from error
    if len(out) != size:
        raise ValueError(f"expected {size} bytes, found {len(out)}")
    return bytes(out)


def _without_holes(columns: Columns) -> Columns:
    present = [columns[name] for name in "xyz" if name in columns]
    if not present or not all(column.dtype.kind == "f" for column in present):
        return columns
    finite = np.isfinite(present).all(axis=0)
    # A cloud of holes alone stays, so that the message says that its points are not finite.
    return {name: column[finite] for name, column in columns.items()} if finite.any() else columns


def _unpack_colour(columns: Columns) -> Columns:
    """Return the columns with a packed rgb or rgba (the bits of 0x00RRGGBB, as PCL keeps them) taken apart."""
    answer: Columns = {}
    for name, column in columns.items():
        if name not in ("rgb", "rgba") or column.dtype.itemsize != 4:
            answer[name] = column
            continue
        bits = np.ascontiguousarray(column).view("<u4")
        answer |= {shade: (bits >> shift) & 255 for shade, shift in (("red", 16), ("green", 8), ("blue", 0))}
    return answer
