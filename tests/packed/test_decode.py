"""One named error for each thing that can be wrong with the bytes of a model file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from popcloud.errors import FileError
from popcloud.packed.file import decode, encode
from popcloud.packed.layout import BLOB, HEADER, STEP, VALUE
from programs import every_op, random_program, sealed

DATA = encode(every_op(3))
RECORDS = {"values": VALUE, "steps": STEP, "blobs": BLOB}


def changed(data: bytes, field: str, value: object) -> bytes:
    """Return the file with one field of its header changed, sealed again."""
    raw = np.frombuffer(data, np.uint8).copy()
    raw[: HEADER.itemsize].view(HEADER)[field] = value
    return sealed(raw.tobytes())


def with_record(data: bytes, table: str, index: int, field: str, value: object) -> bytes:
    """Return the file with one field of a record of a table changed, sealed again."""
    raw = np.frombuffer(data, np.uint8).copy()
    start = int(raw[: HEADER.itemsize].view(HEADER)[0][f"{table}_offset"]) + index * RECORDS[table].itemsize
    raw[start : start + RECORDS[table].itemsize].view(RECORDS[table])[field] = value
    return sealed(raw.tobytes())


def test_newer_version_is_named_even_if_the_rest_is_foreign():
    with pytest.raises(FileError, match=r"newer version: expected version 1 to 4, found 5.*update"):
        decode(DATA[:8] + b"\5\0\0\0" + DATA[12:100])


def test_version_zero_is_damage():
    with pytest.raises(FileError, match="damaged: expected version 1 to 4, found 0"):
        decode(DATA[:8] + bytes(4) + DATA[12:])


@pytest.mark.parametrize("size", [8, 11, 12, 100, 255, 256, 1000, -1])
def test_truncated_file_is_called_truncated(size):
    with pytest.raises(FileError, match=r"^truncated"):
        decode(DATA[:size])


def test_longer_file_is_called_damaged():
    with pytest.raises(FileError, match=r"^damaged"):
        decode(DATA + bytes(64))


def test_flipped_bit_is_called_damaged():
    data = bytearray(DATA)
    data[-5000] ^= 1
    with pytest.raises(FileError, match=r"^damaged: expected checksum"):
        decode(bytes(data))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("points", 1 << 24 | 1),
        ("normalize", 2),
        ("value_count", 0),
        ("value_count", 1),
        ("value_count", 2**32 - 1),
        ("step_count", 1),
        ("blob_count", 2**32 - 1),
        ("blob_count", 1),
        ("class_count", 0),
        ("class_count", 4),
        ("meta_count", 2),
        ("feature_count", 1),
        ("values_offset", 320),
        ("steps_offset", 0),
        ("names_bytes", 2**64 - 1),
        ("names_bytes", 3),
        ("meta_offset", 2**64 - 64),
        ("meta_bytes", 2**63),
        ("meta_bytes", 1),
        ("data_offset", 2**64 - 64),
        ("reserved_a", 1),
        ("version", 2),
        ("plan_name", b"grid"),
        ("plan_name", b"none\0x"),
        ("plan_integers", 1),
        ("plan_floats", -0.0),
        ("reserved_b", 1),
    ],
)
def test_wrong_header_with_the_right_checksum_is_inconsistent(field, value):
    with pytest.raises(FileError, match=r"^inconsistent"):
        decode(changed(DATA, field, value))


def test_padding_is_checked():
    data = bytearray(encode(random_program(0, depth=0, classes=1)))
    data[-1] = 1
    with pytest.raises(FileError, match=r"^inconsistent: padding after blob"):
        decode(sealed(bytes(data)))


def test_meta_of_no_utf8_is_inconsistent():
    program = replace(every_op(0), meta={"key": "text"})
    data = encode(program).replace(b"text", b"\xff\xff\xff\xff")
    with pytest.raises(FileError, match=r"^inconsistent: meta: expected UTF-8"):
        decode(sealed(data))


def test_meta_length_beyond_the_section_is_inconsistent():
    program = replace(every_op(0), meta={"key": "text"})
    data = encode(program).replace(b"\4\0\0\0text", b"\5\0\0\0text")
    with pytest.raises(FileError, match=r"^inconsistent: meta"):
        decode(sealed(data))


@pytest.mark.parametrize(
    ("table", "index", "field", "value", "words"),
    [
        ("values", 1, "kind", 3, "kind of 'pool_mean_1'"),
        ("values", 1, "rows", 3, "rows of 'pool_mean_1'"),
        ("values", 1, "rows", 2, "rows of value 1 'pool_mean_1'"),
        ("values", 1, "channels", 0, "channels of value 1"),
        ("values", 1, "level", 1, "level of value 1"),
        ("steps", 2, "op", 0, "op of step 2"),
        ("steps", 2, "op", 36, "op of step 2"),
        ("steps", 2, "op", 15, "blobs of step 2"),
        ("steps", 2, "op", 20, "step 2 .ADD.*: expected an op for clouds"),
        ("steps", 2, "inputs", [0, -1, 2, -1], "inputs of step 2: expected -1 after the last"),
        ("steps", 2, "inputs", [0, 2, -1, -2], "inputs of step 2: expected -1 after the last"),
        ("steps", 2, "inputs", [0, 2, 0, 0], "inputs of step 2 .*expected 2, found 4"),
        ("steps", 2, "output", -1, "output of step 2"),
        ("steps", 2, "activation", 3, "activation of step 2"),
        ("steps", 1, "blobs", [0, -1, -1, -1, -1, -1], "blobs of step 1"),
        ("steps", 1, "blobs", [1, 0, -1, -1, -1, -1], "blobs of step 1"),
        ("steps", 1, "blobs", [0, 1, 2, -1, -1, -1], "blobs of step 1"),
        ("steps", 2, "more", [0, 1, 0], "outputs of step 2: expected 0 after the last"),
        ("steps", 2, "more", [5, 0, 0], "outputs of step 2 .*expected 1 to 1"),
        ("blobs", 0, "offset", 0, "blob 0: .* at 0"),
        ("blobs", 0, "bytes", 4, "blob 0: .*found 4 at"),
        ("blobs", 0, "dtype", 0, "blob 0: expected dtype"),
        ("blobs", 0, "dtype", 5, "blob 0: expected 54 bytes"),
        ("blobs", 0, "dtype", 6, "blob 0: expected dtype"),
        ("blobs", 0, "ndim", 0, "blob 0: expected dtype 1 to 5, 1 or 2"),
        ("blobs", 0, "ndim", 3, "blob 0: expected dtype 1 to 5, 1 or 2"),
        ("blobs", 0, "shape", [3, 9, 1, 0], "blob 0: expected dtype 1 to 5, 1 or 2"),
        ("blobs", 0, "shape", [0, 9, 0, 0], "blob 0: expected sizes"),
        ("blobs", 0, "shape", [1 << 25, 9, 0, 0], "blob 0: expected sizes"),
        ("blobs", 0, "shape", [9, 3, 0, 0], "weight of step 1"),
    ],
)
def test_wrong_record_with_the_right_checksum_is_inconsistent(table, index, field, value, words):
    with pytest.raises(FileError, match=rf"^inconsistent: {words}"):
        decode(with_record(DATA, table, index, field, value))


def test_blob_that_no_step_uses_is_inconsistent():
    """The last step turns from a map with three blobs into a pool without any: what it had is left over."""
    data = with_record(DATA, "steps", 15, "op", 6)
    with pytest.raises(FileError, match=r"^inconsistent: blobs: .*all used"):
        decode(with_record(data, "steps", 15, "blobs", -1))


def test_bytes_after_the_last_blob_are_inconsistent():
    with pytest.raises(FileError, match=r"^inconsistent: blobs: expected to end with the file"):
        decode(changed(DATA + bytes(64), "file_bytes", len(DATA) + 64))


def test_one_name_too_few_is_inconsistent():
    at = DATA.index(b"pool_mean_1\0")
    data = DATA[: at + 4] + b"\0" + DATA[at + 5 :]  # one text becomes two
    with pytest.raises(FileError, match=r"^inconsistent: names: expected 20 texts"):
        decode(sealed(data))


def test_two_values_of_one_name_are_inconsistent():
    with pytest.raises(FileError, match=r"^inconsistent: value name"):
        decode(
            sealed(
                DATA.replace(b"binary_max_12\0", b"binary_mean13\0").replace(b"binary_mean_13\0", b"binary_mean13\0_")
            )
        )
