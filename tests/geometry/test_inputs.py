"""Columns that follow from the points, and those that a cloud must have."""

from __future__ import annotations

import numpy as np
import pytest

from popcloud.cloud import PointCloud
from popcloud.errors import CloudError
from popcloud.geometry.inputs import Columns, height, one, point_columns


def cloud(rng, features=2):
    columns = rng.normal(size=(1000, features)).astype(np.float32) if features else None
    return PointCloud(rng.normal(size=(1000, 3)).astype(np.float32), columns)


def test_columns_are_in_the_order_of_their_names(rng):
    given = cloud(rng)
    found = point_columns(given, ["height", "red", "one", "green"])
    np.testing.assert_array_equal(found[:, [1, 3]], given.features)
    np.testing.assert_array_equal(found[:, :1], height(given.xyz))
    np.testing.assert_array_equal(found[:, 2:3], one(given.xyz))
    assert found.dtype == np.float32


def test_height_is_tens_of_metres_over_what_one_in_a_hundred_lies_below(rng):
    given = cloud(rng)
    found = height(given.xyz)[:, 0]
    assert (found < 0).sum() == 10
    np.testing.assert_allclose(np.ptp(found), 0.1 * np.ptp(given.xyz[:, 2]), rtol=1e-5)
    np.testing.assert_allclose(height(given.xyz + np.float32([0, 0, 64]))[:, 0], found, atol=1e-5)
    assert height(given.xyz[:1])[0, 0] == 0


def test_rows_of_columns_are_those_of_the_whole_cloud(rng):
    given, names = cloud(rng), ["height", "red", "one", "green"]
    rows = np.array([7, 3, 999, 3])
    found = Columns(given, names)[rows]
    np.testing.assert_array_equal(found, point_columns(given, names)[rows])
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)


def test_features_that_nobody_asks_for_are_left_out(rng):
    assert point_columns(cloud(rng), ["one"]).shape == (1000, 1)


@pytest.mark.parametrize("features", [0, 1, 3])
def test_other_features_are_refused_with_what_is_expected(features, rng):
    with pytest.raises(CloudError, match=r"expected shape \(1000, 2\): red, green, found"):
        point_columns(cloud(rng, features), ["one", "red", "green"])
