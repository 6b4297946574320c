"""ScanNet v2 in a folder of tiny scenes, byte for byte in its format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from official_folders import write_scannet, write_scannet_ply, write_scannet_scene
from popcloud.cloud import IGNORE
from popcloud.data.files_ply import write_ply
from popcloud.data.scannet import CLASSES, LAYOUT, load, read_scene
from popcloud.errors import CloudError, DatasetError

# The benchmark's ids, in its order: kaldir.vc.in.tum.de/scannet_benchmark/documentation
IDS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39]


@pytest.fixture
def root(tmp_path) -> Path:
    write_scannet(tmp_path)
    return tmp_path


def test_the_scenes_of_a_list_in_its_order(root):
    data = load(root, "train")
    assert data.names == ("scene0001_00", "scene0000_01", "scene0000_00")
    assert load(root, "val").names == ("scene0011_00", "scene0011_01")
    assert data.features == ("red", "green", "blue")
    assert data.classes == CLASSES
    assert len(CLASSES) == 20


def test_points_and_colours_are_those_of_the_file(tmp_path):
    folder = tmp_path / "scene0000_00"
    xyz, rgb = write_scannet_scene(folder, np.arange(41))
    cloud = read_scene(folder / f"{folder.name}_vh_clean_2.ply", folder / f"{folder.name}_vh_clean_2.labels.ply")
    np.testing.assert_array_equal(cloud.xyz, xyz)
    np.testing.assert_allclose(cloud.features, rgb / 127.5 - 1, atol=1e-6)
    assert cloud.features.dtype == np.float32


def test_twenty_of_the_nyu40_ids_are_classes_the_others_ignored(root):
    labels = load(root, "val").clouds[0].labels
    np.testing.assert_array_equal(labels[IDS], np.arange(20))
    assert (np.delete(labels, IDS) == IGNORE).all()
    assert (CLASSES[0], CLASSES[12], CLASSES[14], CLASSES[-1]) == ("wall", "desk", "refrigerator", "otherfurniture")


def test_stray_ids_of_the_published_files_are_ignored(tmp_path):
    folder = tmp_path / "scans" / "scene0270_00"
    write_scannet_scene(folder, np.array([50, 149, 1]))
    (tmp_path / "scannetv2_train.txt").write_text("scene0270_00\n")
    np.testing.assert_array_equal(load(tmp_path, "train").clouds[0].labels, [IGNORE, IGNORE, 0])


def test_any_other_id_is_named_with_its_file(root):
    write_scannet_scene(root / "scans" / "scene0011_01", np.array([1, 77, 2]))
    with pytest.raises(DatasetError, match=r"scene0011_01_vh_clean_2\.labels\.ply: expected label ids .* found 77"):
        load(root, "val")


def test_some_classes_and_some_scenes(root):
    data = load(root, "train", classes=["desk", "wall"], scenes=2, seed=1)
    assert data.classes == ("desk", "wall")
    labels = data.clouds[0].labels
    assert (labels[14], labels[1]) == (0, 1)
    assert (labels == IGNORE).sum() == 39
    assert len(data) == 2
    assert data.names == load(root, "train", scenes=2, seed=1).names
    assert len({load(root, "train", scenes=1, seed=seed).names for seed in range(8)}) > 1


def test_scenes_that_are_not_wanted_are_not_read(root):
    first = load(root, "train", scenes=1).names[0]
    for path in (root / "scans").iterdir():
        if path.name != first:
            (path / f"{path.name}_vh_clean_2.ply").write_bytes(b"damaged")
    assert load(root, "train", scenes=1).names == (first,)


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("scannetv2_val.txt", r"scannetv2_val\.txt is missing: the folder is half written"),
        ("scans/scene0011_01/scene0011_01_vh_clean_2.ply", "labels without their cloud, .*scene0011_01_vh_clean_2.ply"),
        ("scans/scene0011_01/scene0011_01_vh_clean_2.labels.ply", "a cloud without labels, .*labels.ply is missing"),
    ],
)
def test_a_missing_half_is_named(root, lost, says):
    (root / lost).unlink()
    with pytest.raises(DatasetError, match=says) as caught:
        load(root, "val")
    assert "\n" not in str(caught.value)


def test_a_scene_of_the_list_without_folder(root):
    (root / "scannetv2_val.txt").write_text("scene0011_00\nscene9999_00\n")
    with pytest.raises(DatasetError, match=r"scans.scene9999_00 is missing: the folder is half written"):
        load(root, "val")


def test_what_is_missing_is_said_before_anything_is_read(root):
    (root / "scans" / "scene0011_00" / "scene0011_00_vh_clean_2.ply").write_bytes(b"damaged")
    (root / "scans" / "scene0011_01" / "scene0011_01_vh_clean_2.labels.ply").unlink()
    with pytest.raises(DatasetError, match="a cloud without labels"):
        load(root, "val")


def test_test_scenes_have_no_labels_and_the_message_knows(root):
    with pytest.raises(DatasetError, match=r"scans_test.*without labels.*use the split 'val'"):
        load(root, "test")
    write_scannet_scene(root / "scans_test" / "scene0707_00", np.arange(41))  # by someone who has them
    assert load(root, "test").names == ("scene0707_00",)


def test_halves_of_different_lengths(root):
    path = root / "scans" / "scene0011_00" / "scene0011_00_vh_clean_2.labels.ply"
    write_scannet_ply(path, np.zeros((40, 3)), np.zeros((40, 3)), np.ones(40))
    with pytest.raises(
        DatasetError, match=r"labels\.ply: expected 41 labels, one per point of .*clean_2\.ply, found 40"
    ):
        load(root, "val")


def test_a_cloud_without_colours_and_labels_without_labels(root):
    folder = root / "scans" / "scene0011_00"
    write_scannet_ply(folder / "scene0011_00_vh_clean_2.labels.ply", np.zeros((3, 3)), np.zeros((3, 3)))
    with pytest.raises(DatasetError, match=r"labels\.ply: expected whole numbers in the property label"):
        load(root, "val")
    write_ply(folder / "scene0011_00_vh_clean_2.ply", np.zeros((3, 3)))
    with pytest.raises(DatasetError, match=r"expected the properties .* found no red, green, blue"):
        load(root, "val")


def test_a_file_cut_short_is_named(root):
    path = root / "scans" / "scene0011_00" / "scene0011_00_vh_clean_2.ply"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(CloudError, match=r"scene0011_00_vh_clean_2\.ply, offset .*cut short"):
        load(root, "val")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"split": "valid"}, "unknown split 'valid'.*train, val, test"),
        ({"split": "val", "scenes": 0}, "scenes: expected at least 1"),
        ({"split": "val", "classes": ["desks"]}, "unknown class 'desks'; did you mean 'desk'"),
    ],
)
def test_a_request_that_makes_no_sense(root, arguments, says):
    with pytest.raises(DatasetError, match=says):
        load(root, **arguments)


def test_no_folder_names_the_layout():
    with pytest.raises(DatasetError, match="scannet: expected the data set's folder, found none; expected scannetv2_"):
        load(None, "train")
    assert "\n" not in LAYOUT
