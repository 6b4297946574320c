"""Sessions of models that answer for each point: every reading, whole and in tiles, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

from grid_programs import every_grid_op, random_grid_program, surface
from popcloud import Session, native
from popcloud.cloud import PointCloud
from popcloud.errors import CloudError, RecipeError
from popcloud.geometry.voxels import voxelize
from popcloud.packed.file import read, write
from popcloud.packed.program import Program
from popcloud.runtime import sites, tiles
from popcloud.runtime.scenes import LISTS, most_sites
from programs import random_program

READINGS = ["reference", *native.engine().available()]
LARGE = 12  # times the size of a surface of one metre


@pytest.fixture
def grid(tmp_path):
    write(every_grid_op(3), tmp_path / "grid.popc")
    return tmp_path / "grid.popc"


@pytest.fixture
def large(rng):
    cloud = surface(rng, 1500, 3)
    return PointCloud(cloud.xyz * LARGE, cloud.features)


@pytest.mark.parametrize("kernels", READINGS)
def test_model_on_a_grid_answers_for_each_point(grid, rng, kernels):
    session, cloud = Session(grid, kernels=kernels, threads=2), surface(rng, 50, 3)
    answer = session.run(cloud)
    assert answer.dtype == np.float32
    np.testing.assert_array_equal(answer, sites.run(read(grid), cloud))
    assert (session.per_point, session.features) == (True, ("feature 0", "feature 1", "feature 2"))
    labels = session.labels(cloud)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, answer.argmax(axis=1))
    np.testing.assert_allclose(session.probabilities(cloud).sum(axis=1), 1)
    both = session.run([cloud, PointCloud(cloud.xyz[:20], cloud.features[:20])])
    assert [each.shape for each in both] == [(50, 4), (20, 4)]
    np.testing.assert_array_equal(both[0], answer)
    assert [each.shape for each in session.labels([cloud])] == [(50,)]
    assert session.run([]) == []


@pytest.mark.parametrize("kernels", READINGS)
def test_computed_columns_are_those_of_the_whole_cloud(tmp_path, rng, kernels):
    plain, cloud = random_grid_program(4), surface(rng, 900, 3)
    program = Program(
        plain.values, plain.steps, 0, "none", plain.classes, {}, plain.plan, ("one", "height", "intensity")
    )
    write(program, tmp_path / "m.popc")
    session = Session(tmp_path / "m.popc", kernels=kernels)
    steep = PointCloud(np.ascontiguousarray(cloud.xyz[:, [2, 1, 0]]) * LARGE, cloud.features[:, :1])
    wanted = sites.run(program, steep)
    np.testing.assert_array_equal(session.run(steep), wanted)
    np.testing.assert_array_equal(session.run(steep, tile=3.0), wanted)


@pytest.mark.parametrize("kernels", READINGS)
def test_tiles_give_the_same_bits(grid, large, kernels):
    session, told = Session(grid, kernels=kernels), []
    whole = session.run(large)
    assert session.run(large, tile=6.0, progress=lambda *seen: told.append(seen)).tobytes() == whole.tobytes()
    assert told == [(done, len(told) - 1) for done in range(len(told))]
    assert len(told) > 4
    np.testing.assert_array_equal(session.labels(large, tile=6.0, halo=3.0), whole.argmax(axis=1))
    labels = session.labels(large, tile=6.0, halo=0.0)
    seams = session.seams(large, labels, tile=6.0, halo=0.0)
    assert seams.wide == tiles.exact_halo(read(grid))
    assert 0 <= seams.differing <= seams.points < len(large)
    assert session.seams(large, whole.argmax(axis=1)) is None
    assert session.run(large, tile=6.0, halo=1e300).tobytes() == whole.tobytes()
    with pytest.raises(RecipeError, match=r"labels: expected shape \(1500,\), one a point, found \(5,\)"):
        session.seams(large, labels[:5])


@pytest.mark.parametrize("kernels", native.engine().available())
def test_scene_of_too_many_sites_is_run_in_tiles_and_takes_less_memory(grid, rng, kernels):
    cloud, told = surface(rng, 20_000, 3), []
    large = PointCloud(cloud.xyz * 4 * LARGE, cloud.features)
    count = len(voxelize(large.xyz, read(grid).plan.edge).sites)
    whole = Session(grid, kernels=kernels, threads=1)
    per_site = LISTS + whole.scenes.reading.planned(tiles.sites_of_surface(1 << 20, 2)) / (1 << 20)
    small = Session(grid, kernels=kernels, threads=1, memory=int(per_site * count / 4))
    assert count / 4.1 < small.scenes.most < count / 3.9
    in_tiles = small.run(large, progress=lambda *seen: told.append(seen))
    assert in_tiles.tobytes() == whole.run(large).tobytes()
    assert len(told) > 4
    assert 0 < 2 * small.peak < whole.peak


def test_reference_knows_no_peak(grid, rng):
    session = Session(grid, kernels="reference")
    session.run(surface(rng, 9, 3))
    assert session.peak is None


def test_most_sites_fit_the_memory():
    assert most_sites(lambda counts: 100 * sum(counts), 1, 10 * (100 + LISTS)) == 10
    assert most_sites(lambda counts: 100 * sum(counts), 1, 10) == 1
    assert most_sites(lambda counts: sum(counts), 3, 1 << 60) == 1 << 22


@pytest.mark.parametrize("kernels", READINGS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cloud: cloud.xyz, r"features: expected .*feature 0, feature 1, feature 2"),
        (lambda cloud: PointCloud(cloud.xyz, cloud.features[:, :2]), r"shape \(50, 3\): .* found \(50, 2\)"),
        (lambda cloud: PointCloud(cloud.xyz, cloud.features[:9]), r"shape \(50, 3\): .* found \(9, 3\)"),
        (lambda cloud: PointCloud(cloud.xyz, cloud.features * np.float32("inf")), "50 of 50 points have some that"),
        (lambda cloud: PointCloud(cloud.xyz[:0], cloud.features[:0]), "at least one point"),
        (lambda cloud: PointCloud(cloud.xyz * np.float32("nan"), cloud.features), "50 of 50 points are not finite"),
        (lambda cloud: PointCloud(cloud.xyz[:, :2], cloud.features), r"expected shape \(N, 3\), found \(50, 2\)"),
        (lambda cloud: PointCloud(cloud.xyz * np.float32(1e7), cloud.features), "an edge of .* m fits"),
    ],
    ids=["no features", "narrow", "short", "not finite", "empty", "nan", "flat", "far apart"],
)
def test_bad_scenes_get_one_clear_line(grid, rng, kernels, change, message):
    with pytest.raises(CloudError, match=message) as error:
        Session(grid, kernels=kernels).run(change(surface(rng, 50, 3)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kernels", READINGS)
def test_awkward_scenes_are_answered(grid, rng, kernels):
    session, cloud = Session(grid, kernels=kernels), surface(rng, 50, 3)
    one = PointCloud(cloud.xyz[:1], cloud.features[:1])
    far = PointCloud(one.xyz + np.float32([1e7, -1e7, 1e7]), one.features)
    heap = PointCloud(np.repeat(one.xyz, 9, axis=0), np.repeat(one.features, 9, axis=0))
    for each in (one, far, heap, PointCloud(cloud.xyz.astype(np.float64), cloud.features.astype(np.float64))):
        np.testing.assert_array_equal(session.run(each), sites.run(read(grid), each))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"tile": 0.0}, "tile of 0 m: expected a number of metres above 0"),
        ({"tile": float("nan")}, "tile of nan m"),
        ({"halo": -1.0}, "halo of -1 m: expected a number of metres of 0 or more"),
        ({"halo": float("inf")}, "halo of inf m"),
    ],
)
def test_lengths_that_are_none_are_refused(grid, rng, how, message):
    with pytest.raises(RecipeError, match=message):
        Session(grid, kernels="reference").run(surface(rng, 9, 3), **how)


def test_tiles_are_for_scenes(tmp_path):
    write(random_program(4), tmp_path / "m.popc")
    session = Session(tmp_path / "m.popc", kernels="reference")
    for call in (session.run, session.labels):
        with pytest.raises(RecipeError, match="tiles are for models of scenes"):
            call(np.zeros((4, 3)), tile=1.0)
    with pytest.raises(RecipeError, match="no seams"):
        session.seams(np.zeros((4, 3)), np.zeros(4, np.int64), halo=1.0)
    assert session.peak is None


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel how large the process is")
def test_out_of_memory_is_an_error_that_says_how_much_and_the_session_lives_on(grid):
    """In a process of its own, whose address space may grow by 20 MB more and no further."""
    code = f"""
import resource
import numpy as np
from popcloud import Session
from popcloud.cloud import PointCloud

rng = np.random.default_rng(0)
xyz = (rng.random((200_000, 3)) * [60, 60, 1]).astype(np.float32)
cloud = PointCloud(xyz, np.ones((len(xyz), 3), np.float32))
session = Session({str(grid)!r}, threads=1)
session.labels(PointCloud(xyz[:9], cloud.features[:9]))
pages = int(open("/proc/self/statm").read().split()[0])
_, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 20_000_000, hard))
try:
    session.labels(cloud)
except MemoryError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
print(len(session.labels(cloud)))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    said, points = done.stdout.splitlines()
    assert re.match(r"out of memory: \d{6,} bytes could not be had; run the cloud in smaller tiles", said)
    assert points == "200000"
