"""Law of the engine on scenes: it answers what the reference answers, bit for bit, by every way it can take."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_programs import GridBuilder, every_grid_op, grid_programs, surface
from popcloud import native
from popcloud.cloud import PointCloud
from popcloud.errors import CloudError, EngineError
from popcloud.packed.file import encode
from popcloud.packed.program import Activation, Grid, Op, Program
from popcloud.runtime import sites
from programs import every_op

engine = native.engine()
WAYS = [{"kernels": k, "threads": t, "fuse": f} for k, t, f in product(engine.available(), (1, 2, 3), (True, False))]
FAR = 1e7  # metres


def same_bits(a, b):
    """Equal bit for bit, and NaN where NaN is."""
    if a.dtype != np.float32:
        return a.shape == b.shape and a.dtype == b.dtype and bool((a == b).all())
    nan = np.isnan(a) & np.isnan(b)
    return a.shape == b.shape and bool(((a.view(np.uint32) == b.view(np.uint32)) | nan).all())


def meaning(program, cloud):
    """All values by the reference, and the kernel maps."""
    first, at = sites.ready(program, cloud)
    return sites.values(program, first, at), at


@given(grid_programs(), st.sampled_from([1, 2, 40, 500, 2500]), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_answers_are_the_reference_s(load, program, points, seed):
    cloud = surface(np.random.default_rng(seed), points, len(program.features))
    values, at = meaning(program, cloud)
    wanted = values[program.steps[-1].output]
    for way in WAYS:
        scene = load(program, **way).scene(cloud.xyz, cloud.features)
        assert scene.sites == [len(level.sites) for level in at.levels]
        assert same_bits(scene.run(), wanted), way


@pytest.mark.parametrize("points", [1, 30, 3000])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("kernels", engine.available())
def test_each_step_alone_is_the_reference_s(load, kernels, size, points, rng):
    program = every_grid_op(5, size)
    cloud = surface(rng, points, len(program.features))
    values, at = meaning(program, cloud)
    scene = load(program, kernels=kernels, threads=2).scene(cloud.xyz, cloud.features)
    assert same_bits(scene.first, values[0])
    assert (scene.point_to_site == at.point_to_site).all()
    for index, step in enumerate(program.steps):
        found = scene.step(index, [values[i] for i in step.inputs])
        for output, array in zip(step.outputs, found, strict=True):
            assert same_bits(array, values[output]), (index, step.op.name)


@given(grid_programs(), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_each_step_of_any_program_is_the_reference_s(load, program, seed):
    cloud = surface(np.random.default_rng(seed), 300, len(program.features))
    values, _ = meaning(program, cloud)
    for kernels in engine.available():
        scene = load(program, kernels=kernels).scene(cloud.xyz, cloud.features)
        for index, step in enumerate(program.steps):
            found = scene.step(index, [values[i] for i in step.inputs])
            assert all(same_bits(a, values[o]) for o, a in zip(step.outputs, found, strict=True)), step.op.name


@pytest.mark.parametrize("inputs", [16, 24, 32, 48, 96, 192])
@pytest.mark.parametrize("channels", [16, 20, 48, 64, 112])
def test_shifted_groups_of_any_width(load, inputs, channels, rng):
    """Groups of fewer than 16 channels go through the union of their offsets, wider ones one by one."""
    build = GridBuilder(rng, Grid(0.1, 2, 5), 3)
    x = build.conv(0, inputs, kinds="B")
    y = build.conv(x, channels, kinds="FB", groups=4, activation=Activation.RPRELU)
    z = build.conv(y + 1, channels, kinds="F", shortcut=y)
    down = build.emit(Op.SITE_MEAN, (z,), "F", channels, 1)
    build.emit(Op.UNPOOL, (down,), "F", channels, 0)
    program = build.program(3)
    cloud = surface(rng, 2000, 3)
    values, _ = meaning(program, cloud)
    for way in WAYS:
        assert same_bits(load(program, **way).scene(cloud.xyz, cloud.features).run(), values[-1]), way


@pytest.mark.parametrize("kernels", engine.available())
def test_every_number_of_float16_is_widened_exactly(load, kernels):
    """Rows that are one feature each read the weights of LINEAR out, row by row."""
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    weight = numbers[np.isfinite(numbers)].reshape(62, 1024)
    build = GridBuilder(np.random.default_rng(0), Grid(1.0, 1, 3), len(weight))
    program = build.program(weight.shape[1])
    program.steps[0].blobs["weight"] = weight
    program.steps[0].blobs["bias"] = np.zeros(weight.shape[1], np.float32)
    xyz = np.zeros((len(weight), 3), np.float32)
    xyz[:, 0] = 2 * np.arange(len(weight))
    found = load(program, kernels=kernels).answers(xyz, np.eye(len(weight), dtype=np.float32))
    assert same_bits(found, weight.astype(np.float32) + np.float32(0))  # a sum that begins with 0 has no -0


def test_points_have_the_answer_of_their_site(load, rng):
    program = every_grid_op(1)
    cloud = surface(rng, 5000, len(program.features))
    loaded = load(program, threads=2)
    scene = loaded.scene(cloud.xyz, cloud.features)
    answers = loaded.answers(cloud.xyz, cloud.features)
    assert same_bits(answers, scene.run()[scene.point_to_site])
    assert (loaded.labels(cloud.xyz, cloud.features) == answers.argmax(axis=1)).all()
    ready = loaded.answers(cloud.xyz, cloud.features, ready=True)
    assert same_bits(ready, answers)  # this program computes no column


def test_labels_are_the_first_largest_and_nan_is_larger(load):
    """A network that passes features on: its answers can be anything."""
    build = GridBuilder(np.random.default_rng(0), Grid(1.0, 1, 3), 4)
    build.add(Op.AFFINE, 0)
    step = build.steps[-1]
    step.blobs["scale"], step.blobs["bias"] = np.ones(4, np.float32), np.zeros(4, np.float32)
    names = tuple("abcd")
    program = Program(tuple(build.values), tuple(build.steps), 0, "none", names, {}, build.grid, build.features)
    huge = np.float32(3e38)
    rows = np.array([[0, 1, 1, 0], [-1, -1, -1, -1], [0, huge, 0, huge]], np.float32)
    xyz = np.arange(9, dtype=np.float32).reshape(3, 3) * 2
    assert load(program).labels(xyz, rows).tolist() == [1, 0, 1]
    step.blobs["scale"][2] = huge  # 0 * huge = 0, 1 * huge = huge, huge * huge = infinity
    step.blobs["bias"][2] = 0
    rows[2, 2] = huge
    assert load(program).labels(xyz, rows).tolist() == [2, 0, 2]


@pytest.mark.parametrize(
    "xyz",
    [
        np.zeros((1, 3)),
        np.zeros((50, 3)),
        np.full((3, 3), 0.01) * np.arange(3)[:, None],
        np.full((2, 3), FAR),
        np.array([[FAR, -FAR, 0], [FAR, -FAR + 1, 0]]),
        np.repeat(np.random.default_rng(0).normal(size=(20, 3)), 5, axis=0),
    ],
    ids=["one", "equal", "one voxel", "far", "far and wide", "duplicates"],
)
def test_odd_scenes_are_answered(load, xyz, rng):
    program = every_grid_op(2)
    cloud = PointCloud(xyz.astype(np.float32), rng.normal(size=(len(xyz), 3)).astype(np.float32))
    values, at = meaning(program, cloud)
    wanted = values[program.steps[-1].output][at.point_to_site]
    for way in WAYS:
        assert same_bits(load(program, **way).answers(cloud.xyz, cloud.features), wanted)


@pytest.mark.parametrize(
    ("xyz", "features", "message"),
    [
        (np.zeros((0, 3)), np.zeros((0, 3)), "point"),
        (np.full((2, 3), np.nan), np.zeros((2, 3)), "finite"),
        (np.array([[-FAR, 0, 0], [FAR, 0, 0]]), np.zeros((2, 3)), "voxel edge"),
        (np.zeros((2, 3)), np.zeros((2, 2)), "features"),
        (np.zeros((2, 3)), np.full((2, 3), np.inf), "features"),
        (np.zeros((2, 3)), np.zeros((3, 3)), "features"),
        (np.zeros((2, 3)), None, "features"),
        (np.zeros((2, 4)), np.zeros((2, 3)), "columns"),
    ],
)
def test_scenes_that_can_t_be_are_refused_in_one_line(load, xyz, features, message):
    loaded = load(every_grid_op(2))
    given = [None if a is None else np.ascontiguousarray(a, np.float32) for a in (xyz, features)]
    for call in (loaded.answers, loaded.labels, loaded.scene):
        with pytest.raises(CloudError, match=message) as found:
            call(*given)
        assert "\n" not in str(found.value)


def test_networks_and_what_they_run_on_are_not_mixed_up(load, rng):
    xyz = rng.normal(size=(5, 3)).astype(np.float32)
    clouds = load(every_op(0))
    for call in (clouds.answers, clouds.labels, clouds.scene):
        with pytest.raises(EngineError, match="no voxel grid"):
            call(xyz)
    scenes = load(every_grid_op(0))
    with pytest.raises(EngineError, match="scene"):
        scenes.run([xyz])
    assert clouds.grid is None
    assert scenes.grid == (0.15, 2, 5)


def test_steps_refuse_what_does_not_fit(load, rng):
    program = every_grid_op(3)
    cloud = surface(rng, 50, len(program.features))
    scene = load(program).scene(cloud.xyz, cloud.features)
    with pytest.raises(EngineError, match="does not exist"):
        scene.step(len(program.steps), [])
    with pytest.raises(EngineError, match="reads 1 values, found 0"):
        scene.step(0, [])
    with pytest.raises(EngineError, match="must be a float32 array"):
        scene.step(0, [scene.first[:-1]])


def test_memory_is_planned_and_counted(load, rng):
    program = every_grid_op(4)
    cloud = surface(rng, 20000, len(program.features))
    loaded = load(program, threads=1)
    scene = loaded.scene(cloud.xyz, cloud.features)
    counted = scene.sites
    del scene
    loaded.labels(cloud.xyz, cloud.features)
    stored = [v for v in program.values if v.level == 0]
    everything = sum(counted[0] * v.channels * 4 for v in stored)
    assert 0 < loaded.planned(counted) < loaded.peak
    assert loaded.planned(counted) < everything  # values share memory, and some are never stored
    assert loaded.planned([2 * n for n in counted]) > loaded.planned(counted)
    assert loaded.planned(counted) < loaded.memory() <= loaded.peak  # what is kept for the next scene
    with pytest.raises(EngineError, match="expected 2"):
        loaded.planned([1])


OUT_OF_MEMORY = """
import resource, sys
import numpy as np
from popcloud import native
engine = native.engine().Engine(sys.argv[1], threads=int(sys.argv[2]))
xyz = np.random.default_rng(0).random((400_000, 3)).astype(np.float32) * 40
features = np.zeros((len(xyz), 3), np.float32)
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (40 << 20), resource.RLIM_INFINITY))
try:
    engine.labels(xyz, features)
