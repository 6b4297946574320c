"""What holds for the maps of every cloud, whatever the plan: mirror, way back, translation, order of points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcloud.geometry.kernel_map import KernelMap
from popcloud.geometry.plan import PLANS, GridPlan
from popcloud.geometry.pyramid import Pyramid
from sites import all_pairs

LEVELS, EDGE = 4, 0.25  # the coarsest sites are eight voxels, two metres, wide
COARSEST = EDGE * 2 ** (LEVELS - 1)
KINDS = {"grid": [GridPlan(EDGE, LEVELS, 3), GridPlan(EDGE, LEVELS, 5)]}
PLANNED = [plan for name in PLANS for plan in KINDS[name]]

eighths = st.tuples(*[st.integers(-60, 60)] * 3)  # in eighths of a metre: exact in float32, half of them on borders
clouds = st.lists(eighths, min_size=1, max_size=50).map(lambda rows: np.array(rows, np.float32) / 8)
plans = st.sampled_from(PLANNED)
few = settings(max_examples=25)


def maps(made: Pyramid) -> list[tuple[KernelMap, np.ndarray, np.ndarray]]:
    """Return every map with its input sites and its output sites."""
    sites = [level.sites for level in made.levels]
    same = [(level.same, level.sites, level.sites) for level in made.levels]
    return same + [(down, sites[at], sites[at + 1]) for at, down in enumerate(made.down)]


def met(made: KernelMap, into: np.ndarray, out: np.ndarray) -> list[set[tuple[int, ...]]]:
    """Return which sites meet at each offset: coordinates instead of row numbers."""
    return [{(*into[i].tolist(), *out[o].tolist()) for i, o in pairs} for pairs in all_pairs(made)]


@given(clouds, plans)
@few
def test_submanifold_map_is_its_own_mirror(xyz, plan):
    for level in plan.build(xyz).levels:
        there = all_pairs(level.same)
        back = [sorted((o, i) for i, o in pairs) for pairs in reversed(there)]
        assert [sorted(pairs) for pairs in there] == back


@given(clouds, plans)
@few
def test_down_and_up_again_returns_the_same_sites(xyz, plan):
    made = plan.build(xyz)
    for fine, coarse, down in zip(made.levels[:-1], made.levels[1:], made.down, strict=True):
        up = down.transposed()
        assert np.sort(up.outputs).tolist() == list(range(len(fine.sites)))  # each once
        assert np.unique(up.inputs).tolist() == list(range(len(coarse.sites)))
        child = np.repeat(-up.offsets.astype(int), up.ranges[:, 1] - up.ranges[:, 0], axis=0)
        np.testing.assert_array_equal(2 * coarse.sites[up.inputs] + child, fine.sites[up.outputs])


@given(clouds, plans, st.tuples(*[st.integers(-50, 50)] * 3))
@few
def test_moving_by_the_coarsest_stride_moves_what_meets(xyz, plan, steps):
    """The rows may change places, for the order of sites is that of their coordinates; who meets whom may not."""
    here, there = plan.build(xyz), plan.build(xyz + np.array(steps, np.float32) * np.float32(COARSEST))
    for (one, *sites), (two, *moved) in zip(maps(here), maps(there), strict=True):
        widths = [2 ** (LEVELS - 1 - level_of(here, side)) for side in sites]
        back = [side - np.array(steps) * width for side, width in zip(moved, widths, strict=True)]
        assert met(one, *sites) == met(two, *back)


def level_of(made: Pyramid, sites: np.ndarray) -> int:
    return next(number for number, level in enumerate(made.levels) if level.sites is sites)


@pytest.mark.parametrize("plan", PLANNED, ids=str)
@pytest.mark.parametrize("steps", [(1, 0, 0), (-1, 2, 31), (1000, -1000, 7)])
def test_cloud_within_one_coarsest_site_moves_without_any_change_of_its_maps(plan, steps, rng):
    xyz = rng.integers(0, 64, (300, 3)).astype(np.float32) / 32
    here, there = plan.build(xyz), plan.build(xyz + np.array(steps, np.float32) * np.float32(COARSEST))
    np.testing.assert_array_equal(here.point_to_site, there.point_to_site)
    for number, (one, two) in enumerate(zip(here.levels, there.levels, strict=True)):
        np.testing.assert_array_equal(one.sites + np.array(steps) * 2 ** (LEVELS - 1 - number), two.sites)
    for (one, *_), (two, *_) in zip(maps(here), maps(there), strict=True):
        for name in ("inputs", "outputs", "ranges"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


@given(clouds, plans, st.randoms(use_true_random=False))
@few
def test_shuffled_points_change_point_to_site_alone(xyz, plan, random):
    order = np.array(random.sample(range(len(xyz)), len(xyz)))
    one, two = plan.build(xyz), plan.build(xyz[order])
    np.testing.assert_array_equal(one.point_to_site[order], two.point_to_site)
    for a, b in zip(one.levels, two.levels, strict=True):
        np.testing.assert_array_equal(a.sites, b.sites)
    for (a, *_), (b, *_) in zip(maps(one), maps(two), strict=True):
        for name in ("inputs", "outputs", "ranges"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@given(clouds, plans)
@few
def test_every_pair_is_as_far_apart_as_its_offset_says(xyz, plan):
    made = plan.build(xyz)
    for level in made.levels:
        for (begin, end), offset in zip(level.same.ranges, level.same.offsets, strict=True):
            apart = level.sites[level.same.inputs[begin:end]] - level.sites[level.same.outputs[begin:end]]
            assert (apart == offset).all()
            assert (np.diff(level.same.outputs[begin:end]) > 0).all()
