"""Lidar tiles: written small by the test, the real ones where they are, and what is said of damaged ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from popcloud.cloud import IGNORE
from popcloud.data.ign_lidarhd import CLASSES, FEATURES, features_of, load, read_tile
from popcloud.errors import DatasetError
from scene_folders import LAS_LABELS, tile_arrays, write_ign_lidarhd


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_ign_lidarhd(tmp_path)


def write(path: Path, **changes: np.ndarray | None) -> Path:
    """One tile with some of its arrays changed, or left out where None."""
    arrays = tile_arrays() | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def test_tiles_of_a_split_and_part_come_in_order_of_name(root):
    data = load(root, "train")
    assert data.names == ("dense_10_20", "dense_10_21")
    assert load(root, "val", part="sparse").names == ("sparse_11_20",)
    assert data.classes == CLASSES
    assert data.features == FEATURES


def test_coordinates_are_metres_from_the_corner(tmp_path):
    arrays = tile_arrays()
    cloud = read_tile(write(tmp_path / "a.npz"))
    assert cloud.xyz.dtype == np.float32
    np.testing.assert_array_equal(np.rint(cloud.xyz.astype(np.float64) * 100), arrays["xyz_cm"])


def test_centimetres_of_a_whole_kilometre_are_kept(tmp_path):
    far = np.arange(99_940, 100_000, dtype=np.int32)
    cloud = read_tile(write(tmp_path / "a.npz", xyz_cm=np.repeat(far[:, None], 3, axis=1)))
    np.testing.assert_array_equal(np.rint(cloud.xyz[:, 0].astype(np.float64) * 100), far)


def test_las_classes_become_ours_and_the_rest_is_ignored(tmp_path):
    labels = read_tile(write(tmp_path / "a.npz")).labels
    assert labels.dtype == np.int64
    expected = [IGNORE, IGNORE, 0, 1, 1, 1, 2, IGNORE, IGNORE, IGNORE]
    np.testing.assert_array_equal(labels[: len(LAS_LABELS)], expected)


def test_features_by_hand():
    intensity = np.array([100] * 96 + [0, 50, 100, 200])
    ret = np.array([1 * 16 + 1] * 96 + [1 * 16 + 3, 3 * 16 + 3, 2 * 16 + 7, 0])
    features = features_of(intensity, ret)
    assert features.dtype == np.float32
    full = np.percentile(intensity, 99)
    np.testing.assert_allclose(features[-4:, 0], [-1, 100 / full - 1, 200 / full - 1, 1], rtol=1e-6)
    np.testing.assert_allclose(features[-4:, 1], [0, 0, 1, -1])  # 3 echoes, 3, more than 5, none said: one
    np.testing.assert_allclose(features[-4:, 2], [0, -1, 1, -1])  # 2 to come, 0, more than 4, 0
    np.testing.assert_array_equal(features[0, 1:], [-1, -1])


def test_a_sensors_gain_changes_no_feature(tmp_path):
    intensity = np.arange(60, dtype=np.uint16)
    one = read_tile(write(tmp_path / "a.npz", intensity=intensity + 100))
    two = read_tile(write(tmp_path / "b.npz", intensity=(intensity + 100) * 4))
    np.testing.assert_allclose(one.features, two.features, rtol=1e-6)


def test_a_tile_without_any_intensity_is_dark(tmp_path):
    cloud = read_tile(write(tmp_path / "a.npz", intensity=np.zeros(60, np.uint16)))
    np.testing.assert_array_equal(cloud.features[:, 0], -1)


def test_some_tiles_are_drawn_by_the_seed(root):
    drawn = {load(root, "train", scenes=1, seed=seed).names for seed in range(8)}
    assert drawn == {("dense_10_20",), ("dense_10_21",)}
    assert load(root, "train", scenes=1, seed=3).names == load(root, "train", scenes=1, seed=3).names
    assert len(load(root, "train", scenes=5)) == 2


def test_classes_are_renumbered_and_the_others_ignored(root):
    whole, part = load(root, "val"), load(root, "val", classes=["building", "ground"])
    assert part.classes == ("building", "ground")
    table = {0: 1, 1: IGNORE, 2: 0, IGNORE: IGNORE}
    np.testing.assert_array_equal(part.clouds[0].labels, [table[label] for label in whole.clouds[0].labels.tolist()])
    np.testing.assert_array_equal(part.clouds[0].xyz, whole.clouds[0].xyz)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"split": "test"}, "unknown split 'test'.*valid: train, val"),
        ({"part": "dens"}, "unknown part of ign_lidarhd 'dens'; did you mean 'dense'"),
        ({"classes": ["tree"]}, "unknown class 'tree'"),
        ({"scenes": 0}, "scenes: expected at least 1"),
        ({"root": None}, "expected the data set's folder, found none"),
        ({"root": Path("nowhere")}, "nowhere: no such folder"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(root, arguments, says):
    with pytest.raises(DatasetError, match=says):
        load(**({"root": root, "split": "train"} | arguments))


def test_a_folder_without_the_split_says_so(root):
    for path in root.glob("val_dense_*"):
        path.unlink()
    with pytest.raises(DatasetError, match=r"holds no such tile, wanted val_dense_\*\.npz; expected <split>_<part>"):
        load(root, "val")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ret": None}, "found no ret"),
        ({"label": None, "intensity": None}, "found no label, intensity"),
        ({"xyz_cm": np.zeros((60, 2), int)}, r"xyz_cm: expected integers of shape \(60, 3\), found int64 of \(60, 2\)"),
        ({"xyz_cm": np.zeros((60, 3))}, "xyz_cm: expected integers"),
        ({"intensity": np.zeros(59, int)}, r"intensity: expected integers of shape \(60,\)"),
        ({"label": np.zeros(0, int), "xyz_cm": np.zeros((0, 3), int)}, "expected integers"),
        ({"label": np.full(60, 300)}, "label: expected LAS classes 0 to 255"),
        ({"label": np.array(2)}, "expected integers"),
        ({"label": np.array(["2"] * 60, object)}, "not a readable npz file"),
    ],
)
def test_a_damaged_tile_is_named(tmp_path, changes, says):
    path = write(tmp_path / "train_dense_1_2.npz", **changes)
    with pytest.raises(DatasetError, match=rf"train_dense_1_2\.npz: .*{says}.*fetch it again") as caught:
        read_tile(path)
    assert "\n" not in str(caught.value)


def test_a_cut_off_file_is_named(tmp_path):
    path = write(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(DatasetError, match=r"a\.npz: not a readable npz file"):
        read_tile(path)


@pytest.mark.data
@pytest.mark.parametrize(
    ("part", "tiles", "points"), [("dense", (4, 1), (296_847, 60_653)), ("sparse", (2, 1), (519_292, 289_055))]
)
def test_the_real_tiles(shared_data, part, tiles, points):
    for split, count, total in zip(("train", "val"), tiles, points, strict=True):
        data = load(shared_data / "ign_lidarhd", split, part=part)
        assert len(data) == count
        assert sum(map(len, data.clouds)) == total
        for cloud in data.clouds:
            assert set(np.unique(cloud.labels)) == {IGNORE, 0, 1, 2}
            assert np.abs(cloud.features).max() <= 1
            assert cloud.xyz.min() >= 0
            assert cloud.xyz.max() <= 1000
