"""Where everything lies in a model file: the records of docs/format.md, and its sections.

The dtypes below are the C structs of the engine's reader: the same fields at the same offsets.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

MAGIC = b"POPCLOUD"
VERSIONS = (1, 2, 3, 4)  # of a network without a plan, of one on a voxel grid, of such a one with float16, on points
PLAN_NAMES = {1: b"none", 2: b"grid", 3: b"grid", 4: b"points"}  # what each version asks of geometry
ALIGN = 64

HEADER: np.dtype[Any] = np.dtype(
    [
        ("magic", "S8"),
        ("version", "<u4"),
        ("checksum", "<u4"),
        ("file_bytes", "<u8"),
        ("points", "<u4"),
        ("normalize", "<u4"),
        ("value_count", "<u4"),
        ("step_count", "<u4"),
        ("blob_count", "<u4"),
        ("class_count", "<u4"),
        ("meta_count", "<u4"),
        ("feature_count", "<u4"),
        ("values_offset", "<u8"),
        ("steps_offset", "<u8"),
        ("blobs_offset", "<u8"),
        ("names_offset", "<u8"),
        ("names_bytes", "<u8"),
        ("meta_offset", "<u8"),
        ("meta_bytes", "<u8"),
        ("data_offset", "<u8"),
        ("reserved_a", "<u8"),
        ("plan_name", "S16"),
        ("plan_integers", "<i4", 8),
        ("plan_floats", "<f8", 4),
        ("reserved_b", "u1", 48),
    ]
)
VALUE: np.dtype[Any] = np.dtype(
    [("kind", "<u4"), ("rows", "<u4"), ("channels", "<u4"), ("level", "<u2"), ("each", "<u2")]
)
STEP: np.dtype[Any] = np.dtype(
    [
        ("op", "<u4"),
        ("inputs", "<i4", 4),
        ("output", "<i4"),
        ("activation", "<u4"),
        ("blobs", "<i4", 6),
        ("more", "<u4", 3),
    ]
)
BLOB: np.dtype[Any] = np.dtype(
    [("offset", "<u8"), ("bytes", "<u8"), ("dtype", "<u4"), ("ndim", "<u4"), ("shape", "<u4", 4)]
)
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<i4"),
    3: np.dtype("<u8"),
    4: np.dtype("i1"),
    5: np.dtype("<f2"),
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
HALF = DTYPES[5]  # what a file of version 3 has, and no other


def up(size: int) -> int:
    """Return `size` rounded up to a multiple of 64."""
    return -(-size // ALIGN) * ALIGN


def sections(values: int, steps: int, blobs: int, names_bytes: int, meta_bytes: int) -> dict[str, int]:
    """Return where each section of a file starts, from what they hold; "data" is the first blob's place."""
    starts, at = {}, HEADER.itemsize
    sizes = {
        "values": values * VALUE.itemsize,
        "steps": steps * STEP.itemsize,
        "blobs": blobs * BLOB.itemsize,
        "names": names_bytes,
        "meta": meta_bytes,
    }
    for name, size in sizes.items():
        starts[name] = at
        at = up(at + size)
    return starts | {"data": at}


def checksum(raw: Bytes) -> int:
    """Return the CRC-32 of a file's bytes, with the four bytes of the checksum itself taken as zero."""
    return zlib.crc32(raw[16:].data, zlib.crc32(bytes(4), zlib.crc32(raw[:12].data)))
