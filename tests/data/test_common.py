"""Choosing scenes and classes of scenes."""

from __future__ import annotations

import numpy as np
import pytest

from popcloud.cloud import IGNORE, PointCloud, SceneSet
from popcloud.data.common import check_scene_request, keep_scene_classes, keep_scenes
from popcloud.errors import DatasetError


@pytest.fixture
def data() -> SceneSet:
    labels = [np.array([0, 1, 2, IGNORE]), np.array([IGNORE] * 4)]
    clouds = tuple(PointCloud(np.zeros((4, 3), np.float32), None, each) for each in labels)
    return SceneSet(clouds, ("one", "two"), ("a", "b", "c"), ())


def test_labels_are_renumbered_in_the_order_asked_for(data):
    chosen = keep_scene_classes(data, ["c", "a"])
    assert chosen.classes == ("c", "a")
    assert chosen.names == data.names
    np.testing.assert_array_equal(chosen.clouds[0].labels, [1, IGNORE, 0, IGNORE])
    np.testing.assert_array_equal(chosen.clouds[1].labels, [IGNORE] * 4)
    assert chosen.clouds[0].labels.dtype == np.int64


def test_all_classes_are_kept_without_a_wish(data):
    np.testing.assert_array_equal(keep_scene_classes(data, None).clouds[0].labels, data.clouds[0].labels)


def test_a_cloud_without_labels_keeps_none(data):
    bare = SceneSet((PointCloud(np.zeros((4, 3), np.float32)),), ("one",), data.classes, ())
    assert keep_scene_classes(bare, ["b"]).clouds[0].labels is None


def test_scenes_are_drawn_by_the_seed_in_their_order():
    names = [f"{number:02d}" for number in range(20)]
    drawn = keep_scenes(names, 6, 3)
    assert drawn == keep_scenes(names, 6, 3) == sorted(drawn)
    assert len(set(drawn)) == 6
    assert drawn != keep_scenes(names, 6, 4)
    assert keep_scenes(names, None, 3) == keep_scenes(names, 20, 3) == keep_scenes(names, 99, 3) == names


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("tests", None), "unknown split 'tests'; did you mean 'test'"), (("train", 0), "scenes: expected at least 1")],
)
def test_a_request_that_makes_no_sense_is_refused(arguments, says):
    with pytest.raises(DatasetError, match=says):
        check_scene_request(*arguments)
