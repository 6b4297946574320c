"""Maps as tensors: the same pairs as geometry's, both ways round, and who is whose parent."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from popcloud.errors import RecipeError
from popcloud.learn.maps import TensorMap, TensorPyramid
from surfaces import geometry_of, pyramid_of, scattered


def pairs_of(at: TensorMap) -> list[set[tuple[int, int]]]:
    """Per offset the pairs (input, output)."""
    return [set(zip(at.inputs[a:b].tolist(), at.outputs[a:b].tolist(), strict=True)) for a, b in at.ranges.tolist()]


@pytest.fixture
def geometry(rng):
    return geometry_of(scattered(rng))


def test_pairs_are_those_of_geometry(geometry):
    at = TensorPyramid.of(geometry)
    for level, same in zip(geometry.levels, at.same, strict=True):
        assert same.inputs.tolist() == level.same.inputs.tolist()
        assert same.pairs == len(level.same.inputs)
        assert at.sites(at.same.index(same)) == len(level.sites)


def test_pairs_share_geometry_s_memory(geometry):
    at = TensorMap.of(geometry.levels[0].same)
    assert np.shares_memory(at.inputs.numpy(), geometry.levels[0].same.inputs)


@pytest.mark.parametrize("kind", ["same", "down"])
def test_transposed_swaps_the_pairs_of_each_offset_and_ascends(geometry, kind):
    at = TensorPyramid.of(geometry)
    forth = at.same[0] if kind == "same" else at.down[0]
    back = forth.transposed
    assert pairs_of(back) == [{(o, i) for i, o in pairs} for pairs in pairs_of(forth)]
    assert (back.input_sites, back.output_sites) == (forth.output_sites, forth.input_sites)
    assert all((back.outputs[a:b].diff() > 0).all() for a, b in back.ranges.tolist())
    assert pairs_of(back.transposed) == pairs_of(forth)


def test_picked_keeps_offsets_both_ways_round(geometry):
    whole = TensorMap.of(geometry.levels[0].same)
    part = whole.picked([20, 3])
    assert pairs_of(part) == [pairs_of(whole)[20], pairs_of(whole)[3]]
    assert pairs_of(part.transposed) == [pairs_of(whole.transposed)[20], pairs_of(whole.transposed)[3]]
    assert part.inputs is whole.inputs


def test_parents_are_the_cubes_that_hold_their_children(geometry):
    at = TensorPyramid.of(geometry)
    for level, (parents, children) in enumerate(zip(at.parents, at.children, strict=True)):
        fine, coarse = geometry.levels[level].sites, geometry.levels[level + 1].sites
        assert np.array_equal(coarse[parents.numpy()], fine >> 1)
        assert (parents.diff() >= 0).all()
        assert children.tolist() == [int((parents == row).sum()) for row in range(len(coarse))]


def test_window_of_a_wide_pyramid_is_the_narrow_one(rng):
    xyz = scattered(rng)
    wide, narrow = pyramid_of(xyz, size=5), pyramid_of(xyz, size=3)
    for level in range(3):
        assert pairs_of(wide.window(level)) == pairs_of(narrow.window(level))
    assert wide.neighbours(0).pairs > narrow.neighbours(0).pairs


def test_shifted_window_holds_the_sites_around_the_shift(rng):
    xyz = scattered(rng)
    sites = geometry_of(xyz).levels[0].sites.tolist()
    row_of = {tuple(site): row for row, site in enumerate(sites)}
    found = pairs_of(pyramid_of(xyz, size=5).window(0, (1, 0, -1)))
    offsets = [(x, y, z) for x in (0, 1, 2) for y in (-1, 0, 1) for z in (-2, -1, 0)]
    for pairs, (x, y, z) in zip(found, offsets, strict=True):
        near = ((row_of.get((a + x, b + y, c + z)), row) for row, (a, b, c) in enumerate(sites))
        assert pairs == {pair for pair in near if pair[0] is not None}


def test_moving_to_a_device_keeps_the_pairs(geometry):
    at = TensorPyramid.of(geometry)
    moved = at.to("meta")
    assert moved.same[0].inputs.device.type == moved.down[0].back[0].device.type == "meta"
    assert moved.parents[0].device.type == moved.children[0].device.type == "meta"
    assert moved.same[0].ranges.device.type == "cpu"  # it steers loops
    assert pairs_of(at.to("cpu").down[1]) == pairs_of(at.down[1])


def test_too_low_or_too_narrow_a_pyramid_is_named(rng):
    at = pyramid_of(scattered(rng), levels=2)
    with pytest.raises(RecipeError, match="level 2, the pyramid 2 levels"):
        at.window(2)
    with pytest.raises(RecipeError, match=r"5\^3.*size=5"):
        at.window(0, (0, 0, 1))


def test_ranges_are_int64_and_pairs_int32(geometry):
    at = TensorMap.of(geometry.levels[0].same)
    assert (at.inputs.dtype, at.outputs.dtype, at.ranges.dtype) == (torch.int32, torch.int32, torch.int64)
