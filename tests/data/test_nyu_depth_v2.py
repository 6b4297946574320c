"""NYU Depth v2 in its three files with a few images."""

from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import pytest

from official_folders import write_nyu_depth_v2, write_nyu_meta
from popcloud.cloud import IGNORE
from popcloud.data.nyu_depth_v2 import CLASSES, cloud_of, load, mapping_of, numbers_of
from popcloud.errors import DatasetError

h5py = pytest.importorskip("h5py")
savemat = pytest.importorskip("scipy.io").savemat

IMAGES = "nyu_depth_v2_labeled.mat"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A folder that no test changes."""
    root = tmp_path_factory.mktemp("nyu")
    write_nyu_depth_v2(root)
    return root


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder with one small image file that a test may spoil."""
    with h5py.File(tmp_path / IMAGES, "w") as file:
        file["images"], file["depths"] = np.zeros((1, 3, 640, 480), "u1"), np.ones((1, 640, 480), "<f4")
        file["labels"] = np.ones((1, 640, 480), "<u2")
    write_nyu_meta(tmp_path, [1], [1], np.arange(894) % 40 + 1)
    return tmp_path


def test_the_images_of_a_split_in_order_of_number(whole):
    train, test = load(whole, "train"), load(whole, "test")
    assert train.names == ("image_0001", "image_0003", "image_0004")
    assert test.names == ("image_0002",)
    assert train.features == ("red", "green", "blue")
    assert train.classes == CLASSES
    assert len(CLASSES) == len(set(CLASSES)) == 40


def test_one_point_per_pixel_of_the_frame(whole):
    cloud = load(whole, "test").clouds[0]
    assert len(cloud) == 560 * 425
    columns, rows = (grid.reshape(-1) for grid in np.meshgrid(np.arange(40, 600), np.arange(45, 470), indexing="ij"))
    np.testing.assert_allclose(cloud.xyz[:, 0], (columns - 319.5) / 100, atol=1e-6)
    np.testing.assert_allclose(cloud.xyz[:, 2], (239.5 - rows) / 100, atol=1e-6)
    colours = np.stack([columns + 1, rows, columns + rows], axis=1) % 256
    np.testing.assert_allclose(cloud.features, colours / 127.5 - 1, atol=1e-6)
    assert cloud.xyz.dtype == cloud.features.dtype == np.float32


def test_depth_is_measured_from_the_mean_of_the_whole_image(whole):
    cloud = load(whole, "test").clouds[0]
    depth = 2 + np.arange(640)[:, None] / 640 + np.arange(480)[None] / 96
    np.testing.assert_allclose(cloud.xyz[:, 1], (depth - depth.mean())[40:600, 45:470].reshape(-1), atol=1e-5)


def test_labels_go_through_the_mapping_and_zero_is_ignored(whole):
    labels = load(whole, "test").clouds[0].labels.reshape(560, 425)
    ids = (np.arange(640 * 480).reshape(640, 480) + 1) % 895
    expected = np.where(ids == 0, IGNORE, (ids - 1) % 40)[40:600, 45:470]
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == np.int64


def test_a_voxel_of_two_centimetres_holds_two_by_two_pixels():
    flat = np.ones((640, 480), np.float32)
    cloud = cloud_of(np.zeros((3, 640, 480), np.uint8), flat, np.zeros((640, 480), np.int64))
    sites, counts = np.unique(np.floor(cloud.xyz / 0.02).astype(int), axis=0, return_counts=True)
    assert len(sites) == 280 * 213  # 425 rows are odd
    assert set(counts) == {2, 4}


def test_some_images_of_some_classes(whole):
    data = load(whole, "train", classes=["floor", "bag"], scenes=2, seed=1)
    assert len(data) == 2
    assert set(np.unique(data.clouds[0].labels)) == {IGNORE, 0, 1}
    assert len({load(whole, "train", scenes=1, seed=seed).names for seed in range(6)}) > 1


@pytest.mark.parametrize("name", [IMAGES, "classMapping40.mat", "splits.mat"])
def test_a_missing_file_is_named(root, name):
    (root / name).unlink()
    with pytest.raises(DatasetError, match=f"{name} is missing: the folder is half written.*expected {IMAGES}"):
        load(root, "train")


