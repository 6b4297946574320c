"""What a cloud must be, and how it is made ready for a network."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from popcloud.cloud import (
    CloudSet,
    PointCloud,
    SceneSet,
    check_rows,
    check_xyz,
    normalize,
    prepare,
    prepare_rows,
    resample,
)
from popcloud.errors import CloudError

finite = st.floats(-1000, 1000, width=32)
clouds = st.integers(1, 40).flatmap(lambda n: arrays(np.float32, (n, 3), elements=finite))


def test_check_gives_float32_rows_in_c_order():
    given_points = np.arange(12, dtype=np.int16).reshape(3, 4).T
    points = check_xyz(given_points)
    assert points.dtype == np.float32
    assert points.flags.c_contiguous
    np.testing.assert_array_equal(points, given_points)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.zeros((0, 3)), "at least one point"),
        (np.zeros((4, 2)), r"found \(4, 2\)"),
        (np.zeros(3), r"found \(3,\)"),
        (np.array([[0, 0, np.nan], [0, 0, 0], [np.inf, 0, 0]]), "2 of 3 points are not finite"),
        (np.array([[0, 0, 1e300]]), "1 of 1 points are not finite"),  # not in float32
        ([[1, 2], [3]], "expected numbers"),
        ("text", "expected numbers"),
    ],
)
def test_check_says_what_is_wrong(bad, says):
    with pytest.raises(CloudError, match=says) as caught:
        check_xyz(bad, "my cloud")
    assert str(caught.value).startswith("my cloud: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("have", "want", "rows"), [(6, 3, [0, 2, 4]), (5, 3, [0, 1, 3]), (2, 5, [0, 1, 0, 1, 0]), (3, 3, [0, 1, 2])]
)
def test_resample_takes_even_steps_or_repeats(have, want, rows):
    xyz = np.arange(have * 3, dtype=np.float32).reshape(have, 3)
    np.testing.assert_array_equal(resample(xyz, want), xyz[rows])


@given(clouds, st.integers(1, 60))
def test_resample_gives_the_count_and_only_points_of_the_cloud(xyz, count):
    answer = resample(xyz, count)
    assert answer.shape == (count, 3)
    assert {row.tobytes() for row in answer} <= {row.tobytes() for row in xyz}


@given(clouds)
def test_normalized_clouds_lie_in_the_unit_sphere(xyz):
    answer = normalize(xyz, "unit_sphere")
    distance = np.linalg.norm(answer.astype(np.float64), axis=1)
    assert answer.dtype == np.float32
    assert abs(distance.max() - 1) < 1e-6 or not answer.any()
    np.testing.assert_allclose(answer.mean(axis=0, dtype=np.float64), 0, atol=1e-6)


@given(clouds, st.floats(0.25, 4, width=32))
def test_normalizing_forgets_size(xyz, factor):
    spread = np.ptp(xyz.astype(np.float64), axis=0).max()
    if spread < 1e-3:  # rounding is as large as such a cloud
        return
    scaled = normalize((xyz.astype(np.float64) * factor).astype(np.float32), "unit_sphere")
    np.testing.assert_allclose(
        scaled, normalize(xyz, "unit_sphere"), atol=1e-6 * max(1, np.abs(xyz).max() / spread) * 4
    )


def test_one_point_goes_to_the_origin():
    np.testing.assert_array_equal(normalize(np.array([[3, 4, 5]], np.float32), "unit_sphere"), np.zeros((1, 3)))


def test_normalizing_leaves_its_input_alone(rng):
    xyz = rng.standard_normal((9, 3), dtype=np.float32)
    before = xyz.copy()
    normalize(xyz, "unit_sphere")
    np.testing.assert_array_equal(xyz, before)
    assert normalize(xyz, "none") is xyz


def test_unknown_normalisation_lists_the_valid_ones():
    with pytest.raises(CloudError, match="none, unit_sphere"):
        normalize(np.zeros((1, 3), np.float32), "box")


def test_prepare_resamples_before_it_normalizes(rng):
    xyz = rng.standard_normal((50, 3)) + 7
    expected = normalize(resample(xyz.astype(np.float32), 8), "unit_sphere")
    np.testing.assert_array_equal(prepare(xyz, 8, "unit_sphere"), expected)
    assert len(prepare(xyz, 0, "none")) == 50


def test_rows_are_resampled_whole_and_their_positions_normalised(rng):
    rows = rng.standard_normal((50, 5)).astype(np.float32) + 7
    ready = prepare_rows(rows, 8, "unit_sphere")
    np.testing.assert_array_equal(ready[:, :3], prepare(rows[:, :3], 8, "unit_sphere"))
    np.testing.assert_array_equal(ready[:, 3:], resample(rows, 8)[:, 3:])
    for how in ("none", "blocks"):
        np.testing.assert_array_equal(prepare_rows(rows, 0, how), rows)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.zeros((0, 4)), "at least one point"),
        (np.zeros((4, 2)), r"expected shape \(N, 3\) or wider, found \(4, 2\)"),
        (np.zeros(4), r"found \(4,\)"),
        ([[0, 0, 0, np.nan], [0, 0, 0, 0]], "1 of 2 points are not finite"),
        ([[0, 0, 0, 1e300]], "1 of 1 points are not finite"),
        ("abc", r"numbers of shape \(N, F\)"),
    ],
)
def test_rows_that_are_no_cloud_are_refused(bad, says):
    with pytest.raises(CloudError, match=says):
        check_rows(bad)


def test_unknown_normalisation_of_rows_is_refused():
    with pytest.raises(CloudError, match="unknown normalisation 'box'"):
        prepare_rows(np.zeros((1, 4)), 0, "box")


def test_subset_keeps_points_labels_and_classes_together(rng):
    data = CloudSet(rng.standard_normal((4, 5, 3), dtype=np.float32), np.array([0, 1, 1, 0]), ("a", "b"))
    part = data.subset(np.array([2, 0]))
    assert (len(data), len(part)) == (4, 2)
    np.testing.assert_array_equal(part.xyz, data.xyz[[2, 0]])
    np.testing.assert_array_equal(part.labels, [1, 0])
    assert part.classes == ("a", "b")


def test_a_clouds_length_is_its_number_of_points():
    assert len(PointCloud(np.zeros((7, 3), np.float32))) == 7


def test_subset_of_scenes_keeps_names_beside_clouds():
    clouds = tuple(PointCloud(np.full((n, 3), n, np.float32)) for n in (1, 2, 3))
    scenes = SceneSet(clouds, ("a", "b", "c"), ("floor", "wall"), ())
    some = scenes.subset([2, 0])
    assert some.names == ("c", "a")
    assert [len(cloud) for cloud in some.clouds] == [3, 1]
    assert some.classes == scenes.classes