except MemoryError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(len(engine.labels(xyz, features)))
"""


KEPT_MEMORY = """
import resource, sys
import numpy as np
from popcloud import native
engine = native.engine().Engine(sys.argv[1], threads=int(sys.argv[2]))
def scene(points):
    x = np.arange(points)
    xyz = np.stack([x % 512, x // 512, 0 * x], axis=1).astype(np.float32) * np.float32(0.15)
    return xyz, np.zeros((points, 3), np.float32)
large, half, larger = scene(500_000), scene(245_000), scene(525_000)
engine.labels(*large)
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (1 << 20), resource.RLIM_INFINITY))
print(len(engine.labels(*half)))
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (1 << 20), resource.RLIM_INFINITY))
try:
    engine.labels(*larger)
except MemoryError as error:
    print(error)
"""

needs_a_limit = pytest.mark.skipif(
    not hasattr(resource, "RLIMIT_AS") or sys.platform != "linux", reason="needs a limit of memory"
)


def printed(script, path, threads=1):
    """Return the lines that a script prints of the engine, in a process of its own."""
    path.write_bytes(encode(every_grid_op(0)))
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(threads)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@needs_a_limit
@pytest.mark.parametrize("threads", [1, 2])
def test_the_end_of_memory_is_an_error_that_says_how_much_and_the_engine_lives_on(tmp_path, threads):
    message, points = printed(OUT_OF_MEMORY, tmp_path / "model.popc", threads)
    assert "bytes could not be had" in message
    assert points == "400000"


@needs_a_limit
def test_memory_that_is_kept_serves_scenes_of_other_sizes(tmp_path):
    points, message = printed(KEPT_MEMORY, tmp_path / "model.popc")
    assert points == "245000"
    assert "bytes could not be had" in message  # of an array for Python, too


def test_the_peak_can_be_asked_for_while_another_thread_runs(load, rng):
    program = every_grid_op(1)
    cloud = surface(rng, 20000, len(program.features))
    loaded = load(program, threads=2)
    runs = [threading.Thread(target=loaded.labels, args=(cloud.xyz, cloud.features)) for _ in range(3)]
    for run in runs:
        run.start()
    peaks = [loaded.peak for _ in range(20)]
    for run in runs:
        run.join()
    assert 0 <= max(peaks) < 2 * loaded.peak