@pytest.mark.parametrize(
    ("name", "array"), [("classMapping40.mat", "mapClass"), ("splits.mat", "trainNdxs"), ("splits.mat", "testNdxs")]
)
def test_a_matlab_file_without_its_array_is_named(root, name, array):
    savemat(root / name, {"other": np.ones(3)})
    with pytest.raises(DatasetError, match=f"{name}: expected the array {array}, found other"):
        load(root, array.removesuffix("Ndxs") if "Ndxs" in array else "train")


@pytest.mark.parametrize("name", ["classMapping40.mat", "splits.mat"])
@pytest.mark.parametrize("keep", [0, 60, 135, 150])
def test_a_matlab_file_cut_short_is_named(root, name, keep):
    path = root / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DatasetError, match=f"{name}: "):
        load(root, "test")


def test_a_matlab_file_of_the_newer_form_is_refused(root):
    with h5py.File(root / "splits.mat", "w", userblock_size=512) as file:
        file["trainNdxs"] = np.ones((1, 1))
    head = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    with (root / "splits.mat").open("r+b") as file:
        file.write(head)
    with pytest.raises(DatasetError, match=r"splits\.mat: expected a MATLAB v5 file"):
        load(root, "train")


@pytest.mark.parametrize("value", [0, 41, 2.5, np.nan, np.inf])
def test_a_mapping_to_other_classes_is_refused(root, value):
    savemat(root / "classMapping40.mat", {"mapClass": np.array([[1, value]])})
    with pytest.raises(DatasetError, match=r"classMapping40\.mat: mapClass: expected (classes 1 to 40|whole numbers)"):
        mapping_of(root / "classMapping40.mat")


def test_image_numbers_begin_at_one(root):
    savemat(root / "splits.mat", {"trainNdxs": np.array([[0], [1]])})
    with pytest.raises(DatasetError, match=r"trainNdxs: expected image numbers from 1, found 0"):
        numbers_of(root / "splits.mat", "trainNdxs")


def test_a_split_beyond_the_images_is_refused(root):
    write_nyu_meta(root, [1, 3], [1], np.arange(894) % 40 + 1)
    with pytest.raises(
        DatasetError, match=rf"{IMAGES}: expected at least 3 images, as many as splits\.mat names, found 1"
    ):
        load(root, "train")


@pytest.mark.parametrize("array", ["images", "depths", "labels"])
def test_a_missing_array_is_named(root, array):
    with h5py.File(root / IMAGES, "a") as file:
        del file[array]
    with pytest.raises(DatasetError, match=f"expected the arrays images, depths, labels, found no {array}"):
        load(root, "train")


@pytest.mark.parametrize(("array", "shape"), [("depths", (2, 640, 480)), ("labels", (1, 480, 640))])
def test_arrays_that_dont_fit_each_other(root, array, shape):
    with h5py.File(root / IMAGES, "a") as file:
        del file[array]
        file[array] = np.ones(shape, "<u2")
    with pytest.raises(DatasetError, match=f"{array}: expected shape .1, 640, 480., found"):
        load(root, "train")


def test_a_label_beyond_the_mapping_is_named(root):
    with h5py.File(root / IMAGES, "a") as file:
        file["labels"][0, 100, 100] = 895
    with pytest.raises(DatasetError, match=f"{IMAGES}: expected label ids .* at most 894, found 895"):
        load(root, "train")


def test_a_depth_that_is_not_finite_names_the_image(root):
    with h5py.File(root / IMAGES, "a") as file:
        file["depths"][0, 3, 3] = np.nan
    with pytest.raises(DatasetError, match=f"{IMAGES}: image 1: expected finite depths"):
        load(root, "train")


@pytest.mark.parametrize("keep", [0, 300, 5000])
def test_a_damaged_hdf5_file_is_named(root, keep):
    (root / IMAGES).write_bytes((root / IMAGES).read_bytes()[:keep])
    with pytest.raises(DatasetError, match=f"{IMAGES}: not a readable HDF5 file"):
        load(root, "train")


def test_there_is_no_validation_split(root):
    with pytest.raises(DatasetError, match="unknown split 'val'; valid: train, test"):
        load(root, "val")


def test_without_h5py_the_message_names_the_extra(root, monkeypatch):
    plain = builtins.__import__

    def refuse(name, *rest):
        if name == "h5py":
            raise ImportError(name)
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DatasetError, match=r"pip install 'popcloud\[learn\]'"):
        load(root, "train")
