"""PLY files written by hand, byte by byte, in all three forms; and written by us."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from popcloud.data.files import read_cloud
from popcloud.data.files_ply import write_ply
from popcloud.errors import CloudError

XYZ = [[0.0, 0.0, 0.0], [1.5, -2.0, 3.0]]
ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}


def write(folder, form: str, elements: str, body: bytes):
    path = folder / "a.ply"
    head = f"ply\nformat {form} 1.0\ncomment by hand\n{elements}end_header\n"
    path.write_bytes(head.encode() + body)
    return path


VERTICES = "element vertex 2\nproperty float x\nproperty float y\nproperty float z\n"


def test_ascii(tmp_path):
    cloud = read_cloud(write(tmp_path, "ascii", VERTICES, b"0 0 0\n1.5 -2 3\n"))
    np.testing.assert_array_equal(cloud.xyz, XYZ)
    assert cloud.features is None


@pytest.mark.parametrize("form", ORDERS)
def test_binary(tmp_path, form):
    body = struct.pack(ORDERS[form] + "6f", *np.ravel(XYZ))
    np.testing.assert_array_equal(read_cloud(write(tmp_path, form, VERTICES, body)).xyz, XYZ)


MIXED = (
    "obj_info any order, any type\nelement vertex 2\nproperty uchar red\nproperty double z\nproperty short y\n"
    "property int32 label\nproperty float32 x\n"
)


@pytest.mark.parametrize("form", ["ascii", *ORDERS])
def test_properties_in_any_order_and_type(tmp_path, form):
    rows = [(200, 3.25, -7, 4, 0.5), (1, 1e10, 300, -1, -0.25)]
    if form == "ascii":
        body = "\n".join(" ".join(str(value) for value in row) for row in rows).encode()
    else:
        body = b"".join(struct.pack(ORDERS[form] + "Bdhif", *row) for row in rows)
    cloud = read_cloud(write(tmp_path, form, MIXED, body))
    np.testing.assert_array_equal(cloud.xyz, np.array([[0.5, -7, 3.25], [-0.25, 300, 1e10]], np.float32))
    np.testing.assert_array_equal(cloud.features, [[200], [1]])
    np.testing.assert_array_equal(cloud.labels, [4, -1])


LISTS = (
    "element camera 1\nproperty list uint8 int16 views\nproperty float focus\n"
    "element vertex 2\nproperty float x\nproperty list uchar float weights\nproperty float y\nproperty float z\n"
    "element face 1\nproperty list uchar int vertex_indices\n"
)


@pytest.mark.parametrize("form", ["ascii", *ORDERS])
def test_lists_are_skipped_wherever_they_stand(tmp_path, form):
    if form == "ascii":
        body = b"3 1 2 3 0.5\n0 2 9 9 0 0\n1.5 0 -2 3\n3 0 1 1\n"
    else:
        order = ORDERS[form]
        body = struct.pack(order + "B3hf", 3, 1, 2, 3, 0.5)
        body += struct.pack(order + "fB2f2f", 0, 2, 9, 9, 0, 0) + struct.pack(order + "fB2f", 1.5, 0, -2, 3)
        body += struct.pack(order + "B3i", 3, 0, 1, 1)
    np.testing.assert_array_equal(read_cloud(write(tmp_path, form, LISTS, body)).xyz, XYZ)


def test_windows_line_ends(tmp_path):
    path = tmp_path / "a.ply"
    path.write_bytes(f"ply\nformat ascii 1.0\n{VERTICES}end_header\n0 0 0\n1.5 -2 3\n".replace("\n", "\r\n").encode())
    np.testing.assert_array_equal(read_cloud(path).xyz, XYZ)


@pytest.mark.parametrize("form", ORDERS)
def test_binary_cut_short_names_the_offset(tmp_path, form):
    path = write(tmp_path, form, VERTICES, struct.pack(ORDERS[form] + "5f", *range(5)))
    offset = len(path.read_bytes()) - 20
    with pytest.raises(CloudError, match=f"offset {offset}: expected 24 bytes for 2 of vertex, found 20"):
        read_cloud(path)


@pytest.mark.parametrize("keep", range(1, 12))
def test_a_binary_element_with_lists_cut_short(tmp_path, keep):
    elements = "element vertex 1\nproperty list uchar float w\nproperty float x\nproperty float y\nproperty float z\n"
    body = struct.pack("<Bf3f", 1, 9, 1, 2, 3)[:keep]
    with pytest.raises(CloudError, match="cut short"):
        read_cloud(write(tmp_path, "binary_little_endian", elements, body))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"0 0 0\n", "expected 2 of vertex, found 1; it is cut short"),
        (b"0 0 0\n1 2\n", "line 10: expected x y z, found '1 2'"),
        (b"0 0 0\n1 2 three\n", "line 10: expected x y z, found '1 2 three'"),
        (b"0 0 0\n1 2 inf\n", "not finite"),
    ],
)
def test_damaged_text_names_the_line(tmp_path, body, says):
    with pytest.raises(CloudError, match=says):
        read_cloud(write(tmp_path, "ascii", VERTICES, body))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "line 1: expected ply"),
        ("solid\n", "line 1: expected ply, found 'solid'"),
        ("ply\nformat ascii 1.0\n", "line 3: expected end_header, found the end of the file"),
        ("ply\nformat ascii 1.0\nelement vertex two\nend_header\n", "line 3: expected a PLY header line"),
        ("ply\nformat ascii 1.0\nproperty float x\nend_header\n", "line 3: expected a PLY header line"),
        (
            "ply\nformat ascii 1.0\nelement vertex 1\nproperty half x\nend_header\n",
            "line 4: expected a PLY header line",
        ),
        ("ply\nformat ascii 1.0\nvertices 3\nend_header\n", "line 3: expected a PLY header line"),
        ("ply\nformat text 1.0\nelement vertex 0\nend_header\n", "expected format ascii, binary_little_endian"),
        ("ply\nformat ascii 1.0\nelement face 0\nend_header\n", "expected an element vertex, found face"),
        (
            "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n",
            "expected the columns x, y, z, found x",
        ),
        (
            "ply\nformat ascii 1.0\nelement vertex -1\nproperty float x\nend_header\n",
            "line 3: expected a PLY header line",
        ),
        (f"ply\nformat ascii 1.0\n{VERTICES}end_header\n".replace("vertex 2", "vertex 0"), "at least one point"),
    ],
)
def test_a_header_that_is_wrong(tmp_path, content, says):
    path = tmp_path / "a.ply"
    path.write_text(content)
    with pytest.raises(CloudError, match=says):
        read_cloud(path)


# --- writing ---


@given(
    xyz=arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=st.floats(-1e6, 1e6, width=32)),
    with_labels=st.booleans(),
    with_colours=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_is_written_is_read_again(tmp_path_factory, xyz, with_labels, with_colours, seed):
    path = tmp_path_factory.getbasetemp() / "round.ply"
    rng = np.random.default_rng(seed)
    labels = rng.integers(-5, 1000, len(xyz)) if with_labels else None
    colours = rng.integers(0, 256, (len(xyz), 3)) if with_colours else None
    write_ply(path, xyz, labels, colours)
    cloud = read_cloud(path)
    np.testing.assert_array_equal(cloud.xyz, xyz)
    for expected, found in ((labels, cloud.labels), (colours, cloud.features)):
        if expected is None:
            assert found is None
        else:
            np.testing.assert_array_equal(found, expected)


def test_the_bytes_written(tmp_path):
    write_ply(tmp_path / "a.ply", np.array([[1, 2, 3]]), np.array([7]), np.array([[255, 0, 128]]))
    head = (
        "ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nproperty int label\nend_header\n"
    )
    assert (tmp_path / "a.ply").read_bytes() == head.encode() + struct.pack("<3f3Bi", 1, 2, 3, 255, 0, 128, 7)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"labels": np.zeros(3)}, r"labels: expected numbers of shape \(2,\)"),
        ({"colours": np.zeros((2, 4))}, r"colours: expected numbers of shape \(2, 3\)"),
        ({"colours": np.full((2, 3), 256)}, "colours: expected 0 to 255, found 256 to 256"),
        ({"labels": np.array(["a", "b"])}, "labels: expected numbers"),
    ],
)
def test_arrays_that_dont_fit_are_not_written(tmp_path, arguments, says):
    with pytest.raises(CloudError, match=says):
        write_ply(tmp_path / "a.ply", np.array(XYZ), **arguments)
    assert not (tmp_path / "a.ply").exists()


def test_a_path_that_cant_be_written(tmp_path):
    with pytest.raises(CloudError, match="can't be written"):
        write_ply(tmp_path / "none" / "a.ply", np.array(XYZ))


def test_a_header_that_promises_too_much_takes_no_memory(tmp_path):
    path = tmp_path / "a.ply"
    names = "".join(f"property float {name}\n" for name in "xyz")
    for form in ("ascii", "binary_little_endian"):
        path.write_text(f"ply\nformat {form} 1.0\nelement vertex 999999999999\n{names}end_header\n1 2 3\n")
        with pytest.raises(CloudError, match="it is cut short"):
            read_cloud(path)
