"""The numpy reading of each op on points, against other formulas for the same thing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from point_builder import PointBuilder
from point_programs import FEWEST, cloud_of, every_point_op, point_programs
from popcloud.errors import CloudError
from popcloud.packed.bits import unpack, unpack_weights
from popcloud.packed.program import Activation, Kind, Op, Rows, Sampling
from popcloud.packed.validate import POOLED
from popcloud.runtime import reference

POINTS = 20


@pytest.fixture
def build(rng):
    return PointBuilder(rng, (0.5,))


@pytest.fixture
def xyz(rng):
    return rng.normal(size=(POINTS, 3)).astype(np.float32)


def found(build, xyz):
    """Return all values of the program as it is so far, ended by a classifier."""
    return reference.values(build.program(2), xyz)


def as_signs(build, values, index):
    """Return a BITS value as -1 and +1 (rows, channels)."""
    return unpack(values[index], build.values[index].channels)


def neighbours(build, k=4):
    """Append k neighbours of each point with their offsets; return the INDEX value and the offsets (each k)."""
    near = build.search(Op.NEAREST, 0, 0, k)
    return near, build.two(Op.SUBTRACT, build.gather(0, near), 0)


def with_rows(build, channels=12):
    """Append floats of so many channels, each 4."""
    return build.add(Op.LINEAR, neighbours(build)[1], channels=channels)


def test_levels_have_the_next_whole_share_of_the_points():
    plan = Sampling((0.5, 0.334))
    assert [plan.count(1025, level) for level in range(3)] == [1025, 513, math.ceil(0.334 * 513)]


def test_samples_are_farthest_from_those_before(build, xyz):
    rows = build.sample(0)
    chosen = found(build, xyz)[rows][:, 0]
    assert len(chosen) == POINTS / 2
    assert chosen[0] == 0
    for i in range(1, len(chosen)):
        away = np.linalg.norm(xyz[:, None] - xyz[chosen[:i]], axis=2).min(axis=1)
        assert away[chosen[i]] == pytest.approx(away.max())


@pytest.mark.parametrize("dilation", [1, 3])
def test_nearest_are_in_order(build, xyz, dilation):
    rows = build.search(Op.NEAREST, 0, 0, 5, dilation)
    order = np.argsort(np.linalg.norm(xyz[:, None] - xyz, axis=2), axis=1)
    np.testing.assert_array_equal(found(build, xyz)[rows], order[:, ::dilation][:, :5])


def test_nearest_features_are_in_order_of_their_distance(build, xyz):
    x = build.add(Op.LINEAR, 0, channels=7)
    rows = build.search(Op.NEAREST_FEATURES, x, x, 6)
    values = found(build, xyz)
    features = values[x].astype(np.float64)
    order = np.argsort(((features[:, None] - features) ** 2).sum(axis=2), axis=1)
    np.testing.assert_array_equal(values[rows], order[:, :6])


def test_nearest_signs_differ_least_and_then_come_first(build, xyz):
    x = build.add(Op.BINARIZE, build.add(Op.LINEAR, 0, channels=70))
    rows = build.search(Op.NEAREST_SIGNS, x, x, 6, 2)
    values = found(build, xyz)
    signs = as_signs(build, values, x)
    order = np.argsort((signs[:, None] != signs).sum(axis=2), axis=1, kind="stable")
    np.testing.assert_array_equal(values[rows], order[:, :12:2])


def test_balls_have_the_first_rows_within_the_radius(build, xyz):
    rows = build.search(Op.BALL, 0, 0, 5, 1.0)
    for query, got in enumerate(found(build, xyz)[rows]):
        near = np.flatnonzero(np.linalg.norm(xyz - xyz[query], axis=1) <= 1)
        wanted = np.concatenate([near, np.repeat(near[:1], 5)])[:5]
        np.testing.assert_array_equal(got, wanted)


def test_gathered_rows_lie_together(build, xyz):
    near, _ = neighbours(build)
    values = found(build, xyz)
    np.testing.assert_array_equal(values[near + 1].reshape(POINTS, 4, 3), xyz[values[near]])


def test_gathered_signs_are_those_of_the_rows(build, xyz):
    bits = build.add(Op.BINARIZE, build.add(Op.LINEAR, 0, channels=70))
    near, _ = neighbours(build)
    taken = build.gather(bits, near)
    values = found(build, xyz)
    np.testing.assert_array_equal(as_signs(build, values, taken), as_signs(build, values, bits)[values[near].ravel()])


@pytest.mark.parametrize("other", ["same", "point", "cloud", "column", "point column", "cloud column"])
def test_factors_are_repeated(build, xyz, other):
    x = with_rows(build)
    alone = build.add(Op.LINEAR, 0, channels=12)
    factor = {"same": x, "point": alone, "cloud": build.add(Op.POOL_MAX, x)}.get(other.split()[0], x)
    factor = build.slice(factor, 3, 1) if other.endswith("column") else factor
    y = build.two(Op.MULTIPLY, x, factor)
    values = found(build, xyz)
    shaped = values[factor].reshape(-1, build.values[factor].each, build.values[factor].channels)
    np.testing.assert_array_equal(values[y].reshape(POINTS, 4, 12), values[x].reshape(POINTS, 4, 12) * shaped)


def test_offsets_are_from_the_point_itself(build, xyz):
    near, offsets = neighbours(build)
    values = found(build, xyz)
    np.testing.assert_array_equal(values[offsets].reshape(POINTS, 4, 3), xyz[values[near]] - xyz[:, None])


def test_reshape_keeps_the_floats_in_order(build, xyz):
    x = with_rows(build)
    y = build.reshape(x, 3)
    values = found(build, xyz)
    assert values[y].shape == (POINTS * 3, 16)
    np.testing.assert_array_equal(values[y].ravel(), values[x].ravel())


def test_product_is_that_of_the_transposed_rows(build, xyz):
    x = with_rows(build)
    m = build.add(Op.LINEAR, x, channels=5)
    y = build.product(x, m)
    values = found(build, xyz)
    one, two = (values[i].reshape(POINTS, 4, -1).astype(np.float64) for i in (x, m))
    wanted = np.einsum("pic,pij->pcj", one, two).reshape(POINTS, -1)
    np.testing.assert_allclose(values[y], wanted, rtol=1e-4, atol=1e-5)


def test_density_is_the_inverse_of_a_triangular_kernel(build, xyz):
    y = build.density(0, 0.8)
    d = ((xyz[:, None].astype(np.float64) - xyz) ** 2).sum(axis=2)
    wanted = POINTS / np.maximum(0, 1 - d / 0.8**2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found(build, xyz)[y], wanted, rtol=1e-5)


def test_slice_takes_channels(build, xyz):
    x = with_rows(build)
    y = build.slice(x, 4, 5)
    values = found(build, xyz)
    np.testing.assert_array_equal(values[y], values[x][:, 4:9])


def activated(step, x):
    return {Activation.NONE: x, Activation.RELU: np.maximum(x, 0), Activation.HARDTANH: x.clip(-1, 1)}[step.activation]


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_groups_of_floats_read_their_own_channels(build, xyz, groups):
    x = with_rows(build)
    y = build.grouped(x, groups, 6)
    step = build.steps[-1]
    values = found(build, xyz)
    parts = np.split(values[x].astype(np.float64), groups, axis=1)
    weights = np.split(step.blobs["weight"].astype(np.float64), groups, axis=1)
    wanted = np.hstack([part @ weight for part, weight in zip(parts, weights, strict=True)]) + step.blobs["bias"]
    np.testing.assert_allclose(values[y], activated(step, wanted), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_groups_of_signs_read_their_own_channels(build, xyz, groups):
    x = build.add(Op.BINARIZE, with_rows(build, 390))
    y = build.grouped(x, groups, 6)
    step = build.steps[-1]
    values = found(build, xyz)
    parts = np.split(as_signs(build, values, x).astype(np.float64), groups, axis=1)
    weights = np.split(unpack_weights(step.blobs["weight"], 390 // groups), groups)
    dots = np.hstack([part @ weight.T for part, weight in zip(parts, weights, strict=True)])
    wanted = activated(step, dots * step.blobs["scale"] + step.blobs["bias"])
    np.testing.assert_allclose(values[y], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("added", [False, True])
def test_weighted_sum_of_bases(build, xyz, added):
    floats = with_rows(build, 70)
    x = build.add(Op.BINARIZE, floats)
    more = build.slice(floats, 0, 9) if added else None
    y = build.summed(x, 3, 9, more)
    step = build.steps[-1]
    values = found(build, xyz)
    dots = as_signs(build, values, x).astype(np.float64) @ unpack_weights(step.blobs["weight"], 70).T
    wanted = (dots.reshape(-1, 3, 9) * step.blobs["scale"]).sum(axis=1) + step.blobs["bias"]
    wanted = wanted + values[more] if added else wanted
    np.testing.assert_allclose(values[y], activated(step, wanted), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", [Kind.FLOAT, Kind.BITS])
def test_concat_repeats_points_and_clouds(build, xyz, kind):
    x = with_rows(build)
    parts = [x, build.add(Op.LINEAR, 0, channels=70), build.add(Op.LINEAR, build.add(Op.POOL_MEAN, x), channels=3)]
    parts = [build.add(Op.BINARIZE, part) for part in parts] if kind is Kind.BITS else parts
    y = build.concat(*parts)
    values = found(build, xyz)
    shown = [as_signs(build, values, i) if kind is Kind.BITS else values[i] for i in (*parts, y)]
    rows, point, cloud, joined = shown
    np.testing.assert_array_equal(joined[:, :12], rows)
    np.testing.assert_array_equal(joined[:, 12:82], np.repeat(point, 4, axis=0))
    np.testing.assert_array_equal(joined[:, 82:], np.repeat(cloud, 4 * POINTS, axis=0))


@pytest.mark.parametrize("op", sorted(POOLED))
def test_pool_by_point_is_the_pool_over_the_rows_of_one(build, xyz, op):
    floats = with_rows(build, 70)
    x = floats if op in (Op.POOL_MAX, Op.POOL_MEAN) else build.add(Op.BINARIZE, floats)
    y = build.add(op, x, channels=70, by_point=True)
    step = build.steps[-1]
    values = found(build, xyz)
    layer = reference.Layer(step.blobs, step.activation, 70)
    for point in range(POINTS):
        alone = reference.OPS[op](layer, values[x][4 * point : 4 * point + 4])
        np.testing.assert_array_equal(values[y][point], alone[0])


def test_transform_moves_the_points_of_a_level(build, xyz):
    build.sample(0)
    m = build.add(Op.LINEAR, build.add(Op.POOL_MAX, 0), channels=9)
    y = build.add(Op.TRANSFORM, build.xyz[1], m)
    values = found(build, xyz)
    matrix = values[m].reshape(3, 3) + np.eye(3)
    np.testing.assert_allclose(values[y], values[build.xyz[1]] @ matrix, rtol=1e-4, atol=1e-5)


def test_sigmoid_follows_a_linear_layer(build, xyz):
    y = build.add(Op.LINEAR, 0, channels=5, activation=Activation.SIGMOID)
    step = build.steps[-1]
    wanted = 1 / (1 + np.exp(-(xyz.astype(np.float64) @ step.blobs["weight"] + step.blobs["bias"])))
    np.testing.assert_allclose(found(build, xyz)[y], wanted, rtol=1e-5)


@given(point_programs(), st.integers(0, 100))
def test_values_are_as_the_program_says(program, more):
    cloud = cloud_of(np.random.default_rng(more), FEWEST + more, program)
    values = reference.values(program, cloud)
    last = program.values[program.steps[-1].output]
    points = len(cloud) if last.rows is Rows.POINT else program.points or len(cloud)
    for value, x in zip(program.values, values, strict=True):
        rows = program.plan.count(points, value.level) * value.each if value.rows is Rows.POINT else 1
        reference.check(value, x, rows)
    answer = reference.run(program, cloud)
    classes = len(program.classes)
    assert answer.shape == ((classes,) if last.rows is Rows.CLOUD else (points, classes))


@pytest.mark.parametrize("by_point", [False, True])
def test_each_step_alone_gives_what_the_run_gave(by_point, rng):
    program = every_point_op(3, by_point)
    cloud = cloud_of(rng, FEWEST, program)
    values = reference.values(program, cloud)
    for index, step in enumerate(program.steps):
        alone = reference.step(program, index, [values[i] for i in step.inputs], len(cloud))
        assert alone.tobytes() == values[step.output].tobytes()


@pytest.mark.parametrize("row", [-1, POINTS])
def test_index_of_no_row_is_refused(build, xyz, row):
    near, _ = neighbours(build)
    program = build.program(2)
    index = next(i for i, step in enumerate(program.steps) if step.op is Op.GATHER)
    wrong = reference.values(program, xyz)[near]
    wrong[5, 2] = row
    with pytest.raises(CloudError, match=f"expected rows of 0 to {POINTS - 1}, found .*{row}"):
        reference.step(program, index, [xyz, wrong], POINTS)


def test_cloud_smaller_than_a_search_is_refused(build, xyz):
    build.search(Op.NEAREST, 0, 0, 5, 6)
    program = build.program(2)
    with pytest.raises(CloudError, match="needs at least 25 points, found 20"):
        reference.run(program, xyz)


def test_empty_ball_is_refused(build, xyz):
    build.sample(0)
    build.search(Op.BALL, 0, build.xyz[1], 3, 1e-6)
    with pytest.raises(CloudError, match="ball: no point"):
        reference.run(build.program(2), xyz)


@pytest.mark.parametrize("op", [Op.NEAREST, Op.BALL, Op.FARTHEST_POINTS, Op.DENSITY])
def test_positions_that_are_not_finite_are_refused(build, xyz, op):
    far = build.add(Op.AFFINE, build.add(Op.AFFINE, 0))
    for step in build.steps:
        step.blobs["scale"][...] = 1e38
    build.xyz[0] = far
    if op is Op.DENSITY:
        y = build.density(0, 1)
    else:
        y = build.sample(0) if op is Op.FARTHEST_POINTS else build.search(op, far, far, 3)
    with pytest.raises(CloudError, match=f"layer '{build.values[y].name}': .*20 of 20 points are not finite"):
        reference.run(build.program(2, 0), xyz)


def test_cloud_of_another_width_is_refused(build, xyz):
    build.add(Op.LINEAR, 0, channels=4)
    with pytest.raises(CloudError, match=r"value 'points': expected float32 .20, 3., found float32 .20, 4."):
        reference.run(build.program(2), np.column_stack([xyz, xyz[:, 0]]))


def test_rows_are_normalised_and_none_is_left_out_where_each_is_answered(build, rng):
    rows = rng.normal(size=(50, 5)).astype(np.float32)
    wide = PointBuilder(rng, (), 5)
    program = wide.program(2)
    ready = reference.values(replace(program, points=25, normalize="unit_sphere"), rows)[0]
    np.testing.assert_array_equal(ready[:, 3:], rows[:, 3:])
    assert np.linalg.norm(ready[:, :3], axis=1).max() == pytest.approx(1)
    np.testing.assert_array_equal(reference.values(replace(program, normalize="blocks"), rows)[0], rows)
