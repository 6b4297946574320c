"""OFF meshes: vertices, triangles, and where the file departs from its counts."""

from __future__ import annotations

import numpy as np
import pytest

from popcloud.data.files_off import read_mesh
from popcloud.errors import CloudError

SQUARE = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n"


def write(folder, text: str):
    path = folder / "a.off"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "head", ["OFF\n4 1 0\n", "OFF 4 1 0\n", "OFF4 1 0\n", "# made\nOFF\n\n# counts\n4 1 0\n", "OFF\r\n4 1\r\n"]
)
def test_the_header_in_all_its_forms(tmp_path, head):
    vertices, triangles = read_mesh(write(tmp_path, head + SQUARE + "3 0 1 2\n"))
    np.testing.assert_array_equal(vertices, [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    np.testing.assert_array_equal(triangles, [[0, 1, 2]])


def test_polygons_become_fans_and_what_has_no_area_goes(tmp_path):
    _, triangles = read_mesh(write(tmp_path, f"OFF\n4 3 0\n{SQUARE}4 0 1 2 3 200 0 0\n3 3 1 0\n2 0 1\n"))
    np.testing.assert_array_equal(triangles, [[0, 1, 2], [0, 2, 3], [3, 1, 0]])


def test_plain_triangles_are_read_as_the_same_ones_with_colours(tmp_path, rng):
    faces = rng.integers(0, 30, (50, 3))
    head = "OFF\n30 50 0\n" + "".join(f"{x} {y} {z}\n" for x, y, z in rng.random((30, 3)))
    plain = read_mesh(write(tmp_path, head + "".join(f"3 {a} {b} {c}\n" for a, b, c in faces)))
    coloured = read_mesh(write(tmp_path, head + "".join(f"3 {a} {b} {c} 0.5 0 0\n" for a, b, c in faces)))
    np.testing.assert_array_equal(plain[0], coloured[0])
    np.testing.assert_array_equal(plain[1], faces)
    np.testing.assert_array_equal(coloured[1], faces)


def test_points_alone_are_a_mesh_without_triangles(tmp_path):
    vertices, triangles = read_mesh(write(tmp_path, f"OFF\n4 0 0\n{SQUARE}"))
    assert vertices.shape == (4, 3)
    assert triangles.shape == (0, 3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: expected OFF, found ''"),
        ("ply\n", "line 1: expected OFF, found 'ply'"),
        ("OFF\n", "expected vertex, face, edge counts, found ''"),
        ("OFF\nfour 1 0\n", "line 2: expected vertex, face, edge counts, found 'four 1 0'"),
        ("OFF\n-4 1 0\n", "line 2: expected vertex"),
        (f"OFF\n4 1 0\n{SQUARE}", "expected 4 vertices and 1 faces, found 4 lines; it is cut short"),
        ("OFF\n2 0 0\n0 0 0\n1 zero 0\n", "line 4: expected x y z, found '1 zero 0'"),
        ("OFF\n2 0 0\n0 0 0\n1 0\n", "line 4: expected x y z, found '1 0'"),
        (f"OFF\n4 1 0\n{SQUARE}3 0 1 4\n", "line 7: expected a count and as many of 4 vertices, found '3 0 1 4'"),
        (f"OFF\n4 1 0\n{SQUARE}3 0 1 two\n", "line 7: expected a count"),
        (f"OFF\n4 1 0\n{SQUARE}3 0 1 {10**30}\n", "line 7: expected a count"),
        (f"OFF\n4 1 0\n{SQUARE}3 0 -1 2\n", "line 7: expected a count"),
        (f"OFF\n4 1 0\n{SQUARE}3 0 1\n", "line 7: expected a count"),
        (f"OFF\n4 1 0\n{SQUARE}0\n", "line 7: expected a count"),
    ],
)
def test_a_damaged_mesh_names_the_line(tmp_path, text, says):
    with pytest.raises(CloudError, match=says):
        read_mesh(write(tmp_path, text))


def test_a_mesh_that_is_not_there(tmp_path):
    with pytest.raises(CloudError, match="can't be read"):
        read_mesh(tmp_path / "gone.off")
