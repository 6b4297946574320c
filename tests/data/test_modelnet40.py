"""ModelNet40 in its three forms, written small by the test; and what is said of a folder that is none of them."""

from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import pytest

from popcloud.cloud import CloudSet, normalize
from popcloud.data import modelnet40
from popcloud.data.modelnet40 import load, sample_off, write_packed
from popcloud.errors import CloudError, DatasetError

h5py = pytest.importorskip("h5py")

NAMES = ("airplane", "bathtub", "bed")
CUBE = """8 6 12
0 0 0
1 0 0
1 1 0
0 1 0
0 0 1
1 0 1
1 1 1
0 1 1
4 3 2 1 0
4 4 5 6 7
4 0 1 5 4
4 1 2 6 5
4 2 3 7 6
4 3 0 4 7
"""


def write_h5(root: Path, counts: dict[str, int], points: int = 40) -> dict[str, np.ndarray]:
    """Write the official form: lists with the paths of the authors' machine, one label column, uint8."""
    (root / "shape_names.txt").write_text("\n".join(NAMES) + "\n")
    written = {}
    for i, (name, count) in enumerate(counts.items()):
        xyz = np.random.default_rng(i).uniform(-1, 1, (count, points, 3)).astype(np.float32)
        written[name] = xyz
        with h5py.File(root / f"ply_data_{name}.h5", "w") as file:
            file["data"] = xyz
            file["label"] = (np.arange(count) % len(NAMES)).astype(np.uint8)[:, None]
    for split in ("train", "test"):
        lines = [f"data/modelnet40_ply_hdf5_2048/ply_data_{name}.h5" for name in counts if name.startswith(split)]
        (root / f"{split}_files.txt").write_text("\n".join(lines) + "\n")
    return written


@pytest.fixture
def hdf5(tmp_path) -> Path:
    write_h5(tmp_path, {"train0": 6, "train1": 5, "test0": 4})
    return tmp_path


@pytest.fixture
def meshes(tmp_path) -> Path:
    for name in NAMES:
        for split, numbers in (("train", (1, 2, 3)), ("test", (4, 5))):
            (tmp_path / name / split).mkdir(parents=True)
            for number in numbers:
                header = "OFF" if number % 2 else "OFF\n"  # every other one with the quirk
                (tmp_path / name / split / f"{name}_{number:04d}.off").write_text(header + CUBE)
    return tmp_path


@pytest.fixture
def packed(tmp_path) -> Path:
    xyz = np.random.default_rng(0).uniform(-0.5, 0.5, (9, 50, 3)).astype(np.float32)
    for split in ("train", "test"):
        write_packed(CloudSet(xyz, np.arange(9) % 3, NAMES), tmp_path, split)
    return tmp_path


# --- hdf5 ---


def test_hdf5_files_are_joined_in_the_lists_order(tmp_path):
    written = write_h5(tmp_path, {"train1": 5, "train0": 6, "test0": 4})
    data = load(tmp_path, "train", points=40)
    expected = [normalize(cloud, "unit_sphere") for name in ("train1", "train0") for cloud in written[name]]
    np.testing.assert_array_equal(data.xyz, expected)
    np.testing.assert_array_equal(data.labels, [0, 1, 2, 0, 1, 0, 1, 2, 0, 1, 2])
    assert data.classes == NAMES
    assert len(load(tmp_path, "test", points=40)) == 4


def test_hdf5_without_lists_goes_by_the_files_names(hdf5):
    whole = load(hdf5, "train", points=7)
    for split in ("train", "test"):
        (hdf5 / f"{split}_files.txt").unlink()
    np.testing.assert_array_equal(load(hdf5, "train", points=7).xyz, whole.xyz)


def test_fewer_points_are_a_prefix_normalised_anew(tmp_path):
    written = write_h5(tmp_path, {"train0": 2, "test0": 2})["train0"]
    data = load(tmp_path, "train", points=10)
    np.testing.assert_array_equal(data.xyz[1], normalize(written[1, :10], "unit_sphere"))


@pytest.mark.parametrize(
    ("lost", "says"),
    [("ply_data_train1.h5", "ply_data_train1.h5 is missing"), ("shape_names.txt", "shape_names.txt is missing")],
)
def test_a_half_written_hdf5_folder_names_the_missing_file(hdf5, lost, says):
    (hdf5 / lost).unlink()
    with pytest.raises(DatasetError, match=f"{says}: the folder is half written.*expected"):
        load(hdf5, "train", points=8)


def test_hdf5_without_any_file_of_a_split_says_which(hdf5):
    for path in [*hdf5.glob("*_files.txt"), *hdf5.glob("*test*.h5")]:
        path.unlink()
    with pytest.raises(DatasetError, match=r"ply_data_test0.h5 is missing"):
        load(hdf5, "test", points=8)


