"""MATLAB's MAT-files of level 5, numeric arrays alone (MathWorks, MAT-File Format, R2023b, chapter 1).

A file is a header of 128 bytes and data elements, each a type, a size and as many bytes; an array is an element whose
bytes are elements again: flags, dimensions, name, numbers. SciPy reads more kinds of arrays, but its reader (1.17) can
end the whole process where a file is damaged, and a data set's files can be.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popcloud.data.scene_files import damaged

HEADER = 128  # bytes
BYTE_ORDER = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}  # version 1 and the letters MI, as each order writes them
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}  # by type
MATRIX, COMPRESSED = 14, 15  # the types of an array, and of any element squeezed by zlib
NUMERIC = range(6, 16)  # classes of arrays: double to uint64; cells, structures, text and sparse ones are others
COMPLEX = 1 << 11  # a flag
LARGEST = 1 << 26  # bytes of one element unpacked; a file that says more is no use here


def read_array(path: Path, name: str) -> NDArray[Any]:
    """Return the numbers of the array `name`, (N,) in MATLAB's order (columns first), in the type they are stored in.

    Raises DatasetError that names the file where it is damaged, of another format or has no such numeric array.
    """
    content = path.read_bytes()
    order = BYTE_ORDER.get(content[HEADER - 4 : HEADER])
    if order is None:
        raise damaged(path, "expected a MATLAB v5 file, found another format or none")
    names = []
    try:
        for kind, body in _elements(content[HEADER:], order):
            if kind == COMPRESSED:
                kind, body = next(_elements(_unpacked(body), order), (0, b""))
            if kind != MATRIX:
                continue
            found, parts = _parts(body, order)
            if found == name:
                return _numbers(parts, order)
            names.append(found)
    except (ValueError, struct.error, zlib.error) as error:
        raise damaged(path, f"not a readable MATLAB v5 file ({error})") from error
    raise damaged(path, f"expected the array {name}, found {', '.join(names) or 'none'}")


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the bytes of each element."""
    at = 0
    while at < len(content):
        (kind,) = struct.unpack_from(order + "I", content, at)
        if kind >> 16:  # at most 4 bytes: their number is in the upper half of the type, they are in the size's place
            kind, size, start, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            (size,) = struct.unpack_from(order + "I", content, at + 4)
            start = at + 8
            after = start + size + (0 if kind == COMPRESSED else -size % 8)
        if start + size > len(content) or start + size > after:
            raise ValueError(f"an element of {size} bytes at {at} of {len(content)}: cut short")
        yield kind, content[start : start + size]
        at = after


def _unpacked(body: bytes) -> bytes:
    """Return what zlib squeezed. Raises ValueError where it is not whole or too large."""
    stream = zlib.decompressobj()
    content = stream.decompress(body, LARGEST)
    if not stream.eof:
        raise ValueError("a compressed element: cut short, or too large")
    return content


def _parts(body: bytes, order: str) -> tuple[str, list[tuple[int, bytes]]]:
    """Return the name of an array and its first elements: flags, dimensions, name, numbers."""
    parts = list(islice(_elements(body, order), 4))
    if len(parts) < 3:
        raise ValueError(f"an array of {len(parts)} elements: cut short")
    return _text(parts[2][1]), parts


def _text(name: bytes) -> str:
    """Return a name as one line, whatever damage it has."""
    return "".join(letter if letter.isprintable() else "?" for letter in name.decode("ascii", errors="replace"))


def _numbers(parts: list[tuple[int, bytes]], order: str) -> NDArray[Any]:
    (flags,) = struct.unpack_from(order + "I", parts[0][1])
    kind, numbers = parts[3] if len(parts) > 3 else (0, b"")
    if flags & 0xFF not in NUMERIC or flags & COMPLEX or kind not in NUMBERS:
        raise ValueError(f"{_text(parts[2][1])} is no array of real numbers")
    values = np.frombuffer(numbers, order + NUMBERS[kind])
    shape = np.frombuffer(parts[1][1], order + "i4").tolist()
    wanted = 1
    for length in shape:
        wanted *= length
    if len(values) != wanted:
        raise ValueError(f"expected {wanted} numbers for the dimensions {shape}, found {len(values)}")
    return values
