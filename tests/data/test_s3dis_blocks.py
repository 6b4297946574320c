"""S3DIS's ready-made blocks in a folder of tiny files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from part_folders import write_blocks
from popcloud.cloud import IGNORE
from popcloud.data import BLOCKS, block_sets, s3dis_blocks
from popcloud.data.s3dis import AREAS, CLASSES
from popcloud.data.s3dis_blocks import load
from popcloud.errors import DatasetError
from popcloud.geometry import blocks

h5py = pytest.importorskip("h5py")


@pytest.fixture
def written(tmp_path) -> tuple[Path, np.ndarray, np.ndarray]:
    return (tmp_path, *write_blocks(tmp_path))


@pytest.fixture
def root(written) -> Path:
    return written[0]


def test_one_area_is_held_out(written):
    root, data, labels = written
    test = load(root, "test")
    assert test.rooms == ("Area_5/office_1", "Area_5/hallway_2")
    np.testing.assert_array_equal(test.blocks, data[[4, 10]])
    np.testing.assert_array_equal(test.labels, labels[[4, 10]])
    assert test.blocks.dtype == np.float32
    assert test.labels.dtype == np.int64
    assert test.classes == CLASSES
    assert len(test) == 2
    train = load(root, "train")
    np.testing.assert_array_equal(train.blocks, np.delete(data, [4, 10], axis=0))
    assert load(root, "test", test_area="Area_2").rooms == ("Area_2/office_1", "Area_2/hallway_2")


def test_the_six_areas_together_are_all_blocks(written):
    folds = [load(written[0], "test", test_area=area).blocks for area in AREAS]
    assert sum(len(fold) for fold in folds) == len(written[1])
    assert {block.tobytes() for fold in folds for block in fold} == {block.tobytes() for block in written[1]}


def test_the_features_are_those_of_blocks_cut_from_rooms():
    assert s3dis_blocks.FEATURES == blocks.FEATURES


def test_some_blocks_of_some_classes(written):
    root, _, labels = written
    part = load(root, "train", blocks=3, seed=2)
    assert len(part) == 3
    assert part.rooms != load(root, "train", blocks=3, seed=3).rooms
    chairs = load(root, "test", classes=["chair", "floor"])
    expected = np.full(13, IGNORE)
    expected[[8, 1]] = 0, 1
    np.testing.assert_array_equal(chairs.labels, expected[labels[[4, 10]]])
    assert chairs.classes == ("chair", "floor")


def test_a_subset_keeps_what_belongs_together(root):
    data = load(root, "train")
    part = data.subset(np.array([3, 0]))
    assert part.rooms == (data.rooms[3], data.rooms[0])
    np.testing.assert_array_equal(part.blocks, data.blocks[[3, 0]])


@pytest.mark.parametrize("lost", ["all_files.txt", "room_filelist.txt", "ply_data_all_1.h5"])
def test_a_file_that_is_missing_is_named(root, lost):
    (root / lost).unlink()
    with pytest.raises(DatasetError, match=f"{lost} is missing: the folder is half written"):
        load(root, "test")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("data", np.zeros((5, 16, 6), np.float32), r"expected data \(M, N, 9\) and label \(M, N\)"),
        ("label", np.zeros((5, 15), np.uint8), r"expected data \(M, N, 9\) and label \(M, N\)"),
        ("label", np.full((5, 16), 13, np.uint8), "expected labels 0 to 12, found 13 to 13"),
        ("data", np.full((5, 16, 9), np.nan, np.float32), "expected finite numbers"),
        ("label", None, "expected the arrays data and label, at least one is missing"),
    ],
)
def test_a_damaged_file_is_named(root, name, value, says):
    with h5py.File(root / "ply_data_all_1.h5", "a") as file:
        del file[name]
        if value is not None:
            file[name] = value
    with pytest.raises(DatasetError, match=rf"ply_data_all_1\.h5: {says}") as caught:
        load(root, "test")
    assert "\n" not in str(caught.value)


def test_files_of_other_sizes(root):
    with h5py.File(root / "ply_data_all_1.h5", "a") as file:
        del file["data"], file["label"]
        file["data"], file["label"] = np.zeros((5, 8, 9), np.float32), np.zeros((5, 8), np.uint8)
    with pytest.raises(DatasetError, match="expected 16 points a block as in the first file, found 8"):
        load(root, "test")


def test_a_list_of_rooms_that_does_not_fit(root):
    path = root / "room_filelist.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]))
    with pytest.raises(DatasetError, match="expected a line for each of the 12 blocks, found 11"):
        load(root, "test")
    path.write_text("\n".join([*lines[:-1], "Room_1"]))
    with pytest.raises(DatasetError, match="expected lines Area_<n>_<room>, found 'Room_1'"):
        load(root, "test")
    path.write_text("")
    with pytest.raises(DatasetError, match="expected a room's name a line, found none"):
        load(root, "test")


def test_an_area_without_blocks(tmp_path):
    write_blocks(tmp_path, (3,))
    with pytest.raises(DatasetError, match="split 'test' with Area_5 held out has no block"):
        load(tmp_path, "test")
    assert len(load(tmp_path, "train")) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"split": "val"}, "unknown split 'val'; valid: train, test"),
        ({"test_area": "Area_9"}, "unknown area 'Area_9'"),
        ({"classes": ["chairs"]}, "unknown class 'chairs'; did you mean 'chair'"),
        ({"blocks": 0}, "blocks: expected at least 1, found 0"),
    ],
)
def test_a_request_that_makes_no_sense(root, arguments, says):
    with pytest.raises(DatasetError, match=says):
        load(root, **{"split": "test"} | arguments)


def test_no_folder():
    with pytest.raises(DatasetError, match="s3dis_blocks: expected the data set's folder, found none"):
        load(None, "train")


def test_a_loader_is_found_by_name():
    assert block_sets("s3dis_blocks") is BLOCKS["s3dis_blocks"] is load
    with pytest.raises(DatasetError, match="unknown data set of blocks 's3dis_block'; did you mean 's3dis_blocks'"):
        block_sets("s3dis_block")
