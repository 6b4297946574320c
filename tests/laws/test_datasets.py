"""What holds for every data set: one loader shape, clouds in the unit sphere, the same bits for the same arguments."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

from popcloud.cloud import normalize
from popcloud.data import DATASETS, dataset, shapes
from popcloud.data.modelnet40 import write_packed
from popcloud.errors import DatasetError

SIZES = {"shapes": 3 * len(shapes.CLASSES) + 1}


@pytest.fixture
def roots(tmp_path: Path) -> dict[str, Path | None]:
    """A small folder for every data set that reads one."""
    for split, seed in (("train", 1), ("test", 2)):
        write_packed(shapes.load(None, split, points=64, seed=seed, clouds=42), tmp_path, split)
    return {"shapes": None, "modelnet40": tmp_path}


@pytest.fixture(params=DATASETS)
def name(request) -> str:
    return request.param


@pytest.fixture
def load(name, roots):
    """The loader with its folder and a small size filled in."""

    def loader(split="train", **arguments):
        arguments = {"points": 32, "clouds": SIZES.get(name)} | arguments
        return DATASETS[name](roots[name], split, **arguments)

    return loader


def test_every_loader_takes_the_same_arguments(name):
    assert inspect.signature(DATASETS[name]) == inspect.signature(shapes.load)


@pytest.mark.parametrize("split", ["train", "test"])
def test_clouds_have_the_contracts_shapes_and_types(load, split):
    data = load(split)
    assert data.xyz.shape == (len(data), 32, 3)
    assert data.xyz.dtype == np.float32
    assert data.xyz.flags.c_contiguous
    assert data.labels.shape == (len(data),)
    assert data.labels.dtype == np.int64
    assert set(data.labels) == set(range(len(data.classes)))
    assert isinstance(data.classes, tuple)


def test_clouds_are_normalised_bit_for_bit_as_one_cloud_is(load):
    data = load()
    assert np.isfinite(data.xyz).all()
    for cloud in data.xyz:
        again = normalize(cloud, "unit_sphere")
        np.testing.assert_allclose(again, cloud, atol=1e-6)


def test_same_arguments_give_the_same_bits(load):
    one, two = load(seed=5), load(seed=5)
    np.testing.assert_array_equal(one.xyz, two.xyz)
    np.testing.assert_array_equal(one.labels, two.labels)


def test_train_and_test_share_no_cloud(load):
    train, test = load("train"), load("test")
    assert not {cloud.tobytes() for cloud in train.xyz} & {cloud.tobytes() for cloud in test.xyz}


def test_classes_are_restricted_in_the_order_asked_for(load):
    first, *_, last = load().classes
    data = load(classes=[last, first])
    assert data.classes == (last, first)
    assert set(data.labels) == {0, 1}


def test_a_class_keeps_its_clouds_when_others_are_left_out(load, name):
    whole = load(clouds=None if name != "shapes" else 2 * len(shapes.CLASSES))
    wanted = whole.classes[2]
    part = load(classes=[wanted], clouds=None if name != "shapes" else 2)
    mine = {cloud.tobytes() for cloud in whole.xyz[whole.labels == 2]}
    assert {cloud.tobytes() for cloud in part.xyz} == mine


def test_size_is_limited(load, name):
    assert len(load(clouds=len(shapes.CLASSES) + 2)) == len(shapes.CLASSES) + 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"split": "valid"}, "unknown split 'valid'.*train, test"),
        ({"classes": ["cubee"]}, "unknown class 'cubee'; did you mean 'cube'"),
        ({"classes": []}, "at least one"),
        ({"classes": ["cube", "cube"]}, "different names"),
        ({"classes": "cube"}, "expected a list"),
        ({"points": 0}, "points: expected at least 1"),
        ({"clouds": 0}, "clouds: expected at least 1"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_in_one_line(load, arguments, says):
    with pytest.raises(DatasetError, match=says) as caught:
        load(**arguments)
    assert "\n" not in str(caught.value)


def test_an_unknown_dataset_names_the_valid_ones():
    with pytest.raises(DatasetError, match=r"unknown dataset 'shape'; did you mean 'shapes'.*modelnet40"):
        dataset("shape")


def test_a_known_dataset_is_found(name):
    assert dataset(name) is DATASETS[name]
