"""Neighbours in numpy against scipy's k-d tree and the plainest loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from clouds import CLOUDS
from popcloud.errors import CloudError, RecipeError
from popcloud.geometry import neighbors
from popcloud.geometry.rounding import fma

F = np.float32
SEPARATE = (
    "normal",
    "sphere",
    "clusters",
    "a line",
)  # float64 sees them as float32 does, nearly


def apart(a: np.ndarray, b: np.ndarray) -> np.float32:
    """Return the squared distance of two points as it is defined, number by number."""
    with np.errstate(over="ignore"):
        x, y, z = (F(u) - F(v) for u, v in zip(a, b, strict=True))
        return F(F(F(x * x) + F(y * y)) + F(z * z))


def in_order(query: np.ndarray, points: np.ndarray) -> list[int]:
    return sorted(range(len(points)), key=lambda row: (apart(query, points[row]), row))


@pytest.fixture(params=CLOUDS)
def cloud(request) -> np.ndarray:
    return CLOUDS[request.param][:200]


@pytest.mark.parametrize("name", SEPARATE)
def test_nearest_points_are_scipys(name):
    cloud = CLOUDS[name]
    found, _ = cKDTree(cloud.astype(np.float64)).query(cloud.astype(np.float64), k=9)
    rows = neighbors.nearest(cloud, cloud, 9)
    distances = np.sqrt(neighbors.squared(cloud[:, None], cloud[rows]))
    np.testing.assert_allclose(distances, found, rtol=1e-5, atol=1e-6)
    assert all(len(set(row)) == 9 for row in rows.tolist())


@pytest.mark.parametrize("name", SEPARATE)
def test_balls_are_scipys(name):
    cloud = CLOUDS[name]
    radius = 0.37 if name != "a line" else 3.0
    inside = cKDTree(cloud.astype(np.float64)).query_ball_point(cloud.astype(np.float64), radius, return_sorted=True)
    rows = neighbors.ball(cloud, cloud, radius, 12)
    for own, wanted in zip(rows.tolist(), inside, strict=True):
        assert own == (wanted[:12] + wanted[:1] * 12)[:12]


def test_nearest_points_are_those_of_a_plain_sort(cloud):
    k = min(len(cloud), 7)
    rows = neighbors.nearest(cloud[:12], cloud, k)
    assert rows.dtype == np.int32
    assert rows.tolist() == [in_order(query, cloud)[:k] for query in cloud[:12]]


def test_dilation_takes_every_so_manieth(cloud):
    if len(cloud) >= 25:
        all_of_them = neighbors.nearest(cloud, cloud, 25)
        np.testing.assert_array_equal(neighbors.nearest(cloud, cloud, 7, 4), all_of_them[:, ::4])


def test_farthest_points_are_those_of_a_plain_loop(cloud):
    cloud = cloud[:60]
    chosen, least = [0], [F(math.inf)] * len(cloud)
    while len(chosen) < min(len(cloud), 25):
        least = [min(before, apart(point, cloud[chosen[-1]])) for before, point in zip(least, cloud, strict=True)]
        chosen.append(least.index(max(least)))
    assert neighbors.farthest_points(cloud, len(chosen)).tolist() == chosen


def test_equal_distances_go_by_row():
    points = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [-1, 0, 0], [0, 0, 0]], F)
    assert neighbors.nearest(points[2:3] * 0, points, 5).tolist() == [[2, 4, 0, 1, 3]]
    assert neighbors.ball(points[2:3], points, 1.0, 3).tolist() == [[0, 1, 2]]
    assert neighbors.farthest_points(points, 5).tolist() == [0, 3, 1, 2, 0]  # nothing is left but duplicates
    signs = np.array([[7], [1], [2], [0]], np.uint64)
    assert neighbors.nearest_signs(signs[3:], signs, 4).tolist() == [[3, 1, 2, 0]]


def test_half_distances_of_features_are_fused(rng):
    points, queries = (rng.normal(size=(40, 5)).astype(F) for _ in range(2))
    half = np.zeros(40, F)
    for c in range(5):
        half = fma(points[:, c], points[:, c], half)
    keys = half * F(0.5)
    for c in range(5):
        keys = fma(-points[:, c], queries[0, c], keys)
    assert neighbors.nearest_features(queries, points, 40)[0].tolist() == np.argsort(keys, kind="stable").tolist()
    distances = np.linalg.norm(queries[0].astype(np.float64) - points, axis=1)
    np.testing.assert_allclose(
        2 * keys + (queries[0].astype(np.float64) ** 2).sum(), distances**2, rtol=1e-4, atol=1e-5
    )


def test_features_that_are_no_numbers_come_last():
    points = np.array([[np.nan], [2], [np.nan], [1], [np.inf]], F)
    assert neighbors.nearest_features(np.ones((1, 1), F), points, 5).tolist() == [[3, 1, 0, 2, 4]]


def test_signs_are_counted(rng):
    bits = rng.integers(0, 2, (30, 130)).astype(np.uint8)
    words = np.zeros((30, 24), np.uint8)
    words[:, :17] = np.packbits(bits, axis=1, bitorder="little")
    packed = words.view(np.uint64)
    differ = (bits[:, None] != bits).sum(axis=2)
    wanted = np.argsort(differ, axis=1, kind="stable")[:, :11:2]
    np.testing.assert_array_equal(neighbors.nearest_signs(packed, packed, 6, 2), wanted)


def test_interpolation_of_a_plane_between_its_corners():
    points = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [90, 90, 0]], F)
    rows, weights = neighbors.three_nearest([[1, 1, 0], [0, 0, 0]], points)
    np.testing.assert_allclose(weights[0], 1 / 3, rtol=1e-6)  # the three are equally far
    assert weights[1, 0] > 0.999999
    values = neighbors.interpolate(np.array([[0, 1], [3, 1], [6, 1], [np.nan, np.nan]], F), rows, weights)
    np.testing.assert_allclose(values, [[3, 1], [0, 1]], atol=1e-6)


def test_weights_stay_numbers_at_any_distance():
    far = np.array([[3e38, 0, 0], [0, 3e38, 0], [0, 0, 3e38]], F)
    for queries in (np.zeros((1, 3)), far):
        _, weights = neighbors.three_nearest(queries, far)
        assert np.isfinite(weights).all()
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)


def test_density_is_the_definition(cloud):
    width = F(0.5)
    found = neighbors.density(cloud, 0.5)
    for row in range(0, len(cloud), 37):
        total = F(0)
        for point in cloud:
            with np.errstate(over="ignore"):
                near = F(1) - F(apart(cloud[row], point) / F(width * width))
            total = F(total + max(F(0), near))
        assert found[row] == F(len(cloud)) / total


@given(points=st.lists(st.tuples(*[st.integers(-2, 2)] * 3), min_size=1, max_size=30), k=st.integers(1, 9))
@settings(max_examples=50)
def test_any_points_on_a_lattice(points, k):
    cloud = np.array(points, F)
    if k <= len(cloud):
        assert neighbors.nearest(cloud, cloud, k).tolist() == [in_order(query, cloud)[:k] for query in cloud]
    for query, own in zip(cloud, neighbors.ball(cloud, cloud, math.sqrt(2.5), k).tolist(), strict=True):
        inside = [row for row, point in enumerate(cloud) if apart(query, point) <= 2.5][:k]
        assert own == inside + inside[:1] * (k - len(inside))


def test_many_pairs_are_taken_in_parts(rng, monkeypatch):
    cloud = rng.normal(size=(90, 3)).astype(F)
    wanted = neighbors.nearest(cloud, cloud, 5), neighbors.ball(cloud, cloud, 0.6, 5)
    monkeypatch.setattr(neighbors, "PAIRS", 1000)
    np.testing.assert_array_equal(neighbors.nearest(cloud, cloud, 5), wanted[0])
    np.testing.assert_array_equal(neighbors.ball(cloud, cloud, 0.6, 5), wanted[1])


TEN = np.arange(30.0).reshape(10, 3)


def test_what_cannot_be_found_is_refused(monkeypatch):
    with pytest.raises(CloudError, match=r"k = 11 with dilation 1 needs at least 11 points, found 10; use a smaller k"):
        neighbors.nearest(TEN, TEN, 11)
    with pytest.raises(CloudError, match="k = 4 with dilation 4 needs at least 13 points, found 10"):
        neighbors.nearest(TEN, TEN, 4, 4)
    with pytest.raises(CloudError, match="11 farthest points: expected 1 to 10"):
        neighbors.farthest_points(TEN, 11)
    with pytest.raises(CloudError, match=r"points: 1 of 10 points are not finite"):
        neighbors.nearest(TEN, np.where(TEN == 4, np.nan, TEN), 2)
    with pytest.raises(CloudError, match="no point lies within 2 of query 4; use a larger radius"):
        neighbors.ball(TEN, TEN[:4], 2.0, 3)
    monkeypatch.setattr(neighbors, "PAIRS", 8)
    with pytest.raises(CloudError, match="no point lies within 2 of query 4"):
        neighbors.ball(TEN, TEN[:4], 2.0, 3)
    with pytest.raises(CloudError, match=r"expected \(Q, C\) and \(P, C\), found \(10, 3\) and \(10, 2\)"):
        neighbors.nearest_features(TEN, TEN[:, :2], 1)


@pytest.mark.parametrize("radius", [0.0, -1.0, 1e-30, 1e30, math.inf, math.nan])
def test_radii_without_a_square_are_refused(radius):
    with pytest.raises(RecipeError, match="radius: expected a positive number with a square"):
        neighbors.ball(TEN, TEN, radius, 1)
    with pytest.raises(RecipeError, match="bandwidth: expected a positive number"):
        neighbors.density(TEN, radius)


@pytest.mark.parametrize(("k", "dilation"), [(0, 1), (-1, 1), (1, 0)])
def test_no_neighbours_are_refused(k, dilation):
    with pytest.raises(RecipeError, match="expected k and dilation of at least 1"):
        neighbors.nearest(TEN, TEN, k, dilation)