def test_a_damaged_hdf5_file_is_named(hdf5):
    path = hdf5 / "ply_data_train1.h5"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DatasetError, match=r"ply_data_train1.h5: not a readable HDF5 file"):
        load(hdf5, "train", points=8)


def test_an_hdf5_file_without_labels_is_named(hdf5):
    with h5py.File(hdf5 / "ply_data_train0.h5", "a") as file:
        del file["label"]
    with pytest.raises(DatasetError, match="expected the arrays data and label"):
        load(hdf5, "train", points=8)


@pytest.mark.parametrize(
    ("array", "value", "says"),
    [
        ("label", np.array([[9]] * 6), "expected labels 0 to 2, found 9 to 9"),
        ("label", np.array([[0]] * 5), "expected points"),
        ("data", np.full((6, 40, 3), np.nan, np.float32), "finite"),
        ("data", np.zeros((6, 40), np.float32), "expected points"),
    ],
)
def test_hdf5_arrays_that_dont_fit_are_refused(hdf5, array, value, says):
    with h5py.File(hdf5 / "ply_data_train0.h5", "a") as file:
        del file[array]
        file[array] = value
    with pytest.raises(DatasetError, match=says):
        load(hdf5, "train", points=8)


def test_without_h5py_the_message_names_the_extra(hdf5, monkeypatch):
    plain = builtins.__import__

    def refuse(name, *rest):
        if name == "h5py":
            raise ImportError(name)
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DatasetError, match=r"pip install 'popcloud\[learn\]'"):
        load(hdf5, "train", points=8)


# --- meshes ---


def test_meshes_are_read_in_order_of_class_and_name(meshes):
    data = load(meshes, "train", points=64)
    assert data.xyz.shape == (9, 64, 3)
    np.testing.assert_array_equal(data.labels, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    assert data.classes == NAMES
    assert load(meshes, "test", points=8).xyz.shape == (6, 8, 3)


def test_mesh_points_lie_on_the_cube(meshes):
    xyz = load(meshes, "train", points=2000).xyz[0].astype(np.float64)
    half = np.ptp(xyz, axis=0) / 2
    np.testing.assert_allclose(half, half.mean(), rtol=0.02)
    on_a_side = np.abs(np.abs(xyz - (xyz.max(axis=0) - half)).max(axis=1) - half.mean())
    assert on_a_side.max() < 0.02


def test_a_meshs_points_depend_on_seed_and_file_alone(meshes):
    whole = load(meshes, "train", points=32)
    (meshes / "bathtub" / "train" / "bathtub_0001.off").unlink()
    rest = load(meshes, "train", points=32)
    np.testing.assert_array_equal(rest.xyz, np.delete(whole.xyz, 3, axis=0))
    assert not np.array_equal(load(meshes, "train", points=32, seed=1).xyz, rest.xyz)
    assert not np.array_equal(whole.xyz[0], whole.xyz[1])


def test_meshes_of_some_classes_and_some_clouds(meshes):
    data = load(meshes, "train", points=8, classes=["bed", "airplane"], clouds=4, seed=3)
    assert len(data) == 4
    assert data.classes == ("bed", "airplane")
    whole = load(meshes, "train", points=8, classes=["bed", "airplane"], seed=3)
    assert {cloud.tobytes() for cloud in data.xyz} < {cloud.tobytes() for cloud in whole.xyz}


def test_half_written_meshes_name_the_first_missing_folder(meshes):
    for path in (meshes / "bathtub" / "test").iterdir():
        path.unlink()
    (meshes / "bathtub" / "test").rmdir()
    with pytest.raises(DatasetError, match=r"bathtub.test is missing"):
        load(meshes, "test", points=8)
    assert len(load(meshes, "train", points=8)) == 9


def test_an_empty_class_folder_is_half_written(meshes):
    for path in (meshes / "bed" / "train").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"bed_0001.off is missing"):
        load(meshes, "train", points=8)


def test_a_mesh_without_faces_is_refused(tmp_path):
    path = tmp_path / "cup_0001.off"
    path.write_text("OFF\n1 0 0\n0 0 0\n")
    with pytest.raises(DatasetError, match="expected a mesh with faces"):
        sample_off(path, 8, 0)


def test_a_mesh_with_a_corner_nowhere_is_refused(tmp_path):
    path = tmp_path / "cup_0001.off"
    path.write_text("OFF\n3 1 0\n0 0 0\n1 0 nan\n0 1 0\n3 0 1 2\n")
    with pytest.raises(DatasetError, match="expected finite coordinates"):
        sample_off(path, 8, 0)


def test_a_damaged_mesh_names_file_and_line(meshes):
    (meshes / "bed" / "train" / "bed_0002.off").write_text("OFF\n3 1 0\n0 0 0\n1 x 0\n0 1 0\n3 0 1 2\n")
    with pytest.raises(CloudError, match=r"bed_0002.off, line 4: expected x y z"):
        load(meshes, "train", points=8)


# --- packed ---


