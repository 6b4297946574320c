"""Law of the engine: it answers what the reference answers, bit for bit, by every way it can take.

Kernel tables, thread counts, fusions and shortcuts are ways; a way that changes a bit is wrong.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_programs import every_grid_op
from point_programs import FEWEST, PointBuilder, cloud_of, every_point_op, point_programs, random_point_program
from popcloud import native
from popcloud.cloud import prepare
from popcloud.errors import CloudError, EngineError, FileError
from popcloud.packed.file import write
from popcloud.packed.program import Activation, Kind, Op, Program, Rows
from popcloud.runtime import reference
from programs import Builder, every_op, programs, random_program

engine = native.engine()
PLAIN = {"fuse": False, "unique_rows": False, "early_exit": False}
POINTS = (1, 2, 3, 17, 100, 300)


def cloud(program, rng, points=300):
    """A cloud as the engine takes it, with many equal points; on points one large enough to be searched."""
    if program.plan is not None:
        return cloud_of(rng, FEWEST + points, program)
    few = rng.normal(size=(max(1, points // 4), 3)).astype(np.float32)
    return prepare(few[rng.integers(len(few), size=points)], program.points, program.normalize)


def pointnet(seed, pool=Op.BINARY_MAX_BITS):
    """A binary PointNet with a small feature transform: what the shortcuts are made for."""
    build = Builder(np.random.default_rng(seed))

    def pooled_bits(x, channels):
        pooled = build.add(pool, x, channels=channels)
        return pooled if build.values[pooled].kind is Kind.BITS else build.add(Op.BINARIZE, pooled)

    first = build.add(Op.LINEAR, 0, channels=8, activation=Activation.HARDTANH)
    bits = build.add(Op.BINARY_LINEAR_BITS, build.add(Op.BINARIZE, first), channels=130)
    pooled = pooled_bits(bits, 300)
    moved = build.add(Op.TRANSFORM, first, build.add(Op.BINARY_LINEAR, pooled, channels=64))
    bits = build.add(Op.BINARY_LINEAR_BITS, build.add(Op.BINARIZE, moved), channels=64)
    bits = build.add(Op.BINARY_LINEAR_BITS, bits, channels=128)
    pooled = pooled_bits(bits, 257)
    build.add(Op.BINARY_LINEAR, build.add(Op.BINARY_LINEAR_BITS, pooled, channels=65), channels=5)
    return Program(tuple(build.values), tuple(build.steps), 0, "unit_sphere", tuple("abcde"))


def answer(program, xyz):
    """What the reference answers to a cloud that is prepared already."""
    return reference.run(replace(program, points=0, normalize="none"), xyz)


def every_point_answer(seed):
    return every_point_op(seed, by_point=True)


def equal(a, b):
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@settings(max_examples=100)
@given(programs() | point_programs(), st.sampled_from(POINTS), st.integers(0, 1000))
def test_answers_are_the_reference_s(load, program, points, seed):
    xyz = cloud(program, np.random.default_rng(seed), points)
    assert equal(load(program).run([xyz])[0], answer(program, xyz))


@pytest.mark.parametrize("kernels", engine.available())
@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("network", [every_op, every_point_op])
def test_each_step_alone_is_the_reference_s(load, network, kernels, points, rng):
    program = network(points)
    one = load(program, kernels=kernels)
    values = reference.values(program, cloud(program, rng, points))
    for index, step in enumerate(program.steps):
        found = one.step(index, [values[i] for i in step.inputs], len(values[0]))
        assert equal(found, values[step.output]), step.op.name


@pytest.mark.parametrize(
    ("network", "seed"),
    [
        *product([random_program, every_op, pointnet], range(8)),
        *product([random_point_program, every_point_op, every_point_answer], range(2)),
    ],
)
def test_every_way_gives_the_same_bits(load, network, seed, rng):
    program = network(seed)
    clouds = [cloud(program, rng, points) for points in (1, 100, 1000 if program.plan is None else 101)]
    plain = load(program, kernels="portable", threads=1, **PLAIN).run(clouds)
    switches = [dict(zip(PLAIN, on, strict=True)) for on in product([False, True], repeat=3)]
    for kernels, threads, options in product(engine.available(), (1, 2, 3), switches):
        assert equal(load(program, kernels=kernels, threads=threads, **options).run(clouds), plain)


@pytest.mark.parametrize("pool", [Op.BINARY_MAX, Op.BINARY_MAX_BITS, Op.BINARY_MEAN, Op.BINARY_MEAN_BITS])
def test_equal_points_count_where_they_must(load, pool, rng):
    program = pointnet(1, pool)
    xyz = cloud(program, rng, 1000)
    assert equal(load(program).run([xyz])[0], answer(program, xyz))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
def test_a_batch_is_its_clouds_one_by_one(load, count, rng):
    program = pointnet(3)
    clouds = [cloud(program, rng, 50 * i + 1) for i in range(count)]
    alone = load(program, threads=1)
    answers = load(program, threads=3).run(clouds)
    assert answers.shape == (count, 5)
    for one, found in zip(clouds, answers, strict=True):
        assert equal(alone.run([one])[0], found)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
def test_a_batch_of_answers_per_point_is_its_clouds_one_by_one(load, count, rng):
    program = every_point_answer(3)
    clouds = [cloud(program, rng, 20 * i + 1) for i in range(count)]
    alone = load(program, threads=1)
    answers = load(program, threads=3).run(clouds)
    assert [a.shape for a in answers] == [(len(c), 3) for c in clouds]
    assert all(equal(alone.run([one])[0], found) for one, found in zip(clouds, answers, strict=True))


@pytest.mark.parametrize("network", [random_program, random_point_program])
def test_the_engine_says_what_the_file_says(load, network):
    program = replace(network(5, points=77), normalize="unit_sphere")
    one = load(program, threads=2)
    assert (one.points, one.normalize, tuple(one.classes), one.threads) == (77, "unit_sphere", program.classes, 2)
    assert one.kernels == engine.available()[0]
    assert one.values == [(v.name, int(v.kind), int(v.rows), v.channels, v.level, v.each) for v in program.values]
    assert one.per_point == (program.values[program.steps[-1].output].rows is Rows.POINT)
    assert one.sampling == (program.plan and list(program.plan.ratios))
    assert tuple(one.features) == program.features
    assert one.steps == [(list(s.inputs), list(s.outputs)) for s in program.steps]


@pytest.mark.parametrize("network", [pointnet, every_point_op])
def test_profile_names_every_step_and_memory_grows_with_the_cloud(load, network, rng):
    program = network(0)
    one = load(program)
    assert len(one.profile(cloud(program, rng, 200), 3)) == len(program.steps)
    assert min(one.profile(cloud(program, rng, 200), 3)) >= 0
    before = one.memory()
    one.run([cloud(program, rng, 1000)])
    assert one.memory() > before > 0


def test_fused_floats_are_never_stored_whole(load, rng):
    build = Builder(rng)
    bits = build.add(Op.BINARIZE, build.add(Op.LINEAR, 0, channels=1024))
    build.add(Op.BINARY_MAX, bits, channels=2)
    program = Program(tuple(build.values), tuple(build.steps), 0, "none", ("a", "b"))
    xyz = cloud(program, rng, 5000)
    memory = {}
    for fuse in (False, True):
        one = load(program, fuse=fuse, threads=1)
        one.run([xyz])
        memory[fuse] = one.memory()
    assert memory[False] > 5000 * 1024 * 4 > memory[True]


@pytest.mark.parametrize("kernels", engine.available())
@pytest.mark.parametrize("channels", [1, 63, 64, 65, 128, 129])
def test_free_functions_are_the_reference_s(kernels, channels, rng):
    build = Builder(rng)
    floats = build.add(Op.LINEAR, 0, channels=70)
    bits = build.add(Op.BINARIZE, floats)
    build.add(Op.BINARY_LINEAR_BITS, bits, channels=channels)
    linear, binarize, layer = build.steps
    program = Program(tuple(build.values), tuple(build.steps), 0, "none", ("a",))
    values = reference.values(program, rng.normal(size=(17, 3)))
    x, w, limit = values[bits], layer.blobs["weight"], layer.blobs["limit"]
    count = reference.mismatches(x, w).astype(np.int32)

    assert equal(engine.linear(values[0], *linear.blobs.values(), kernels), values[floats])
    assert equal(engine.pack(values[floats], binarize.blobs["threshold"], kernels), x)
    assert equal(engine.mismatches(x, w, kernels), count)
    assert equal(engine.threshold(x, w, limit, kernels), values[-1])
    for threads in (1, 2, 3):
        least, where = engine.pooled_minimum(np.stack([x, x[::-1]]), w, threads, kernels)
        assert equal(least, np.stack([count.min(0)] * 2))
        assert equal(where, np.stack([count.argmin(0), count[::-1].argmin(0)]).astype(np.int32))
    matrix = engine.Matrix(w, 70, kernels)
    assert (matrix.inputs, matrix.channels, matrix.kernels) == (70, channels, kernels)
    assert equal(matrix.mismatches(x), count)
    assert equal(matrix.threshold(x, limit), values[-1])


def test_unknown_and_unsupported_kernels_name_the_valid_ones(load):
    valid = ", ".join(engine.available())
    with pytest.raises(EngineError, match=f"unknown kernels 'mmx'; valid here: {valid}"):
        load(pointnet(0), kernels="mmx")
    for name in set(engine.tables()) - set(engine.available()):
        with pytest.raises(EngineError, match=f"'{name}' need instructions that this CPU does not have.*{valid}"):
            load(pointnet(0), kernels=name)


@pytest.mark.parametrize("threads", [-1, 1025])
def test_impossible_threads_are_refused(load, threads):
    with pytest.raises(EngineError, match=f"found {threads}"):
        load(pointnet(0), threads=threads)


@pytest.mark.parametrize(("shape", "message"), [((0, 3), "0 points"), ((5, 2), "2 columns")])
def test_clouds_of_another_shape_are_refused(load, shape, message):
    with pytest.raises(CloudError, match=message):
        load(pointnet(0)).run([np.zeros(shape, np.float32)])


def test_clouds_on_points_that_do_not_fit_are_refused(load, rng):
    one = load(every_point_op(0))
    with pytest.raises(CloudError, match=r"4 columns, expected the model's 5; pass those that `features` names"):
        one.run([np.zeros((80, 4), np.float32)])
    with pytest.raises(CloudError, match=r"layer 'nearest_\d+': "):
        one.run([np.zeros((5, 5), np.float32)])


def test_an_empty_ball_names_its_layer(load):
    build = PointBuilder(np.random.default_rng(0))
    moved = build.add(Op.AFFINE, 0)
    ball = build.search(Op.BALL, 0, moved, 2, 1e-6)
    program = build.program(2, build.add(Op.POOL_MAX, build.gather(0, ball)))
    with pytest.raises(CloudError, match=f"layer '{program.values[ball].name}': "):
        load(program).run([np.ones((9, 3), np.float32)])


@pytest.mark.parametrize("wrong", [-1, 50])
def test_indices_that_are_no_rows_are_refused(load, wrong):
    build = PointBuilder(np.random.default_rng(0))
    near = build.search(Op.NEAREST, 0, 0, 3)
    program = build.program(2, build.add(Op.POOL_MAX, build.gather(0, near)))
    index = np.zeros((50, 3), np.int32)
    index[7, 2] = wrong
    with pytest.raises(CloudError, match=f"expected rows of 0 to 49, found {wrong}"):
        load(program).step(1, [np.zeros((50, 3), np.float32), index], 50)
    with pytest.raises(EngineError, match=r"must be an int32 array of \(50, 3\)"):
        load(program).step(1, [np.zeros((50, 3), np.float32), index.astype(np.int64)], 50)


def test_steps_refuse_what_does_not_fit(load):
    one = load(pointnet(0))
    with pytest.raises(EngineError, match="step 99 does not exist"):
        one.step(99, [], 1)
    with pytest.raises(EngineError, match="reads 1 values, found 0"):
        one.step(0, [], 1)
    with pytest.raises(EngineError, match=r"'cloud' must be a float32 array of \(5, 3\)"):
        one.step(0, [np.zeros((4, 3), np.float32)], 5)
    with pytest.raises(EngineError, match="'cloud' must be a float32 array"):
        one.step(0, [np.zeros((5, 3), np.float64)], 5)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileError, match=r"none\.popc: can't be read \(No such file"):
        engine.Engine(tmp_path / "none.popc")
    with pytest.raises(FileError, match=r"can't be read \(a folder\)"):
        engine.Engine(tmp_path)


def test_network_on_a_grid_takes_no_clouds(tmp_path):
    write(every_grid_op(0), tmp_path / "grid.popc")
    one = engine.Engine(tmp_path / "grid.popc", threads=1)
    with pytest.raises(
        EngineError, match="a network on a voxel grid answers for each point of a scene; run it on scenes"
    ):
        one.run([np.zeros((3, 3), np.float32)])
