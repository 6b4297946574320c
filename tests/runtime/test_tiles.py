"""Tiles: how far an answer sees is what poking finds, and with that halo tiles give the whole scene's bits."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_programs import GridBuilder, every_grid_op, grid_programs, random_grid_program, surface
from popcloud.cloud import PointCloud
from popcloud.errors import CloudError, RecipeError
from popcloud.geometry.voxels import MAX_SITES, voxelize
from popcloud.packed.program import Grid, Op, Program
from popcloud.runtime import sites, tiles
from programs import random_program

AXES = range(3)


def answer(program: Program, xyz, columns):
    """The reference's answer to columns that are ready: none of these programs has a computed one."""
    return sites.run(program, PointCloud(xyz, columns))


def adding(build: GridBuilder) -> Program:
    """The program, with weights that add whatever they see, so that no change is lost on its way."""
    program = build.program(1)
    for step in program.steps:
        for name, blob in step.blobs.items():
            if name in ("weight", "scale"):
                blob[:] = 1
            elif name == "bias":
                blob[:] = 0
    return program


def ladder(levels: int, size: int, shifts=()) -> Program:
    """A float U with all ops that lead from level to level, and a convolution on each."""
    build = GridBuilder(np.random.default_rng(0), Grid(1.0, levels, size), 1)
    x, groups = 0, len(shifts)
    for level in range(levels):
        x = build.conv(x, 4, groups=groups)
        if groups:
            build.steps[-1].blobs["shifts"][:] = shifts
        if level + 1 < levels:
            x = build.emit(Op.SITE_MEAN, (x,), "F", 4, level + 1) if level % 2 else build.conv(x, 4, step=1)
    for level in reversed(range(levels - 1)):
        x = build.emit(Op.UNPOOL, (x,), "F", 4, level) if level % 2 else build.conv(x, 4, step=-1)
    return adding(build)


def line(axis: int, length: int) -> np.ndarray:
    """A point in each site of a row of sites along an axis, around zero."""
    xyz = np.full((length, 3), 0.5, np.float32)
    xyz[:, axis] = np.arange(length) - length // 2 + 0.5
    return xyz


