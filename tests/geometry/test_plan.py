"""A plan builds the pyramid a network asks for, and survives as plain values."""

from __future__ import annotations

import numpy as np
import pytest

from popcloud.errors import CloudError, RecipeError
from popcloud.geometry.plan import GridPlan, from_plain, plain
from popcloud.geometry.pyramid import build
from popcloud.geometry.voxels import voxelize


def test_plan_builds_voxels_and_pyramid(rng):
    xyz = rng.normal(size=(200, 3))
    made, wanted = GridPlan(0.2, 3, 5).build(xyz), build(voxelize(xyz, 0.2), 3, 5)
    np.testing.assert_array_equal(made.point_to_site, wanted.point_to_site)
    for one, two in zip(made.levels, wanted.levels, strict=True):
        np.testing.assert_array_equal(one.sites, two.sites)
        np.testing.assert_array_equal(one.same.inputs, two.same.inputs)
        assert len(one.same.offsets) == 125


def test_plan_hands_the_limit_on():
    with pytest.raises(CloudError, match="at most 10 are allowed"):
        GridPlan(0.1, 2).build(np.arange(60).reshape(20, 3), max_sites=10)


@pytest.mark.parametrize("plan", [GridPlan(0.05, 7), GridPlan(2.0, 1, 5), GridPlan(1 / 3, 16)])
def test_plain_values_give_the_plan_back(plan):
    name, numbers = plain(plan)
    assert name == "grid"
    assert all(type(number) in (int, float) for number in numbers.values())
    for stored in (numbers, {key: float(number) for key, number in numbers.items()}):
        again = from_plain(name, stored)
        assert again == plan
        assert type(again.levels) is type(again.size) is int


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ((0.0, 7), "edge 0.0: expected a positive number of metres"),
        ((float("nan"), 7), "edge nan"),
        ((float("inf"), 7), "edge inf"),
        ((0.1, 0), "0 levels: expected 1 to 16"),
        ((0.1, 17), "17 levels"),
        ((0.1, 2.5), "2.5 levels"),
        ((0.1, 7, 4), "kernel size 4: expected one of 3, 5"),
    ],
)
def test_plan_that_can_not_be_built_is_refused(values, line):
    with pytest.raises(RecipeError, match=line):
        GridPlan(*values)
    with pytest.raises(RecipeError, match=line):
        from_plain("grid", dict(zip(("edge", "levels", "size"), (*values, 3)[:3], strict=True)))


@pytest.mark.parametrize(
    ("name", "numbers", "line"),
    [
        ("gird", {}, "unknown plan 'gird'; did you mean 'grid'"),
        ("grid", {"edge": 0.1, "levels": 7}, "expected edge, levels, size, found edge, levels"),
        ("grid", {}, "found nothing"),
        ("grid", {"edge": 0.1, "levels": 7, "size": 3, "more": 1}, "found edge, levels, size, more"),
    ],
)
def test_plain_values_of_no_plan_are_refused(name, numbers, line):
    with pytest.raises(RecipeError, match=line):
        from_plain(name, numbers)
