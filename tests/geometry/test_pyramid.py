"""A pyramid holds the maps of each level; a stack holds those of each cloud."""

from __future__ import annotations

import numpy as np
import pytest

from popcloud.geometry.kernel_map import stack_maps, strided, submanifold
from popcloud.geometry.pyramid import Pyramid, build, stack
from popcloud.geometry.voxels import voxelize
from sites import assert_same_map


def clouds(rng, *counts: int) -> list[np.ndarray]:
    return [rng.normal(size=(count, 3)).astype(np.float32) for count in counts]


def assert_same_pyramid(one: Pyramid, two: Pyramid) -> None:
    np.testing.assert_array_equal(one.point_to_site, two.point_to_site)
    for a, b in zip(one.levels, two.levels, strict=True):
        np.testing.assert_array_equal(a.sites, b.sites)
        assert_same_map(a.same, b.same)
    for c, d in zip(one.down, two.down, strict=True):
        assert_same_map(c, d)


@pytest.mark.parametrize("size", [3, 5])
def test_each_level_holds_the_parents_of_the_one_before(rng, size):
    voxels = voxelize(clouds(rng, 300)[0], 0.1)
    made = build(voxels, 5, size)
    assert made.point_to_site is voxels.point_to_site
    sites = voxels.sites
    for level in range(5):
        np.testing.assert_array_equal(made.levels[level].sites, sites)
        assert_same_map(made.levels[level].same, submanifold(sites, size))
        if level < 4:
            sites, down = strided(sites)
            assert_same_map(made.down[level], down)
    assert len(made.down) == 4


def test_one_level_has_no_way_down(rng):
    made = build(voxelize(clouds(rng, 10)[0], 0.1), 1)
    assert (len(made.levels), made.down) == (1, ())


def test_deepest_pyramid_ends_in_the_octants_around_zero(rng):
    made = build(voxelize(clouds(rng, 500)[0], 0.1), 16)
    assert len(made.levels[-1].sites) == 8


@pytest.mark.parametrize("size", [3, 5])
def test_stack_keeps_the_clouds_apart(rng, size):
    alone = [build(voxelize(cloud, 0.25), 4, size) for cloud in clouds(rng, 200, 1, 350)]
    both = stack(alone)
    for level, made in enumerate(both.levels):
        np.testing.assert_array_equal(made.sites, np.concatenate([one.levels[level].sites for one in alone]))
        assert_same_map(made.same, stack_maps([one.levels[level].same for one in alone]))
    points = np.concatenate([one.levels[0].sites[one.point_to_site] for one in alone])
    np.testing.assert_array_equal(both.levels[0].sites[both.point_to_site], points)
    assert both.point_to_site.dtype == both.levels[0].sites.dtype == np.int32


def test_convolution_on_a_stack_is_that_of_each_cloud(rng):
    """Sums in numpy over the pairs, down all levels and up again: the stack's rows are the clouds' rows."""

    def walk(made: Pyramid, x: np.ndarray) -> np.ndarray:
        for step in [*made.down, *(step.transposed() for step in reversed(made.down)), made.levels[0].same]:
            y = np.zeros(step.output_sites, np.int64)
            for k, (begin, end) in enumerate(step.ranges):
                y[step.outputs[begin:end]] += (k + 1) * x[step.inputs[begin:end]]
            x = y
        return x

    alone = [build(voxelize(cloud, 0.25), 4) for cloud in clouds(rng, 200, 1, 350)]
    values = [rng.integers(-9, 9, len(one.levels[0].sites)) for one in alone]
    apart = np.concatenate([walk(one, x) for one, x in zip(alone, values, strict=True)])
    np.testing.assert_array_equal(walk(stack(alone), np.concatenate(values)), apart)


def test_stack_of_one_is_itself(rng):
    made = build(voxelize(clouds(rng, 100)[0], 0.25), 3)
    assert_same_pyramid(stack([made]), made)


@pytest.mark.parametrize(("levels", "size"), [(2, 3), (3, 5)])
def test_pyramids_of_different_plans_are_not_stacked(rng, levels, size):
    voxels = voxelize(clouds(rng, 100)[0], 0.25)
    with pytest.raises(ValueError, match=r"zip|shape|argument"):
        stack([build(voxels, 3, 3), build(voxels, levels, size)])
