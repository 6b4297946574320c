"""Halves that are missing, lists, tables of ids and colours."""

from __future__ import annotations

import numpy as np
import pytest

from popcloud.cloud import IGNORE, PointCloud
from popcloud.data.scene_files import (
    check_halves,
    check_lengths,
    folder_of,
    id_table,
    listed,
    look_up,
    scaled_colours,
    scene_set,
)
from popcloud.errors import DatasetError

TABLE = id_table({0: IGNORE, 3: 1, 5: 0})


def test_the_folder_is_returned_or_the_layout_named(tmp_path):
    assert folder_of("set", str(tmp_path), "expected a.txt") == tmp_path
    with pytest.raises(DatasetError, match=r"set: expected the data set's folder, found none; expected a\.txt"):
        folder_of("set", None, "expected a.txt")
    with pytest.raises(DatasetError, match=r"gone: no such folder; expected a\.txt"):
        folder_of("set", tmp_path / "gone", "expected a.txt")


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (["a.bin"], r"a\.bin: a cloud without labels, .*a\.label is missing; try again"),
        (["a.label"], r"a\.label: labels without their cloud, .*a\.bin is missing; try again"),
        ([], r"a\.bin is missing, and so is a\.label; try again"),
    ],
)
def test_the_half_that_is_missing_is_named(tmp_path, there, says):
    for name in there:
        (tmp_path / name).touch()
    with pytest.raises(DatasetError, match=says):
        check_halves(tmp_path / "a.bin", tmp_path / "a.label", "try again")


def test_two_halves_are_fine(tmp_path):
    for name in ("a.bin", "a.label"):
        (tmp_path / name).touch()
    assert check_halves(tmp_path / "a.bin", tmp_path / "a.label", "") is None
    assert check_lengths(tmp_path / "a.bin", 3, tmp_path / "a.label", 3) is None


def test_halves_of_different_lengths(tmp_path):
    with pytest.raises(DatasetError, match=r"a\.label: expected 3 labels, one per point of a\.bin, found 4"):
        check_lengths(tmp_path / "a.bin", 3, tmp_path / "a.label", 4)


def test_a_list_of_names(tmp_path):
    (tmp_path / "list.txt").write_text("b\n a \r\n\nc")
    assert listed(tmp_path / "list.txt", "") == ["b", "a", "c"]


@pytest.mark.parametrize(("text", "says"), [("\n", "one name a line, found none"), ("a\nb\na\n", "every name once")])
def test_lists_that_are_no_use(tmp_path, text, says):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(DatasetError, match=f"list.txt: expected {says}"):
        listed(tmp_path / "list.txt", "")


def test_a_list_that_is_missing(tmp_path):
    with pytest.raises(DatasetError, match=r"list\.txt is missing: the folder is half written.*; expected lists"):
        listed(tmp_path / "list.txt", "expected lists")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32])
def test_ids_become_classes(tmp_path, dtype):
    labels = look_up(tmp_path, np.array([[5, 0], [3, 3]], dtype), TABLE)
    np.testing.assert_array_equal(labels, [[0, IGNORE], [1, 1]])
    assert labels.dtype == np.int64


@pytest.mark.parametrize(
    ("ids", "says"),
    [([5, 4], "found 4$"), ([6, 0], "found 6$"), ([-1], "found -1$"), (range(6, 20), "found 6, 7, 8, 9, 10, ...$")],
)
def test_ids_outside_of_the_table_are_named_with_the_file(tmp_path, ids, says):
    with pytest.raises(DatasetError, match=rf"a\.label: expected label ids .* at most 5, {says[:5]}") as caught:
        look_up(tmp_path / "a.label", np.array(ids), TABLE)
    found = str(caught.value).partition(";")[0]
    assert found.endswith(says.removesuffix("$"))


def test_colours_are_scaled_to_minus_one_to_one():
    scaled = scaled_colours(np.array([[0, 255, 51]], np.uint8))
    np.testing.assert_allclose(scaled, [[-1, 1, -0.6]], atol=1e-6)
    assert scaled.dtype == np.float32


def test_a_set_keeps_the_classes_asked_for(tmp_path):
    cloud = PointCloud(np.zeros((3, 3), np.float32), None, np.array([0, 1, IGNORE]))
    data = scene_set(tmp_path, [("a", cloud)], ("floor", "wall"), ["wall"], ())
    np.testing.assert_array_equal(data.clouds[0].labels, [IGNORE, 0, IGNORE])
    assert (data.names, data.classes, data.features) == (("a",), ("wall",), ())


def test_scenes_without_any_labelled_point_are_refused(tmp_path):
    cloud = PointCloud(np.zeros((2, 3), np.float32), None, np.array([0, IGNORE]))
    with pytest.raises(DatasetError, match=r"no point of these 1 scenes is one of wall$"):
        scene_set(tmp_path, [("a", cloud)], ("floor", "wall"), ["wall"], ())
