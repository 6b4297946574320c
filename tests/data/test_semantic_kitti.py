"""SemanticKITTI in a folder of tiny scans."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from official_folders import KITTI_IDS, write_scan, write_semantic_kitti
from popcloud.cloud import IGNORE
from popcloud.data.semantic_kitti import CLASSES, SEQUENCES, load, read_scan
from popcloud.errors import CloudError, DatasetError

# learning_map of semantic-kitti.yaml, https://github.com/PRBonn/semantic-kitti-api, with its classes from 1.
LEARNING_MAP = {
    0: 0, 1: 0, 10: 1, 11: 2, 13: 5, 15: 3, 16: 5, 18: 4, 20: 5, 30: 6, 31: 7, 32: 8, 40: 9, 44: 10, 48: 11, 49: 12,
    50: 13, 51: 14, 52: 0, 60: 9, 70: 15, 71: 16, 72: 17, 80: 18, 81: 19, 99: 0, 252: 1, 253: 7, 254: 6, 255: 8, 256: 5,
    257: 5, 258: 4, 259: 5,
}  # fmt: skip


@pytest.fixture
def root(tmp_path) -> Path:
    write_semantic_kitti(tmp_path)
    return tmp_path


def test_the_official_split(root):
    train, val = load(root, "train"), load(root, "val")
    assert sorted({name[:2] for name in train.names}) == ["00", "01", "02", "03", "04", "05", "06", "07", "09", "10"]
    assert train.names[:3] == ("00/000000", "00/000001", "01/000000")
    assert val.names == ("08/000000", "08/000001")
    assert sorted(number for numbers in SEQUENCES.values() for number in numbers) == list(range(22))


def test_points_and_remission_are_those_of_the_file(tmp_path):
    rows = write_scan(tmp_path / "08", 7, KITTI_IDS)
    cloud = read_scan(tmp_path / "08/velodyne/000007.bin", tmp_path / "08/labels/000007.label")
    np.testing.assert_array_equal(cloud.xyz, rows[:, :3])
    np.testing.assert_allclose(cloud.features, 2 * rows[:, 3:] - 1, atol=1e-6)
    assert cloud.features.dtype == cloud.xyz.dtype == np.float32
    assert cloud.xyz.flags.c_contiguous


def test_ids_are_mapped_as_the_yaml_says_and_instances_left_out(root):
    data = load(root, "val")
    expected = np.array([LEARNING_MAP[key] - 1 for key in KITTI_IDS])
    expected[expected < 0] = IGNORE
    np.testing.assert_array_equal(data.clouds[0].labels, expected)
    assert len(CLASSES) == 19
    assert (CLASSES[0], CLASSES[8], CLASSES[-1]) == ("car", "road", "traffic-sign")
    assert data.features == ("intensity",)


def test_the_folder_s_own_mapping_is_used(root):
    lines = ["labels: {0: none, 10: car, 40: road}", "learning_map_inv: {0: 0, 1: 40, 2: 10}", "learning_map:"]
    lines += [f"  {key}: {2 if key == 10 else 1 if key == 40 else 0}" for key in KITTI_IDS]
    (root / "semantic-kitti.yaml").write_text("\n".join(lines))
    data = load(root, "val")
    assert data.classes == ("road", "car")
    expected = [1 if key == 10 else 0 if key == 40 else IGNORE for key in KITTI_IDS]
    np.testing.assert_array_equal(data.clouds[0].labels, expected)


@pytest.mark.parametrize("text", ["", "a: [", "learning_map: {0: 0, 10: 1}", "labels: 3\nlearning_map: {0: x}"])
def test_a_mapping_in_another_form_is_named(root, text):
    (root / "semantic-kitti.yaml").write_text(text)
    with pytest.raises(DatasetError, match=r"semantic-kitti\.yaml.*learning_map"):
        load(root, "val")


def test_every_id_of_the_map_is_written_by_the_test():
    assert set(KITTI_IDS) == set(LEARNING_MAP)


def test_any_other_id_is_named_with_its_file(root):
    write_scan(root / "sequences" / "08", 1, np.array([10, 251, 300]))
    with pytest.raises(DatasetError, match=r"000001\.label: expected label ids .* found 251, 300"):
        load(root, "val")


def test_some_scans_of_some_classes(root):
    data = load(root, "train", classes=["road"], scenes=5, seed=2)
    assert len(data) == 5
    assert list(data.names) == sorted(data.names)
    assert data.names == load(root, "train", scenes=5, seed=2).names != load(root, "train", scenes=5, seed=3).names
    assert np.unique(data.clouds[0].labels).tolist() == [IGNORE, 0]
    assert (data.clouds[0].labels == 0).sum() == 2  # road and lane-marking


def test_a_scan_without_labels_and_labels_without_scan(root):
    sequence = root / "sequences" / "08"
    (sequence / "labels" / "000001.label").unlink()
    with pytest.raises(DatasetError, match=r"000001\.bin: a cloud without labels, .*000001\.label is missing"):
        load(root, "val")
    (sequence / "velodyne" / "000001.bin").unlink()
    (sequence / "velodyne" / "000000.bin").unlink()
    with pytest.raises(DatasetError, match=r"000000\.label: labels without their cloud, .*000000\.bin is missing"):
        load(root, "val")


def test_test_scans_have_no_labels_and_the_message_knows(root):
    with pytest.raises(DatasetError, match=r"sequences.11.*without labels.*use the split 'val'"):
        load(root, "test")


def test_a_sequence_or_all_of_its_scans_missing(root):
    shutil.rmtree(root / "sequences" / "05")
    with pytest.raises(DatasetError, match=r"sequences.05 is missing: the folder is half written"):
        load(root, "train")
    (root / "sequences" / "05").mkdir()
    with pytest.raises(DatasetError, match=r"05.velodyne.000000\.bin is missing: the folder is half written"):
        load(root, "train")


def test_halves_of_different_lengths(root):
    path = root / "sequences" / "08" / "labels" / "000000.label"
    path.write_bytes(path.read_bytes() + bytes(4))
    with pytest.raises(
        DatasetError, match=r"000000\.label: expected 34 labels, one per point of 000000\.bin, found 35"
    ):
        load(root, "val")


@pytest.mark.parametrize(("file", "keep"), [("velodyne/000000.bin", 30), ("labels/000000.label", 7)])
@pytest.mark.parametrize("whole", [True, False])
def test_a_file_cut_short_or_empty_is_named(root, file, keep, whole):
    path = root / "sequences" / "08" / file
    path.write_bytes(path.read_bytes()[: 0 if whole else keep])
    with pytest.raises(
        DatasetError, match=rf"{path.name}: expected (16|4) bytes per point, found {0 if whole else keep}"
    ):
        load(root, "val")


@pytest.mark.parametrize(("column", "error"), [(1, CloudError), (3, DatasetError)])
def test_numbers_that_are_not_finite_are_refused(root, column, error):
    rows = write_scan(root / "sequences" / "08", 0, KITTI_IDS)
    rows[5, column] = np.nan
    (root / "sequences" / "08" / "velodyne" / "000000.bin").write_bytes(rows.tobytes())
    with pytest.raises(error, match=r"000000\.bin: .*finite"):
        load(root, "val")