def farthest_seen(program: Program, axis: int) -> int:
    """How far the change of one point's feature is seen, at most, over pokes at each place in a coarsest site."""
    cube = tiles.cube_of(program.plan)
    xyz = line(axis, 2 * cube * round(3 + tiles.receptive_radius(program) / cube))
    calm, seen = np.ones((len(xyz), 1), np.float32), 0
    before = answer(program, xyz, calm)
    for poked in range(len(xyz) // 2, len(xyz) // 2 + cube):
        columns = calm.copy()
        columns[poked] = 100
        changed = np.flatnonzero((answer(program, xyz, columns) != before).any(axis=1))
        seen = max(seen, int(np.abs(changed - poked).max()))
    return seen


@pytest.mark.parametrize(
    ("levels", "size", "shifts"),
    [
        (1, 3, ()),
        (2, 3, ()),
        (3, 3, ()),
        (4, 3, ()),
        (2, 5, [(1, 0, -1)]),
        (3, 5, [(1, 1, 0), (0, -1, 0)]),
        (3, 5, [(0, 0, 0)]),
    ],
)
def test_radius_is_what_poking_finds(levels, size, shifts):
    program = ladder(levels, size, shifts)
    assert tiles.receptive_radius(program) == max(farthest_seen(program, axis) for axis in AXES)


def test_radius_of_one_layer_is_known():
    build = GridBuilder(np.random.default_rng(0), Grid(1.0, 1, 5), 1)
    build.conv(0, 2, groups=1)
    build.steps[0].blobs["shifts"][:] = (0, 1, 0)
    assert tiles.receptive_radius(build.program(2)) == 2
    build = GridBuilder(np.random.default_rng(0), Grid(1.0, 3, 3), 1)
    low = build.emit(Op.SITE_MEAN, (build.emit(Op.SITE_MEAN, (0,), "F", 1, 1),), "F", 1, 2)
    build.emit(Op.UNPOOL, (build.emit(Op.UNPOOL, (low,), "F", 1, 1),), "F", 1, 0)
    program = build.program(1)
    assert (tiles.receptive_radius(program), tiles.exact_halo(program)) == (3, 0)


@settings(max_examples=15, deadline=None)
@given(grid_programs(), st.integers(0, 2**32 - 1))
def test_nothing_beyond_the_radius_is_seen(program, seed):
    rng = np.random.default_rng(seed)
    cloud = surface(rng, 150, len(program.features))
    xyz, radius = cloud.xyz * 3, tiles.receptive_radius(program)
    own = voxelize(xyz, program.plan.edge)
    place = own.sites[own.point_to_site]
    middle = place[int(rng.integers(len(xyz)))]
    away = np.abs(place - middle).max(axis=1)
    columns = np.where((away > radius)[:, None], rng.normal(size=cloud.features.shape), cloud.features)
    answers = [answer(program, xyz, each.astype(np.float32)) for each in (cloud.features, columns)]
    np.testing.assert_array_equal(answers[0][away == 0], answers[1][away == 0])
    near = away <= radius
    alone = answer(program, xyz[near], cloud.features[near])
    np.testing.assert_array_equal(answers[0][away == 0], alone[away[near] == 0])


@settings(max_examples=15, deadline=None)
@given(grid_programs(), st.integers(0, 2**32 - 1), st.floats(0.5, 4))
def test_tiles_give_the_bits_of_the_whole(program, seed, longest):
    cloud = surface(np.random.default_rng(seed), 200, len(program.features))
    xyz = cloud.xyz * 3 - 1
    tiling = tiles.cut(xyz, program.plan, tiles.exact_halo(program), MAX_SITES, longest)
    found = tiles.run(partial(answer, program), xyz, cloud.features, tiling)
    assert found.tobytes() == answer(program, xyz, cloud.features).tobytes()


def test_tiles_of_every_op_and_a_limit_of_sites(rng):
    program, cloud = every_grid_op(3), surface(rng, 900, 3)
    xyz, halo = cloud.xyz * 6, tiles.exact_halo(program)
    whole = answer(program, xyz, cloud.features)
    most = len(voxelize(xyz, program.plan.edge).sites) // 2
    tiling = tiles.cut(xyz, program.plan, halo, most)
    told = []
    found = tiles.run(partial(answer, program), xyz, cloud.features, tiling, lambda *seen: told.append(seen))
    assert found.tobytes() == whole.tobytes()
    assert told == [(done, len(tiling.tiles)) for done in range(len(tiling.tiles) + 1)]
    assert len(tiling.tiles) > 2
    for each in tiling.tiles:
        assert len(np.unique(tiling.sites[each.holds(tiling.sites, halo)], axis=0)) <= most
        assert not (each.low % tiling.cube).any()
        assert not (each.high % tiling.cube).any()


@pytest.mark.parametrize("axis", AXES)
def test_a_halo_one_site_narrower_is_not_exact(axis):
    program = ladder(3, 5, [(1, -1, 1), (-1, 1, -1)])
    halo, xyz = tiles.exact_halo(program), line(axis, 120)
    columns = np.random.default_rng(axis).normal(size=(len(xyz), 1)).astype(np.float32)
    whole = answer(program, xyz, columns)
    same = {}
    for narrower in (0, 1):
        tiling = tiles.cut(xyz, program.plan, halo - narrower, MAX_SITES, longest=60)
        assert len(tiling.tiles) == 2
        found = tiles.run(partial(answer, program), xyz, columns, tiling)
        same[narrower] = (found == whole).all()
    assert same == {0: True, 1: False}


def test_each_point_lies_in_one_core(rng):
    xyz = (rng.normal(size=(3000, 3)) * 40).astype(np.float32)
    tiling = tiles.cut(xyz, Grid(0.5, 4, 3), 0, 100, longest=30)
    held = np.sum([each.holds(tiling.sites) for each in tiling.tiles], axis=0)
    assert (held == 1).all()
    assert max((each.high - each.low).max() for each in tiling.tiles) * 0.5 <= 30


def test_sites_are_those_of_voxelize_in_any_pieces(rng, monkeypatch):
    monkeypatch.setattr(tiles, "AT_ONCE", 64)
    xyz = (rng.normal(size=(1000, 3)) * [9, 3, 1] - 400).astype(np.float32)
    made = voxelize(xyz, 0.3)
    tiling = tiles.cut(xyz, Grid(0.3, 3, 3), 0, MAX_SITES)
    np.testing.assert_array_equal(tiling.sites, made.sites[made.point_to_site])
    assert len(tiles.cut(xyz, Grid(0.3, 3, 3), 0, len(made.sites)).tiles) == 1
    assert len(tiles.cut(xyz, Grid(0.3, 3, 3), 0, len(made.sites) - 1).tiles) == 2
    assert len(tiling.tiles) == 1


def test_one_point_is_one_tile():
    tiling = tiles.cut(np.full((1, 3), -1e6, np.float32), Grid(0.1, 7, 3), 99, 1)
    assert len(tiling.tiles) == 1


def test_seams_count_the_labels_that_a_narrow_halo_changes():
    program = ladder(4, 3)
    xyz, halo = line(0, 160), tiles.exact_halo(program)
    columns = np.random.default_rng(1).normal(size=(len(xyz), 1)).astype(np.float32)
    labels_of = lambda *cloud: (answer(program, *cloud)[:, 0] > 0).astype(np.int64)  # noqa: E731
    whole = labels_of(xyz, columns)
    tiling = tiles.cut(xyz, program.plan, 0, MAX_SITES, longest=80)
    found = tiles.run(labels_of, xyz, columns, tiling)
    seams = tiles.seams(labels_of, xyz, columns, found, tiling, exact=halo, most=MAX_SITES)
    left = slice(80 - tiling.cube, 80)
    assert (seams.points, seams.wide) == (tiling.cube, halo)
    assert seams.differing in {int((found[one] != whole[one]).sum()) for one in (left, slice(80, 80 + tiling.cube))}
    exact = tiles.cut(xyz, program.plan, halo, MAX_SITES, longest=80)
    assert tiles.seams(labels_of, xyz, columns, whole, exact, exact=halo, most=MAX_SITES).share == 0
    single = tiles.cut(xyz, program.plan, 0, MAX_SITES)
    assert tiles.seams(labels_of, xyz, columns, whole, single, exact=halo, most=MAX_SITES) is None
    tight = tiles.seams(labels_of, xyz, columns, found, tiling, exact=halo, most=80 + tiling.cube)
    assert tight.wide == tiling.cube < halo


@pytest.mark.parametrize(
    ("xyz", "how", "kind", "message"),
    [
        (line(0, 90), {"halo": 40, "most": 30}, CloudError, r"halo of 40 m: .* up to \d+ sites, .*; allow more memory"),
        (line(0, 90), {"halo": 40, "most": 30, "exact": 40}, CloudError, "of 40 m, as exact answers need: the small"),
        (line(0, 90) * 1e7, {"halo": 0, "most": 30}, CloudError, "an edge of .* m fits"),
        (line(0, 90), {"halo": -1, "most": 30}, RecipeError, "a halo of 0 or more"),
        (line(0, 90), {"halo": 0, "most": 30, "longest": 0.0}, RecipeError, "tile of 0.0 m"),
        (line(0, 90), {"halo": 0, "most": 30, "longest": float("nan")}, RecipeError, "tile of nan m"),
    ],
)
def test_what_can_not_be_cut(xyz, how, kind, message):
    with pytest.raises(kind, match=message):
        tiles.cut(xyz.astype(np.float32), Grid(1.0, 3, 3), **how)


def test_models_for_whole_clouds_are_refused():
    with pytest.raises(RecipeError, match="not tiled"):
        tiles.receptive_radius(random_program(1))


def test_surface_has_a_quarter_of_the_sites_per_level():
    assert tiles.sites_of_surface(100, 5) == [100, 25, 7, 2, 1]


def test_random_programs_stay_within_their_levels():
    for seed in range(30):
        program = random_grid_program(seed, depth=8, levels=4, size=5)
        assert 0 <= tiles.exact_halo(program) <= tiles.receptive_radius(program)
