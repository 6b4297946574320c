"""ShapeNetPart in its three forms, written small by the test; and what is said of a folder that is none of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from part_folders import COUNTS, synset, write_hdf5, write_text
from popcloud.cloud import normalize
from popcloud.data.shapenet_part import CATEGORIES, CATEGORY_OF, PARTS, load
from popcloud.errors import DatasetError

h5py = pytest.importorskip("h5py")
LIST = "train_test_split/shuffled_train_file_list.json"


@pytest.fixture
def text(tmp_path) -> tuple[Path, dict[str, np.ndarray]]:
    return tmp_path, write_text(tmp_path)


@pytest.fixture
def root(text) -> Path:
    return text[0]


@pytest.fixture
def hdf5(tmp_path) -> Path:
    write_hdf5(tmp_path)
    return tmp_path


def packed_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "points": rng.integers(-3000, 3000, (50, 3)).astype(np.int16),
        "normals": rng.integers(-127, 128, (50, 3)).astype(np.int8),
        "part": np.repeat([6, 7, 6, 22], [10, 10, 15, 15]).astype(np.uint8),
        "offsets": np.array([0, 20, 35, 50], np.int32),
        "scale": np.float32(2**-12),
    }


@pytest.fixture
def packed(tmp_path) -> Path:
    np.savez_compressed(tmp_path / "shapenetpart_two_test.npz", **packed_arrays())
    return tmp_path


def test_the_numbering_is_the_benchmarks():
    first = {name: int(np.flatnonzero(c == CATEGORY_OF)[0]) for c, name in enumerate(CATEGORIES)}
    assert len(PARTS) == 50
    assert len(CATEGORIES) == 16
    assert first == {
        "Airplane": 0, "Bag": 4, "Cap": 6, "Car": 8, "Chair": 12, "Earphone": 16, "Guitar": 19, "Knife": 22,
        "Lamp": 24, "Laptop": 28, "Motorbike": 30, "Mug": 36, "Pistol": 38, "Rocket": 41, "Skateboard": 44, "Table": 47,
    }  # fmt: skip
    assert PARTS[6:8] == ("Cap/panel", "Cap/peak")
    assert len(set(PARTS)) == 50


# --- text ---


def test_the_text_form_in_the_order_of_the_list(text):
    root, written = text
    data = load(root, "train")
    names = json.loads((root / LIST).read_text())
    assert len(data) == len(names) == 16 * COUNTS["train"]
    assert data.features == ("normal_x", "normal_y", "normal_z")
    for cloud, category, title, name in zip(data.clouds, data.category, data.names, names, strict=True):
        rows = written[name]
        assert synset(CATEGORIES[category]) == name.split("/")[1]
        assert title == f"{CATEGORIES[category]}/{name.split('/')[2]}"
        np.testing.assert_array_equal(cloud.xyz, normalize(rows[:, :3].astype(np.float32), "unit_sphere"))
        np.testing.assert_array_equal(cloud.features, rows[:, 3:6].astype(np.float32))
        np.testing.assert_array_equal(cloud.labels, rows[:, 6])


def test_some_points_stay_with_their_parts(text):
    root, written = text
    (cloud,) = load(root, "test", points=20, categories=["Lamp"]).clouds
    rows = written[f"shape_data/{synset('Lamp')}/test0"]
    at = [int(np.flatnonzero((rows[:, 3:6].astype(np.float32) == one).all(axis=1))[0]) for one in cloud.features]
    assert (np.diff(at) > 0).all()
    np.testing.assert_array_equal(cloud.labels, rows[at, 6] - 24)
    other = load(root, "test", points=20, categories=["Lamp"], seed=1).clouds[0]
    assert not np.array_equal(other.features, cloud.features)
    whole = load(root, "test", points=1000, categories=["Lamp"]).clouds[0]
    assert len(whole) == len(rows)


def test_categories_that_are_not_wanted_are_not_read(root):
    for path in (root / synset("Bag")).iterdir():
        path.write_text("no cloud")
    assert load(root, "train", categories=["Mug", "Cap"]).parts == ("Mug/handle", "Mug/cup", "Cap/panel", "Cap/peak")
    with pytest.raises(DatasetError, match=r"expected lines x y z nx ny nz label \("):
        load(root, "train")


@pytest.mark.parametrize("lost", ["synsetoffset2category.txt", LIST, f"{synset('Car')}/train1.txt"])
def test_a_file_that_is_missing_is_named(root, lost):
    (root / lost).unlink()
    with pytest.raises(DatasetError, match=f"{lost} is missing: the folder is half written") as caught:
        load(root, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("", "expected lines x y z nx ny nz label, found none"),
        ("1 2 3 0 0 1\n", "expected lines x y z nx ny nz label, found 6 numbers a line"),
        ("1 2 3 0 0 1 6\n1 2 3\n", r"expected lines x y z nx ny nz label \("),
        ("1 2 nan 0 0 1 6\n", "expected finite numbers"),
        ("1 2 3 0 0 1 50\n", "expected parts 0 to 49 in Cap/train0, found 50"),
        ("1 2 3 0 0 1 -1\n", "expected parts 0 to 49 in Cap/train0, found -1"),
        ("1 2 3 0 0 1 6.5\n", "expected parts 0 to 49 in Cap/train0, found 6.5"),
        ("1 2 3 0 0 1 6\n1 2 3 0 0 1 12\n", r"expected parts of Cap in Cap/train0, found Chair/back \(12\)"),
    ],
)
def test_a_cloud_that_is_damaged_is_named(root, rows, says):
    (root / synset("Cap") / "train0.txt").write_text(rows)
    with pytest.raises(DatasetError, match=rf"train0\.txt: {says}") as caught:
        load(root, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[", "not readable JSON"),
        ('{"a": 1}', "expected a list of names shape_data/"),
        ('["cap"]', "expected a list of names shape_data/"),
        ('["shape_data/a/b", "shape_data/a/b"]', "expected every cloud once"),
        ('["shape_data/123/b"]', "synset '123' has no line"),
    ],
)
def test_a_list_that_is_damaged_is_named(root, content, says):
    (root / LIST).write_text(content)
    with pytest.raises(DatasetError, match=says):
        load(root, "train")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("Boat\t1", "unknown category 'Boat'"),
        ("Cap", "expected lines of a category and a synset, found 'Cap'"),
        ("Cap\t1", "expected a line for Airplane, Bag, Car"),
    ],
)
def test_a_table_of_categories_that_is_damaged(root, line, says):
    (root / "synsetoffset2category.txt").write_text(line + "\n")
    with pytest.raises(DatasetError, match=rf"synsetoffset2category\.txt: {says}"):
        load(root, "train")


# --- hdf5 ---


@pytest.mark.parametrize("inside", [False, True])
def test_the_hdf5_form(tmp_path, inside):
    folder = tmp_path / "hdf5_data" if inside else tmp_path
    folder.mkdir(exist_ok=True)
    write_hdf5(folder)
    data = load(tmp_path, "train")
    assert len(data) == 32
    assert data.features == ()
    assert data.names[16] == "ply_data_train1/0"
    with h5py.File(folder / "ply_data_train1.h5") as file:
        np.testing.assert_array_equal(data.clouds[18].labels, file["pid"][2])
        np.testing.assert_array_equal(data.clouds[18].xyz, normalize(file["data"][2], "unit_sphere"))
        assert data.category[18] == file["label"][2, 0]
    assert data.clouds[0].features is None


def test_categories_and_clouds_are_chosen_in_the_hdf5_form_too(hdf5):
    data = load(hdf5, "train", categories=["Table", "Bag"], clouds=3, points=10)
    assert len(data) == 3
    assert data.categories == ("Table", "Bag")
    assert max(cloud.labels.max() for cloud in data.clouds) < 5


@pytest.mark.parametrize("lost", ["all_object_categories.txt", "val_hdf5_file_list.txt", "ply_data_val0.h5"])
def test_a_file_of_the_hdf5_form_that_is_missing(hdf5, lost):
    (hdf5 / lost).unlink()
    with pytest.raises(DatasetError, match=f"{lost} is missing"):
        load(hdf5, "val")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("data", np.zeros((16, 40, 2), np.float32), r"expected data \(B, N, 3\), label \(B, 1\) and pid \(B, N\)"),
        ("pid", np.zeros((16, 39), np.uint8), r"expected data \(B, N, 3\)"),
        ("label", np.full((16, 1), 16, np.uint8), "expected categories 0 to 15, found 16"),
        ("pid", np.full((16, 40), 50, np.uint8), "expected parts 0 to 49"),
        ("data", np.full((16, 40, 3), np.nan, np.float32), "expected finite numbers"),
        ("pid", None, "expected the arrays data, label and pid, at least one is missing"),
    ],
)
def test_a_file_of_the_hdf5_form_that_is_damaged(hdf5, name, value, says):
    with h5py.File(hdf5 / "ply_data_val0.h5", "a") as file:
        del file[name]
        if value is not None:
            file[name] = value
    with pytest.raises(DatasetError, match=rf"ply_data_val0\.h5: {says}"):
        load(hdf5, "val")


def test_a_file_that_is_no_hdf5(hdf5):
    (hdf5 / "ply_data_val0.h5").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match="not a readable HDF5 file") as caught:
        load(hdf5, "val")
    assert "\n" not in str(caught.value)


def test_categories_in_another_order_are_refused(hdf5):
    path = hdf5 / "all_object_categories.txt"
    path.write_text("\n".join(reversed(path.read_text().splitlines())))
    with pytest.raises(DatasetError, match=r"expected Airplane, Bag, .* in this order"):
        load(hdf5, "val")


# --- packed ---


def test_the_packed_form(packed):
    arrays, data = packed_arrays(), load(packed, "test")
    assert data.names == tuple(f"shapenetpart_two_test/{i}" for i in range(3))
    assert [data.categories[c] for c in data.category] == ["Cap", "Cap", "Knife"]
    assert [len(cloud) for cloud in data.clouds] == [20, 15, 15]
    np.testing.assert_array_equal(data.clouds[0].labels, [6] * 10 + [7] * 10)
    np.testing.assert_allclose(data.clouds[1].features, arrays["normals"][20:35] / 127, atol=1e-6)
    xyz = arrays["points"][20:35] * np.float32(2**-12)
    np.testing.assert_array_equal(data.clouds[1].xyz, normalize(xyz, "unit_sphere"))
    assert load(packed, "test", categories=["Knife"]).category.tolist() == [0]


def test_a_split_or_category_the_packed_form_has_not(packed):
    with pytest.raises(DatasetError, match=r"no shapenetpart_\*_val\.npz; it has the splits test"):
        load(packed, "val")
    with pytest.raises(DatasetError, match="split 'test' has no cloud of Chair, Mug; choose other categories"):
        load(packed, "test", categories=["Chair", "Mug"])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"points": np.zeros((50, 2), np.int16)}, r"expected points \(N, 3\), normals"),
        ({"part": np.zeros(49, np.uint8)}, r"expected points \(N, 3\), normals"),
        ({"offsets": np.array([0, 20], np.int32)}, "expected offsets from 0 to 50"),
        ({"offsets": np.array([0, 20, 20, 50], np.int32)}, "expected offsets that rise"),
        ({"part": np.full(50, 77, np.uint8)}, "expected parts 0 to 49"),
        ({"part": None}, "expected the arrays points, scale, normals, part, offsets"),
    ],
)
def test_a_packed_file_that_is_damaged(packed, changed, says):
    arrays = {key: value for key, value in (packed_arrays() | changed).items() if value is not None}
    np.savez_compressed(packed / "shapenetpart_two_test.npz", **arrays)
    with pytest.raises(DatasetError, match=rf"shapenetpart_two_test\.npz: {says}"):
        load(packed, "test")


def test_a_packed_file_cut_short(packed):
    path = packed / "shapenetpart_two_test.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DatasetError, match="not a readable npz"):
        load(packed, "test")


def test_the_real_caps(shared_data):
    data = load(shared_data / "shapenet_cap16", "test", categories=["Cap"])
    assert len(data) == 11
    assert len(load(shared_data / "shapenet_cap16", "val")) == 5
    assert data.parts == ("Cap/panel", "Cap/peak")
    for cloud in data.clouds:
        assert 2300 <= len(cloud) <= 2800
        assert set(cloud.labels.tolist()) == {0, 1}
        np.testing.assert_allclose(np.linalg.norm(cloud.features, axis=1).mean(), 1, atol=0.05)


# --- none ---


def test_no_folder_and_a_folder_of_something_else(tmp_path):
    with pytest.raises(DatasetError, match="shapenet_part: expected the data set's folder, found none"):
        load(None, "train")
    with pytest.raises(DatasetError, match="no such folder"):
        load(tmp_path / "nowhere", "train")
    with pytest.raises(DatasetError, match=r"holds no form of ShapeNetPart; .*or use the data set 'parts'"):
        load(tmp_path, "train")
