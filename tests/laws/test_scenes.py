"""What holds for every data set of scenes: one loader shape, labels in range, the same bits for the same arguments."""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from official_folders import WRITERS as OFFICIAL
from popcloud.cloud import IGNORE
from popcloud.data import LABELLED_SPLITS, SCENES, scenes
from popcloud.errors import DatasetError
from popcloud.geometry.inputs import COMPUTED
from scene_folders import write_ign_lidarhd

WRITERS = OFFICIAL | {"ign_lidarhd_dense": write_ign_lidarhd, "ign_lidarhd_sparse": write_ign_lidarhd}


@pytest.fixture(scope="module")
def root_of(tmp_path_factory):
    """A function from a data set's name to a small folder of it, written once; rooms read none."""

    @cache
    def root(name: str) -> Path | None:
        if name not in WRITERS:
            return None
        folder = tmp_path_factory.mktemp(name)
        WRITERS[name](folder)
        return folder

    return root


@pytest.fixture(params=SCENES)
def name(request) -> str:
    return request.param


@pytest.fixture
def load(name, root_of):
    """The loader with its folder filled in; two scenes where nothing else is asked for."""

    def loader(split="train", **arguments):
        return SCENES[name](root_of(name), split, **{"scenes": 2} | arguments)

    return loader


def test_every_loader_takes_the_same_arguments(name):
    found = inspect.signature(SCENES[name]).parameters
    assert list(found)[:2] == ["root", "split"]
    defaults = {key: found[key].default for key in ("seed", "classes", "scenes")}
    assert defaults == {"seed": 0, "classes": None, "scenes": None}


def test_every_set_says_which_splits_are_labelled():
    assert LABELLED_SPLITS.keys() == SCENES.keys()
    assert all(splits[0] == "train" and len(splits) > 1 for splits in LABELLED_SPLITS.values())


def test_scenes_have_the_contracts_shapes_and_types(load, name):
    for split in LABELLED_SPLITS[name]:
        data = load(split)
        assert len(data) == len(data.names) == len(set(data.names)) > 0
        for cloud in data.clouds:
            assert cloud.xyz.dtype == np.float32
            assert cloud.xyz.shape == (len(cloud), 3)
            assert cloud.xyz.flags.c_contiguous
            assert np.isfinite(cloud.xyz).all()
            assert cloud.labels.dtype == np.int64
            assert cloud.labels.shape == (len(cloud),)
            assert set(np.unique(cloud.labels)) <= {IGNORE, *range(len(data.classes))}


def test_features_are_named_and_scaled(load):
    data = load()
    for cloud in data.clouds:
        assert cloud.features.dtype == np.float32
        assert cloud.features.shape == (len(cloud), len(data.features))
        assert np.abs(cloud.features).max() <= 1 + 1e-6
    assert not set(data.features) & set(COMPUTED)  # a model file tells the two kinds of columns apart by name


def test_same_arguments_give_the_same_bits(load):
    one, two = load(seed=5), load(seed=5)
    assert one.names == two.names
    for mine, yours in zip(one.clouds, two.clouds, strict=True):
        np.testing.assert_array_equal(mine.xyz, yours.xyz)
        np.testing.assert_array_equal(mine.features, yours.features)
        np.testing.assert_array_equal(mine.labels, yours.labels)


def test_splits_share_no_scene(load, name):
    found = [load(split, scenes=3) for split in LABELLED_SPLITS[name]]
    clouds = [cloud.xyz.tobytes() for data in found for cloud in data.clouds]
    assert len(set(clouds)) == len(clouds)


def test_classes_are_restricted_in_the_order_asked_for(load):
    whole = load()
    first, *_, last = whole.classes
    part = load(classes=[last, first])
    assert part.classes == (last, first)
    for before, after in zip(whole.clouds, part.clouds, strict=True):
        np.testing.assert_array_equal(after.xyz, before.xyz)
        expected = np.full(len(before), IGNORE)
        expected[before.labels == len(whole.classes) - 1] = 0
        expected[before.labels == 0] = 1
        np.testing.assert_array_equal(after.labels, expected)


def test_the_number_of_scenes_is_limited(load):
    assert len(load(scenes=1)) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"split": "valid"}, "unknown split 'valid'.*train"),
        ({"classes": ["no such thing"]}, "unknown class 'no such thing'.*valid: "),
        ({"classes": []}, "at least one"),
        ({"scenes": 0}, "scenes: expected at least 1, found 0"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_in_one_line(load, arguments, says):
    with pytest.raises(DatasetError, match=says) as caught:
        load(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", [None, "gone"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_folder_is_named_with_what_was_expected(name, missing, tmp_path):
    with pytest.raises(DatasetError, match=r"(no such folder|found none).*; expected "):
        SCENES[name](missing and tmp_path / missing, "train")


def test_an_unknown_set_names_the_valid_ones():
    with pytest.raises(DatasetError, match=r"unknown data set of scenes 'scanet'; did you mean 'scannet'.*rooms"):
        scenes("scanet")


def test_a_known_set_is_found(name):
    assert scenes(name) is SCENES[name]
