"""Geometry by the engine is geometry in numpy: element for element, for any number of threads, errors too."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcloud import native
from popcloud.errors import CloudError, EngineError, RecipeError
from popcloud.geometry import fast, kernel_map, voxels
from popcloud.geometry.kernel_map import KernelMap
from popcloud.geometry.plan import GridPlan
from popcloud.geometry.pyramid import Pyramid
from sites import CLOUDS, canonical
from surfaces import room, scattered, sphere

THREADS = (1, 2, 3)
FARTHEST = 1e7

pytestmark = pytest.mark.skipif(not native.available(), reason="the engine is not built")


def far_apart(rng: np.random.Generator) -> np.ndarray:
    """Points up to 10^7 m from zero."""
    return np.concatenate([rng.uniform(-FARTHEST, FARTHEST, (300, 3)), [[FARTHEST] * 3, [-FARTHEST] * 3]])


def around(middle: float):
    """Points close together, `middle` metres from zero along each axis."""
    return lambda rng: middle + rng.normal(scale=30, size=(500, 3))


POINTS = {  # name: points of a generator, and an edge
    "room": (room, 0.4),
    "sphere": (sphere, 0.5),
    "scattered": (scattered, 1.0),
    "one point": (lambda rng: rng.normal(size=(1, 3)), 0.1),
    "two points": (lambda rng: rng.normal(size=(2, 3)), 0.1),
    "duplicates": (lambda rng: np.repeat(rng.normal(size=(50, 3)), 20, axis=0), 0.2),
    "all in one voxel": (lambda rng: rng.uniform(0.1, 0.4, (200, 3)), 0.5),
    "no two in a voxel": (lambda rng: rng.uniform(0, 500, (400, 3)), 0.25),
    "around zero": (lambda rng: rng.normal(size=(2000, 3)), 0.25),
    "a line": (lambda rng: rng.uniform(-90, 90, (3000, 1)) * [[0.0, 0.0, 1.0]], 0.1),
    "far apart": (far_apart, 200.0),
    "10^7 m away": (around(FARTHEST), 2.0),
    "-10^7 m away": (around(-FARTHEST), 2.0),
    "across a multiple of 2^20": (around(0.25 * 2**20), 0.25),
}


def assert_equal(one: object, two: object) -> None:
    """Hold two values of a kind to the same arrays, types included."""
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b, err_msg=field.name)
        else:
            assert a == b, field.name


def check_map(made: KernelMap, wanted: KernelMap) -> None:
    assert_equal(made, wanted)


def check_rows(sites: np.ndarray, wanted: KernelMap, size: int, threads: int) -> None:
    """Hold the lists that the engine reads row by row to the pairs that training reads offset by offset."""
    begin, entries = native.engine().neighbours(sites, size, threads)
    rows = np.repeat(np.arange(len(sites)), np.diff(begin.astype(np.int64)))
    offsets = np.repeat(np.arange(len(wanted.ranges)), wanted.ranges[:, 1] - wanted.ranges[:, 0])
    order = np.lexsort((offsets, wanted.outputs))
    np.testing.assert_array_equal(rows, wanted.outputs[order])
    np.testing.assert_array_equal(entries >> 7, wanted.inputs[order])
    np.testing.assert_array_equal(entries & 127, offsets[order])


def check_levels(sites: np.ndarray, levels: int = 4) -> None:
    for _ in range(levels):
        coarse, down = kernel_map.strided(sites)
        same = {size: kernel_map.submanifold(sites, size) for size in kernel_map.SIZES}
        for threads in THREADS:
            for size, wanted in same.items():
                check_map(fast.submanifold(sites, size, threads), wanted)
                check_rows(sites, wanted, size, threads)
            made, made_down = fast.strided(sites, threads)
            np.testing.assert_array_equal(made, coarse)
            assert made.dtype == np.int32
            check_map(made_down, down)
        sites = coarse


@pytest.fixture(params=POINTS)
def cloud(request, rng) -> tuple[np.ndarray, float]:
    make, edge = POINTS[request.param]
    return make(rng).astype(np.float32), edge


def test_voxels_are_equal(cloud):
    xyz, edge = cloud
    wanted = voxels.voxelize(xyz, edge)
    for threads in THREADS:
        assert_equal(fast.voxelize(xyz, edge, threads=threads), wanted)


def test_maps_of_clouds_are_equal(cloud):
    check_levels(voxels.voxelize(*cloud).sites)


@pytest.mark.parametrize("name", CLOUDS)
def test_maps_of_awkward_sites_are_equal(name):
    check_levels(CLOUDS[name])


@given(
    points=st.lists(st.tuples(*[st.floats(-20, 20, width=32)] * 3), min_size=1, max_size=60),
    edge=st.sampled_from([0.1, 0.25, 1.0, 7.0, 1 / 3]),
    threads=st.sampled_from(THREADS),
)
@settings(deadline=None, max_examples=40)
def test_any_points(points, edge, threads):
    xyz = np.array(points, np.float32)
    wanted = voxels.voxelize(xyz, edge)
    assert_equal(fast.voxelize(xyz, edge, threads=threads), wanted)
    for size in kernel_map.SIZES:
        check_map(fast.submanifold(wanted.sites, size, threads), kernel_map.submanifold(wanted.sites, size))


@given(cells=st.lists(st.tuples(*[st.integers(-9, 9)] * 3), min_size=1, max_size=40), at=st.sampled_from([0, 1 << 19]))
@settings(deadline=None, max_examples=40)
def test_any_sites(cells, at):
    sites = canonical(np.array(cells) + at)
    for size in kernel_map.SIZES:
        check_map(fast.submanifold(sites, size), kernel_map.submanifold(sites, size))
    check_map(fast.strided(sites)[1], kernel_map.strided(sites)[1])


def assert_same_pyramid(one: Pyramid, two: Pyramid) -> None:
    np.testing.assert_array_equal(one.point_to_site, two.point_to_site)
    for a, b in zip(one.levels, two.levels, strict=True):
        np.testing.assert_array_equal(a.sites, b.sites)
        assert_equal(a.same, b.same)
    for c, d in zip(one.down, two.down, strict=True):
        assert_equal(c, d)


@pytest.mark.parametrize("plan", [GridPlan(0.5, 7), GridPlan(0.5, 5, 5), GridPlan(3.0, 16)])
def test_plans_are_equal(plan, rng):
    xyz = room(rng)
    wanted = plan.build(xyz, fast=False)
    assert_same_pyramid(plan.build(xyz, fast=True), wanted)
    assert_same_pyramid(plan.build(xyz), wanted)
    assert_same_pyramid(plan.over(plan.voxels(xyz)), wanted)


def test_points_of_another_kind_are_read_alike(rng):
    xyz = rng.normal(size=(300, 3))
    for points in (xyz.tolist(), xyz, np.asfortranarray(xyz.astype(np.float32)), xyz[::2], (xyz * 9).astype(np.int16)):
        assert_equal(fast.voxelize(points, 0.5), voxels.voxelize(points, 0.5))


LARGE = np.full((4, 3), np.float32(3e38))
REFUSED = {  # name: points, edge, limit
    "no point": (np.zeros((0, 3)), 1.0, 9),
    "not finite": ([[0, 0, np.nan], [np.inf, 0, 0], [1, 1, 1]], 1.0, 9),
    "four columns": (np.zeros((2, 4)), 1.0, 9),
    "no edge": (np.zeros((2, 3)), 0.0, 9),
    "negative edge": (np.zeros((2, 3)), -2.5, 9),
    "tiny negative edge": (np.zeros((2, 3)), -1e-7, 9),
    "huge negative edge": (np.zeros((2, 3)), -1.25e22, 9),
    "edge not a number": (np.zeros((2, 3)), float("nan"), 9),
    "infinite edge": (np.zeros((2, 3)), float("-inf"), 9),
    "limit too low": (np.zeros((2, 3)), 1.0, 7),
    "too far": ([[0, 0, 0], [1e7, 0, 0]], 1e-3, 100),
    "farther than any": (LARGE, 1e-5, 100),
    "quotient overflows": (LARGE, 1e-310, 100),
    "too wide": ([[-1e6, 0, 0], [1e6, 0, 0]], 0.5, 100),
    "just too wide": ([[-(2.0**19), 0, 0], [2.0**19, 0, 0]], 1.0, 100),
    "eight octants": (np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T * 5.0, 1e-7, 8),
}


@pytest.mark.parametrize("name", REFUSED)
def test_errors_are_equal(name):
    points, edge, most = REFUSED[name]
    with pytest.raises(CloudError) as wanted:
        voxels.voxelize(points, edge, max_sites=most)
    for threads in THREADS:
        with pytest.raises(CloudError) as found:
            fast.voxelize(points, edge, max_sites=most, threads=threads)
        assert str(found.value) == str(wanted.value)


@pytest.mark.parametrize("most", [8, 50, 400, 3000])
@pytest.mark.parametrize("scale", [1.0, 37.0, 1e7])
def test_edges_that_fit_are_equal(rng, most, scale):
    xyz = (rng.normal(size=(4000, 3)) * scale).astype(np.float32)
    with pytest.raises(CloudError) as wanted:
        voxels.voxelize(xyz, 0.003 * scale, max_sites=most)
    with pytest.raises(CloudError) as found:
        fast.voxelize(xyz, 0.003 * scale, max_sites=most)
    assert str(found.value) == str(wanted.value)


@pytest.mark.parametrize(
    "sites",
    [
        [[1, 0, 0], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 0]],
        [[0, 0, 0], [8, 0, 0], [1, 0, 0]],
        [[0, 0, 0], [1 << 21, 0, 0]],
        [[0, 0, -(1 << 31)]],
    ],
)
def test_sites_in_no_canonical_order_are_refused(sites):
    with pytest.raises(ValueError, match=r"canonical order|of each other along an axis"):
        fast.submanifold(np.array(sites, np.int32))


def test_numbers_out_of_range_are_refused(rng):
    xyz = rng.normal(size=(5, 3))
    with pytest.raises(EngineError, match="threads must be 1 to 1024, found 0"):
        fast.voxelize(xyz, 1.0, threads=0)
    with pytest.raises(EngineError, match=r"max_sites must be at most 2\^25"):
        fast.voxelize(xyz, 1.0, max_sites=1 << 26)
    with pytest.raises(EngineError, match=r"at most 2\^24 sites, found 16777217"):
        fast.submanifold(np.zeros(((1 << 24) + 1, 3), np.int32))
    with pytest.raises(RecipeError, match="kernel size 4: expected one of 3, 5"):
        fast.submanifold(np.zeros((1, 3), np.int32), 4)