def test_packed_points_come_back_to_a_rounding_of_int16(tmp_path, rng):
    xyz = np.stack([normalize(cloud, "unit_sphere") for cloud in rng.standard_normal((4, 30, 3)).astype(np.float32)])
    path = write_packed(CloudSet(xyz, np.array([2, 1, 0, 1]), NAMES), tmp_path / "new", "train")
    assert path.name == "modelnet40_30_train.npz"
    data = load(tmp_path / "new", "train", points=30)
    np.testing.assert_allclose(data.xyz, xyz, atol=4e-4)
    np.testing.assert_array_equal(data.labels, [2, 1, 0, 1])
    assert data.classes == NAMES


def test_packed_form_lacking_a_split_names_its_file(packed):
    (packed / "modelnet40_50_test.npz").unlink()
    with pytest.raises(DatasetError, match=r"modelnet40_50_test.npz is missing"):
        load(packed, "test", points=8)


def test_packed_form_without_class_names(packed):
    (packed / "classes.txt").unlink()
    with pytest.raises(DatasetError, match=r"classes.txt is missing"):
        load(packed, "train", points=8)
    (packed / "classes.txt").write_text("\n")
    with pytest.raises(DatasetError, match="expected one class name a line"):
        load(packed, "train", points=8)


@pytest.mark.parametrize("keep", [0, 4, 200, -30])
def test_a_truncated_packed_file_is_named(packed, keep):
    path = packed / "modelnet40_50_train.npz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DatasetError, match=r"modelnet40_50_train.npz: not a readable npz"):
        load(packed, "train", points=8)


def test_a_packed_file_with_other_arrays_is_named(packed):
    np.savez(packed / "modelnet40_50_train.npz", xyz=np.zeros((1, 2, 3)))
    with pytest.raises(DatasetError, match="expected the arrays points and label"):
        load(packed, "train", points=8)


def test_an_unwritable_folder_is_said_so(packed):
    (packed / "file").write_text("")
    data = load(packed, "train", points=8)
    with pytest.raises(DatasetError, match="can't be written"):
        write_packed(data, packed / "file", "train")


# --- all forms ---


def test_no_folder_given():
    with pytest.raises(DatasetError, match="expected the data set's folder, found none"):
        load(None, "train", points=8)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DatasetError, match="gone: no such folder"):
        load(tmp_path / "gone", "train", points=8)


def test_a_folder_of_something_else_says_what_was_expected(tmp_path):
    (tmp_path / "notes").mkdir()
    with pytest.raises(DatasetError, match=r"holds no form of ModelNet40; expected .*\.npz.*hdf5.*\.off.*shapes"):
        load(tmp_path, "train", points=8)


@pytest.mark.parametrize("form", ["hdf5", "packed"])
def test_more_points_than_stored_are_refused(form, request):
    root = request.getfixturevalue(form)
    with pytest.raises(DatasetError, match=r"points=99, but (40|50) are stored per cloud"):
        load(root, "train", points=99)


@pytest.mark.parametrize("form", ["hdf5", "packed"])
def test_clouds_are_drawn_by_the_seed(form, request):
    root = request.getfixturevalue(form)
    one, two = (load(root, "train", points=8, clouds=5, seed=seed) for seed in (1, 2))
    assert len(one) == len(two) == 5
    assert not np.array_equal(one.xyz, two.xyz)
    np.testing.assert_array_equal(one.xyz, load(root, "train", points=8, clouds=5, seed=1).xyz)
    assert len(load(root, "train", points=8, clouds=500)) in (9, 11)


def test_a_class_no_cloud_has_is_refused(tmp_path):
    write_packed(CloudSet(np.zeros((2, 4, 3), np.float32), np.array([0, 1]), NAMES), tmp_path, "train")
    with pytest.raises(DatasetError, match="split 'train' has no cloud of bed"):
        load(tmp_path, "train", points=4, classes=["bed"])


@pytest.mark.data
def test_the_real_data_set(shared_data):
    root = shared_data / "modelnet40_1024"
    data = load(root, "test", points=256)
    assert data.xyz.shape == (2468, 256, 3)
    assert len(data.classes) == 40
    assert data.classes[0] == "airplane"
    assert data.classes[-1] == "xbox"
    # The official test split: 100 of the first class, 86 of desks, 20 of bowls.
    counts = np.bincount(data.labels)
    assert (counts[0], counts[data.classes.index("desk")], counts[data.classes.index("bowl")]) == (100, 86, 20)
    np.testing.assert_allclose(np.linalg.norm(data.xyz, axis=2).max(axis=1), 1, atol=1e-6)
    part = load(root, "train", points=16, classes=["sofa", "bed"])
    assert np.bincount(part.labels).tolist() == [680, 515]
    with pytest.raises(DatasetError, match="1024 are stored"):
        load(root, "test", points=2048)


def test_the_layouts_are_named_in_one_line():
    assert "\n" not in modelnet40.LAYOUTS
