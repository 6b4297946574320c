"""MATLAB v5 files: what SciPy writes is read, what is damaged is named and ends no process."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcloud.data.files_mat import read_array
from popcloud.errors import DatasetError

savemat = pytest.importorskip("scipy.io").savemat

CELL = np.empty((1, 2), object)
CELL[0] = ["wall", "a longer name"]
ARRAYS = {
    "className": CELL,
    "row": np.arange(1.0, 900.0)[None],
    "column": np.arange(7.0)[:, None],
    "grid": np.arange(6, dtype=np.int16).reshape(2, 3),
    "one": np.array([[3]], np.uint8),
    "text": "some text",
    "imaginary": np.array([[1 + 2j]]),
    "last": np.array([[1.5, -2.5]], np.float32),
}
READABLE = ("row", "column", "grid", "one", "last")


@pytest.fixture(params=[False, True], ids=["plain", "compressed"])
def path(tmp_path, request):
    savemat(tmp_path / "a.mat", ARRAYS, do_compression=request.param)
    return tmp_path / "a.mat"


@pytest.mark.parametrize("name", READABLE)
def test_arrays_come_back_columns_first(path, name):
    values = read_array(path, name)
    np.testing.assert_array_equal(values, ARRAYS[name].reshape(-1, order="F"))


def element(order: str, kind: int, body: bytes) -> bytes:
    return struct.pack(order + "II", kind, len(body)) + body + bytes(-len(body) % 8)


@pytest.mark.parametrize(("order", "mark"), [("<", b"\x00\x01IM"), (">", b"\x01\x00MI")])
def test_numbers_may_be_stored_in_a_smaller_type_and_any_byte_order(tmp_path, order, mark):
    parts = element(order, 6, struct.pack(order + "II", 6, 0))  # class double
    parts += element(order, 5, struct.pack(order + "ii", 1, 3))
    # A name of up to 4 bytes lies in its own tag: the size in the upper half, the type in the lower.
    parts += struct.pack(order + "I", 2 << 16 | 1) + b"ab\0\0"
    parts += element(order, 4, struct.pack(order + "3H", 5, 600, 7))
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + mark + element(order, 14, parts))
    np.testing.assert_array_equal(read_array(tmp_path / "a.mat", "ab"), [5, 600, 7])


@pytest.mark.parametrize("name", ["className", "text", "imaginary"])
def test_other_kinds_of_arrays_are_refused_by_name(path, name):
    with pytest.raises(DatasetError, match=rf"a\.mat: .*{name} is no array of real numbers"):
        read_array(path, name)


def test_an_array_that_is_not_there_lists_those_that_are(path):
    with pytest.raises(DatasetError, match="expected the array mapClass, found className, row, column, grid, one"):
        read_array(path, "mapClass")


@pytest.mark.parametrize("content", [b"", b"MATLAB", bytes(200), b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"])
def test_another_format_is_named(tmp_path, content):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.mat: expected a MATLAB v5 file"):
        read_array(tmp_path / "a.mat", "row")


@pytest.mark.parametrize("lost", [1, 5, 60])
def test_a_file_cut_short_is_named(path, lost):
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(DatasetError, match=r"a\.mat: not a readable MATLAB v5 file \(.*cut short|unpack"):
        read_array(path, "last")


def test_dimensions_that_lie_are_refused(tmp_path):
    savemat(tmp_path / "a.mat", {"row": np.arange(3.0)})
    content = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "a.mat").write_bytes(content.replace(struct.pack("<ii", 1, 3), struct.pack("<ii", 1 << 30, 3)))
    with pytest.raises(DatasetError, match=r"numbers for the dimensions .*found 3"):
        read_array(tmp_path / "a.mat", "row")


@given(
    changes=st.lists(st.tuples(st.integers(100, 5000), st.integers(0, 255)), min_size=1, max_size=4),
    squeezed=st.booleans(),
)
def test_any_damage_gives_numbers_or_a_named_error(tmp_path_factory, changes, squeezed):
    path = tmp_path_factory.getbasetemp() / "damaged.mat"
    savemat(path, ARRAYS, do_compression=squeezed)
    content = bytearray(path.read_bytes())
    for at, value in changes:
        content[at % len(content)] = value
    path.write_bytes(bytes(content))
    message, values = "", None
    try:
        values = read_array(path, "last")
    except DatasetError as error:
        message = str(error)
    assert (values is None) == (str(path) in message)
    assert "\n" not in message
