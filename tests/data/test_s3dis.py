"""S3DIS in a folder of tiny rooms."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from official_folders import write_room, write_s3dis
from popcloud.data.s3dis import CLASSES, load, read_room
from popcloud.errors import DatasetError

OBJECTS = {"chair_1": 7, "ceiling_1": 20, "clutter_10": 3}


@pytest.fixture
def root(tmp_path) -> Path:
    write_s3dis(tmp_path)
    return tmp_path


@pytest.fixture
def room(root) -> Path:
    return root / "Area_5" / "office_1"


def test_one_area_is_held_out(root):
    train, test = load(root, "train"), load(root, "test")
    assert test.names == ("Area_5/hallway_2", "Area_5/office_1")
    assert [name[5] for name in train.names] == list("1122334466")
    other = load(root, "test", test_area="Area_2")
    assert other.names == ("Area_2/hallway_2", "Area_2/office_1")
    assert "Area_5/office_1" in load(root, "train", test_area="Area_2").names


def test_objects_are_joined_in_order_of_name_with_their_class(tmp_path):
    written = write_room(tmp_path / "office_1", OBJECTS)
    cloud = read_room(tmp_path / "office_1")
    rows = np.concatenate([written[name] for name in sorted(OBJECTS)])
    np.testing.assert_allclose(cloud.xyz, rows[:, :3], atol=1e-5)
    np.testing.assert_allclose(cloud.features, rows[:, 3:] / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(cloud.labels, np.repeat([0, 8, 12], [20, 7, 3]))
    assert cloud.features.dtype == cloud.xyz.dtype == np.float32


def test_the_classes_are_the_thirteen_in_the_order_of_pointnet():
    text = "ceiling floor wall beam column window door table chair sofa bookcase board clutter"
    assert " ".join(CLASSES) == text


def test_stairs_are_clutter(tmp_path):
    write_room(tmp_path / "a", {"stairs_1": 4, "staris_2": 2, "floor_1": 3})
    np.testing.assert_array_equal(np.sort(read_room(tmp_path / "a").labels), [1] * 3 + [12] * 6)


@pytest.mark.parametrize("name", ["lamp_1", "Chair_3", "notes", "_1"])
def test_an_object_of_no_class_is_named(root, room, name):
    (room / "Annotations" / f"{name}.txt").write_text("0 0 0 1 2 3\n")
    with pytest.raises(DatasetError, match=rf"{name}\.txt: expected <class>_<number>\.txt; unknown class .*ceiling"):
        load(root, "test")


def test_faults_of_the_published_files_are_mended(root, room):
    plain = read_room(room)
    path = room / "Annotations" / "ceiling_1.txt"
    lines = path.read_bytes().split(b"\n")
    lines[3] = b"\0".join(lines[3].rsplit(b" ", 1))
    path.write_bytes(b"\n".join(lines))
    shutil.copy(room / "Annotations" / "board_1.txt", room / "Annotations" / "board_1 (1).txt")
    (room / "Annotations" / ".DS_Store").write_bytes(b"\0")
    (root / "Area_5" / ".hidden").mkdir()
    (room / "office_1.txt").rename(room / "of_fice_1.txt")
    again = load(root, "test").clouds[1]
    np.testing.assert_array_equal(again.xyz, plain.xyz)
    np.testing.assert_array_equal(again.features, plain.features)


def test_some_rooms_of_some_classes(root):
    data = load(root, "train", classes=["board", "chair"], scenes=3, seed=4)
    assert len(data) == 3
    assert data.classes == ("board", "chair")
    assert np.bincount(data.clouds[0].labels[data.clouds[0].labels >= 0]).tolist() == [4, 12]
    assert data.names == load(root, "train", scenes=3, seed=4).names != load(root, "train", scenes=3, seed=5).names


def test_a_class_that_no_room_has(root):
    with pytest.raises(DatasetError, match="no point of these 2 scenes is one of sofa"):
        load(root, "test", classes=["sofa"])


def test_a_room_without_annotations_and_annotations_without_room(root, room):
    shutil.rmtree(room / "Annotations")
    with pytest.raises(DatasetError, match=r"office_1\.txt: a cloud without labels, .*Annotations is missing"):
        load(root, "test")
    (room / "office_1.txt").unlink()
    (room.parent / "hallway_2" / "hallway_2.txt").unlink()
    with pytest.raises(DatasetError, match=r"Annotations: labels without their cloud, .*hallway_2\.txt is missing"):
        load(root, "test")


def test_an_empty_room_names_both_halves(root, room):
    shutil.rmtree(room)
    room.mkdir()
    with pytest.raises(DatasetError, match=r"office_1\.txt is missing, and so is Annotations"):
        load(root, "test")


def test_annotations_without_objects(root, room):
    for path in (room / "Annotations").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"Annotations.<class>_<number>\.txt is missing: the folder is half written"):
        load(root, "test")


@pytest.mark.parametrize("lost", ["chair_1", "clutter_10"])
def test_an_object_that_is_missing_shows_in_the_number_of_points(room, lost):
    (room / "Annotations" / f"{lost}.txt").unlink()
    with pytest.raises(DatasetError, match=r"expected the 39 points of office_1\.txt, found 3[26]; the room is half"):
        read_room(room)


def test_a_copy_of_an_object_shows_too(room):
    shutil.copy(room / "Annotations" / "chair_1.txt", room / "Annotations" / "chair_3.txt")
    with pytest.raises(DatasetError, match=r"points of office_1\.txt, found 46; .* holds more than it should"):
        read_room(room)


def test_a_rooms_own_file_cut_short(room):
    path = room / "office_1.txt"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DatasetError, match=r"points of office_1\.txt, found 39; the room is half written"):
        read_room(room)


def test_the_last_line_needs_no_end(room):
    path = room / "office_1.txt"
    path.write_bytes(path.read_bytes().rstrip())
    assert len(read_room(room)) == 39


@pytest.mark.parametrize("area", ["Area_3", "Area_6"])
def test_a_missing_area_is_named(root, area):
    shutil.rmtree(root / area)
    with pytest.raises(DatasetError, match=f"{area} is missing: the folder is half written"):
        load(root, "train")
    (root / area).mkdir()
    with pytest.raises(DatasetError, match=f"{area}.<room> is missing"):
        load(root, "train")
    assert len(load(root, "test")) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected lines x y z red green blue, found none"),
        ("1 2 3 4 5\n", "found 5 numbers a line"),
        ("1 2 3 4 5 6\n1 2 3 4 5\n", r"expected lines x y z red green blue \(.*row 2"),
        ("1 2 3 4 five 6\n", r"expected lines x y z red green blue \(.*'five'"),
        ("1 2 nan 4 5 6\n", "expected finite numbers"),
    ],
)
def test_a_damaged_object_is_named(room, text, says):
    (room / "Annotations" / "chair_1.txt").write_text(text)
    with pytest.raises(DatasetError, match=rf"chair_1\.txt: .*{says}") as caught:
        read_room(room)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"split": "val"}, "unknown split 'val'; valid: train, test"),
        ({"split": "test", "test_area": "Area_7"}, "unknown area 'Area_7'; did you mean 'Area_"),
    ],
)
def test_a_request_that_makes_no_sense(root, arguments, says):
    with pytest.raises(DatasetError, match=says):
        load(root, **arguments)
