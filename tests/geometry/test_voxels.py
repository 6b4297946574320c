"""Points to sites: where borders lie, which order sites have, what a site's points have in common."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcloud.cloud import IGNORE
from popcloud.errors import CloudError
from popcloud.geometry.voxels import majority_labels, mean_features, morton, voxelize


def interleaved(x: int, y: int, z: int) -> int:
    """Return the Morton key of one site, bit by bit."""
    return sum(((x >> b & 1) << 2 | (y >> b & 1) << 1 | (z >> b & 1)) << 3 * b for b in range(21))


def fitting_edge(message: str) -> float:
    return float(re.search(r"an edge of (\S+) m fits", message).group(1))


def test_keys_are_interleaved_bits(rng):
    grid = np.vstack([rng.integers(0, 1 << 20, (200, 3)), [[0, 0, 0], [(1 << 20) - 1] * 3]])
    assert morton(grid).tolist() == [interleaved(*site) for site in grid.tolist()]


def test_order_of_two_sites_does_not_depend_on_the_others(rng):
    grid = np.unique(rng.integers(-(1 << 19), 1 << 19, (500, 3)), axis=0)
    grid = grid[np.argsort(morton(grid))]
    for kept in (grid[:, 0] >= 0, (grid < 0).all(axis=1), grid.sum(axis=1) > 0, rng.random(len(grid)) < 0.1):
        assert (np.diff(morton(grid[kept])) > 0).all()


def test_children_are_side_by_side_and_parents_in_order(rng):
    grid = np.unique(rng.integers(-40, 40, (3000, 3)), axis=0)
    grid = grid[np.argsort(morton(grid))]
    for _ in range(5):
        parents = grid >> 1
        new = np.append(True, (parents[1:] != parents[:-1]).any(axis=1))
        assert new.sum() == len(np.unique(parents, axis=0))
        grid = parents[new]
        assert (np.diff(morton(grid)) > 0).all()


def test_sites_are_the_floors_of_the_quotients(rng):
    xyz = rng.normal(scale=3, size=(500, 3)).astype(np.float32)
    made = voxelize(xyz, 0.3)
    cells = np.floor(xyz.astype(np.float64) / 0.3).astype(int)
    np.testing.assert_array_equal(made.sites[made.point_to_site], cells)
    assert len(made.sites) == len(set(map(tuple, cells.tolist())))
    assert (np.diff(morton(made.sites)) > 0).all()
    assert (made.sites.dtype, made.point_to_site.dtype, made.edge) == (np.int32, np.int32, 0.3)
    assert made.sites.flags.c_contiguous


@given(
    st.lists(st.tuples(*[st.integers(-50, 50)] * 3), min_size=1, max_size=30), st.sampled_from([0.125, 0.5, 1.0, 4.0])
)
@settings(max_examples=50)
def test_point_on_a_border_belongs_to_the_site_above(corners, edge):
    on, below = (voxelize(np.array(corners) * edge - by, edge) for by in (0, edge / 64))
    np.testing.assert_array_equal(on.sites[on.point_to_site], corners)
    np.testing.assert_array_equal(below.sites[below.point_to_site], np.array(corners) - 1)


def test_quotient_is_taken_in_float64():
    below = np.float32(0.7)  # less than 0.7, while its quotient by float32's 0.1 is 7
    assert below / np.float32(0.1) == 7
    assert voxelize(np.full((1, 3), below), 0.1).sites.tolist() == [[6, 6, 6]]


@pytest.mark.parametrize("edge", [0, -0.1, np.nan, np.inf])
def test_edge_that_is_no_length_is_refused(edge):
    with pytest.raises(CloudError, match=f"voxel edge {edge}: expected a positive number"):
        voxelize(np.zeros((1, 3)), edge)


@pytest.mark.parametrize(
    ("xyz", "line"),
    [
        (np.zeros((0, 3)), "expected at least one point, found none"),
        ([[0, 0, np.nan]], "1 of 1 points are not finite"),
        (np.zeros((4, 2)), r"expected shape \(N, 3\)"),
    ],
)
def test_cloud_that_can_not_be_used_is_refused(xyz, line):
    with pytest.raises(CloudError, match=line):
        voxelize(xyz, 0.1)


@pytest.mark.parametrize("flat", [0, 1, 2])
@pytest.mark.parametrize("most", [8, 100, 777])
def test_too_many_sites_names_an_edge_that_fits(rng, flat, most):
    xyz = rng.uniform(-5, 5, (20_000, 3)).astype(np.float32)
    xyz[:, :flat] = 0.01  # a solid, a surface, a line
    found = len(voxelize(xyz, 0.003).sites)
    with pytest.raises(
        CloudError, match=f"voxel edge 0.003 m gives {found} sites, at most {most} are allowed"
    ) as error:
        voxelize(xyz, 0.003, max_sites=most)
    edge = fitting_edge(str(error.value))
    assert len(voxelize(xyz, edge, max_sites=most).sites) <= most
    assert len(voxelize(xyz, edge / 1.3).sites) > most or edge < 0.004


def test_exactly_as_many_sites_as_allowed_are_fine():
    corners = np.array(list(product((-0.5, 0.5), repeat=3)))
    assert len(voxelize(corners, 1.0, max_sites=8).sites) == 8
    with pytest.raises(CloudError, match="max_sites 7: expected at least 8"):
        voxelize(corners, 1.0, max_sites=7)


@pytest.mark.parametrize(
    ("xyz", "edge", "line"),
    [
        ([[0, 0, 0], [0, 1e5, 0]], 0.05, "spreads the cloud over 2000001 sites along an axis, at most 1048576"),
        ([[6e5, 6.8e6, 80], [6.1e5, 6.8e6, 90]], 0.005, "puts a point 1.36e\\+09 sites from zero, at most 1073741824"),
        ([[-1e9, 0, 0]], 0.05, "puts a point 2e\\+10 sites from zero"),
        ([[1, 2, 3]], 5e-324, "puts a point inf sites from zero"),
        ([[3e38, -3e38, 0]], 1.0, "puts a point 3e\\+38 sites from zero"),
    ],
)
def test_cloud_outside_the_grid_names_an_edge_that_fits(xyz, edge, line):
    with pytest.raises(CloudError, match=line) as error:
        voxelize(xyz, edge)
    fits = fitting_edge(str(error.value))
    voxelize(xyz, fits)
    with pytest.raises(CloudError, match="sites"):
        voxelize(xyz, fits / 1.2)


def test_widest_span_is_allowed():
    ends = [[-(2.0**19), 0, 0], [2.0**19 - 1, 0, 0]]
    assert voxelize(ends, 1.0).sites.tolist() == [[-(1 << 19), 0, 0], [(1 << 19) - 1, 0, 0]]
    with pytest.raises(CloudError, match="1048577 sites along an axis"):
        voxelize([ends[0], [2.0**19, 0, 0]], 1.0)


def test_farthest_site_is_allowed():
    assert voxelize([[-(2.0**30), 2.0**30, 0]], 1.0).sites.tolist() == [[-(1 << 30), 1 << 30, 0]]


@pytest.fixture
def made(rng):
    return voxelize(rng.uniform(-1, 1, (400, 3)), 0.5)


def points_by_site(made) -> dict[int, list[int]]:
    rows = defaultdict(list)
    for point, site in enumerate(made.point_to_site.tolist()):
        rows[site].append(point)
    return rows


def test_features_are_means_summed_in_float64_in_point_order(made, rng):
    features = (rng.normal(size=(400, 2)) * 10.0 ** rng.integers(-6, 6, (400, 2))).astype(np.float32)
    means = mean_features(made, features)
    assert means.dtype == np.float32
    for site, rows in points_by_site(made).items():
        for column in range(2):
            total = 0.0
            for row in rows:
                total += float(features[row, column])
            assert means[site, column] == np.float32(total / len(rows))


def test_cloud_without_feature_columns_has_none_per_site(made):
    assert mean_features(made, np.empty((400, 0), np.float32)).shape == (len(made.sites), 0)


@pytest.mark.parametrize("features", [np.zeros((399, 1)), np.zeros(400)])
def test_features_of_another_shape_are_refused(made, features):
    with pytest.raises(CloudError, match=r"features: expected shape \(400, F\)"):
        mean_features(made, features)


def test_features_that_are_not_finite_are_refused(made):
    features = np.zeros((400, 2))
    features[[3, 3, 9], [0, 1, 0]] = np.inf
    with pytest.raises(CloudError, match="features: 2 of 400 points"):
        mean_features(made, features)


def test_most_frequent_label_wins_and_the_lowest_of_equals(made, rng):
    labels = rng.choice([IGNORE, 0, 1, 2], 400)
    labels[np.isin(made.point_to_site, [0, 5])] = IGNORE
    answer = majority_labels(made, labels, 3)
    assert answer.dtype == np.int64
    for site, rows in points_by_site(made).items():
        votes = Counter(int(labels[row]) for row in rows if labels[row] != IGNORE)
        most = max(votes.values(), default=0)
        assert answer[site] == min((label for label in votes if votes[label] == most), default=IGNORE)
    assert answer[0] == answer[5] == IGNORE


def test_ties_go_to_the_lowest_class():
    made = voxelize(np.zeros((4, 3)), 1.0)
    assert majority_labels(made, np.array([2, 1, 1, 2]), 3).tolist() == [1]


@pytest.mark.parametrize("label", [-1, 3, -101])
def test_label_outside_the_classes_is_refused(made, label):
    labels = np.zeros(400, np.int64)
    labels[7] = label
    with pytest.raises(CloudError, match=f"label {label}: expected 0 to 2, or -100 for none"):
        majority_labels(made, labels, 3)


def test_labels_of_another_length_are_refused(made):
    with pytest.raises(CloudError, match=r"labels: expected shape \(400,\), one a point, found \(3,\)"):
        majority_labels(made, np.zeros(3, np.int64), 3)
