"""Clouds from numpy and text files, each written by hand; what every ending shares."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from popcloud.data import files_ply
from popcloud.data.files import READERS, read_cloud, read_features
from popcloud.data.scene_files import scaled_colours
from popcloud.errors import CloudError

POINTS = np.array([[0, 0, 0], [1.5, -2, 3e-3], [1e3, 4, 5]], dtype=np.float32)
TABLE = np.hstack([POINTS, [[1, 2], [3, 4], [5, 6]]]).astype(np.float64)


# --- numpy ---


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2"])
def test_npy_of_any_number_type(tmp_path, dtype):
    np.save(tmp_path / "a.npy", TABLE.astype(dtype))
    cloud = read_cloud(tmp_path / "a.npy")
    np.testing.assert_allclose(cloud.xyz, TABLE[:, :3].astype(dtype), rtol=1e-6)
    np.testing.assert_allclose(cloud.features, TABLE[:, 3:])
    assert cloud.xyz.dtype == cloud.features.dtype == np.float32
    assert cloud.labels is None


@pytest.mark.parametrize("key", ["xyz", "points", "anything"])
def test_npz_by_the_arrays_name_or_alone(tmp_path, key):
    np.savez(tmp_path / "a.npz", **{key: POINTS})
    cloud = read_cloud(tmp_path / "a.npz")
    np.testing.assert_array_equal(cloud.xyz, POINTS)
    assert cloud.features is None


def test_npz_with_features_and_labels(tmp_path):
    np.savez(tmp_path / "a.npz", xyz=POINTS, features=np.arange(3), labels=np.array([2, 0, 1], np.uint8))
    cloud = read_cloud(tmp_path / "a.npz")
    np.testing.assert_array_equal(cloud.features, [[0], [1], [2]])
    np.testing.assert_array_equal(cloud.labels, [2, 0, 1])
    assert cloud.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("arrays_", "says"),
    [
        ({"a": POINTS, "b": POINTS}, "expected an array named xyz or points, found a, b"),
        ({"xyz": POINTS, "labels": np.zeros(2)}, "expected labels as numbers for 3 points"),
        ({"xyz": POINTS, "features": np.zeros((2, 2))}, "expected features as numbers for 3 points"),
        ({"xyz": np.array([["x", "y", "z"]])}, "expected numbers, found"),
    ],
)
def test_npz_that_is_no_cloud(tmp_path, arrays_, says):
    np.savez(tmp_path / "a.npz", **arrays_)
    with pytest.raises(CloudError, match=says):
        read_cloud(tmp_path / "a.npz")


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_pickles_are_refused(tmp_path, ending):
    pickled = np.array([[{"a": 1}, 2, 3]], dtype=object)
    path = tmp_path / f"a{ending}"
    if ending == ".npy":
        np.save(path, pickled, allow_pickle=True)
    else:
        np.savez(path, xyz=pickled)
    with pytest.raises(CloudError, match="plain numbers"):
        read_cloud(path)


def test_npy_and_npz_taken_for_each_other(tmp_path):
    np.save(tmp_path / "a.npy", POINTS)
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npy").read_bytes())
    np.savez(tmp_path / "c.npz", xyz=POINTS)
    (tmp_path / "d.npy").write_bytes((tmp_path / "c.npz").read_bytes())
    with pytest.raises(CloudError, match=r"name it \.npy"):
        read_cloud(tmp_path / "b.npz")
    with pytest.raises(CloudError, match=r"name it \.npz"):
        read_cloud(tmp_path / "d.npy")


@pytest.mark.parametrize("shape", [(3,), (3, 2), (2, 3, 3), (0, 3)])
def test_arrays_of_another_shape(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(CloudError, match=r"a\.npy: expected"):
        read_cloud(tmp_path / "a.npy")


@pytest.mark.parametrize("ending", [".npy", ".npz"])
@pytest.mark.parametrize("keep", [0, 3, 60, -20])
def test_truncated_numpy_files(tmp_path, ending, keep):
    (np.save if ending == ".npy" else np.savez)(tmp_path / f"whole{ending}", POINTS)
    path = tmp_path / f"part{ending}"
    path.write_bytes((tmp_path / f"whole{ending}").read_bytes()[:keep])
    with pytest.raises(CloudError, match="part"):
        read_cloud(path)


# --- text ---


@pytest.mark.parametrize(
    "text",
    [
        "0 0 0\n1 2 3\n",
        "0,0,0\r\n1,2,3",
        "# x y z\n\n0 0 0 # the origin\n1\t2\t3\n",
        "// made by hand\n 0, 0, 0\n 1.0, 2e0, +3 \n",
        "\ufeff0;0;0\n1;2;3\n",
    ],
)
@pytest.mark.parametrize("ending", [".xyz", ".txt", ".XYZ"])
def test_text_with_spaces_commas_and_comments(tmp_path, text, ending):
    path = tmp_path / f"a{ending}"
    path.write_bytes(text.encode("utf-8"))
    np.testing.assert_array_equal(read_cloud(path).xyz, [[0, 0, 0], [1, 2, 3]])


def test_more_columns_are_features(tmp_path):
    (tmp_path / "a.txt").write_text("0 0 0 255 0\n1 2 3 0 9\n")
    np.testing.assert_array_equal(read_cloud(tmp_path / "a.txt").features, [[255, 0], [0, 9]])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0 0 0\n# note\n1 2 three\n", "line 3: expected numbers x y z, found '1 2 three'"),
        ("0 0 0\n1 2\n", "line 2: expected 3 numbers, found 2"),
        ("0 0\n", "line 1: expected at least 3 numbers, found 2"),
        ("0 0 0\n1 2 3 4\n", "line 2: expected 3 numbers, found 4"),
        ("# nothing\n", "expected one point a line, found none"),
        ("0 0 nan\n", "1 of 1 points are not finite"),
    ],
)
def test_text_that_is_no_cloud_names_the_line(tmp_path, text, says):
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(CloudError, match=says) as caught:
        read_cloud(tmp_path / "a.xyz")
    assert "a.xyz" in str(caught.value)
    assert "\n" not in str(caught.value)


# --- off ---


def test_off_vertices_with_quirk_polygons_and_comments(tmp_path):
    (tmp_path / "a.off").write_text(
        "OFF4 2 0\n0 0 0\n1 0 0 # corner\n1 1 0\n0 1 0 255 0 0\n4 0 1 2 3 0.5 0.5 0.5\n3 0 1 2\n"
    )
    cloud = read_cloud(tmp_path / "a.off")
    np.testing.assert_array_equal(cloud.xyz, [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    assert cloud.features is None


# --- all ---


def test_an_unknown_ending_lists_the_valid_ones(tmp_path):
    with pytest.raises(
        CloudError, match=r"unknown ending '\.las'; valid: \.npy, \.npz, \.xyz, \.txt, \.ply, \.off, \.pcd"
    ):
        read_cloud(tmp_path / "a.las")


@pytest.mark.parametrize("ending", READERS)
def test_a_file_that_is_not_there(tmp_path, ending):
    with pytest.raises(CloudError, match="expected a file, found nothing there"):
        read_cloud(tmp_path / f"gone{ending}")


@pytest.mark.parametrize("ending", READERS)
def test_a_folder_in_place_of_a_file(tmp_path, ending):
    (tmp_path / f"folder{ending}").mkdir()
    with pytest.raises(CloudError, match="found a folder"):
        read_cloud(tmp_path / f"folder{ending}")


@pytest.mark.parametrize("ending", READERS)
@given(content=st.binary(max_size=200))
def test_any_bytes_give_a_cloud_or_a_named_error(tmp_path_factory, ending, content):
    path = tmp_path_factory.getbasetemp() / f"noise{ending}"
    path.write_bytes(content)
    message, cloud = "", None
    try:
        cloud = read_cloud(path)
    except CloudError as error:
        message = str(error)
    assert (cloud is None) == (str(path) in message)
    assert cloud is None or np.isfinite(cloud.xyz).all()


@given(xyz=arrays(np.float32, st.tuples(st.integers(1, 20), st.just(3)), elements=st.floats(-1e6, 1e6, width=32)))
def test_numpy_and_text_round_trips(tmp_path_factory, xyz):
    folder: Path = tmp_path_factory.getbasetemp()
    np.save(folder / "r.npy", xyz)
    np.savez_compressed(folder / "r.npz", points=xyz)
    (folder / "r.xyz").write_text("\n".join(" ".join(str(value) for value in row) for row in xyz))
    for name in ("r.npy", "r.npz", "r.xyz"):
        np.testing.assert_array_equal(read_cloud(folder / name).xyz, xyz)


@pytest.mark.parametrize("shape", ["(99999999999999, 3)", "(1, 3"], ids=["too large", "unfinished"])
def test_a_numpy_header_that_lies(tmp_path, shape):
    path = tmp_path / "a.npy"
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(12))
    with pytest.raises(CloudError, match="not a numpy file of plain numbers"):
        read_cloud(path)


# --- features by name -------------------------------------------------------------------------------------------------

COLOURS = np.array([[0, 128, 255], [255, 1, 2], [3, 4, 5]], np.uint8)


@pytest.mark.parametrize("form", ["binary", "ascii", "npz"])
def test_colours_of_bytes_are_scaled_as_data_sets_have_them(tmp_path, form):
    path = tmp_path / ("a.npz" if form == "npz" else "a.ply")
    red, green, blue = COLOURS.T
    if form == "npz":
        np.savez(path, xyz=POINTS, intensity=[7.0, 8, 9], blue=blue, red=red, green=green)
    elif form == "binary":
        files_ply.write_ply(path, POINTS, np.array([2, 0, 1]), COLOURS)
    else:
        names = "".join(f"property float {name}\n" for name in "xyz")
        names += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
        rows = "".join(f"{' '.join(map(str, [*a, *b]))}\n" for a, b in zip(POINTS, COLOURS.tolist(), strict=True))
        path.write_text(f"ply\nformat ascii 1.0\nelement vertex 3\n{names}end_header\n{rows}")
    cloud = read_features(path, ["blue", "red"])
    np.testing.assert_array_equal(cloud.features, scaled_colours(COLOURS)[:, [2, 0]])
    assert cloud.features.dtype == np.float32
    np.testing.assert_allclose(cloud.xyz, POINTS)
    if form == "binary":
        np.testing.assert_array_equal(cloud.labels, [2, 0, 1])


def test_other_features_stay_as_they_are(tmp_path):
    np.savez(tmp_path / "a.npz", xyz=POINTS, red=[-1.0, 0.25, 1], intensity=np.array([7, 8, 900]))
    cloud = read_features(tmp_path / "a.npz", ["intensity", "red"])
    np.testing.assert_array_equal(cloud.features, [[7, -1], [8, 0.25], [900, 1]])
    assert read_features(tmp_path / "a.npz", []).features is None


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["red", "height"], "expected the columns red, height, found x, y, z, red without height;"),
        (["red"], "red: expected whole numbers from 0 to 255, found 3 to 256"),
    ],
)
def test_features_that_cant_be_used_are_named(tmp_path, names, says):
    np.savez(tmp_path / "a.npz", xyz=POINTS, red=np.array([3, 256, 9]), odd=np.zeros(2))
    with pytest.raises(CloudError, match=re.escape(f"a.npz: {says}")):
        read_features(tmp_path / "a.npz", names)
