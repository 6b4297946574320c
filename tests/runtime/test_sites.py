"""The numpy reading of networks on a grid, against dense arrays in float64: an inactive site is a row of zeros."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_programs import GridBuilder, every_grid_op, grid_programs, random_grid_program, surface
from popcloud.cloud import PointCloud
from popcloud.errors import CloudError
from popcloud.packed.bits import unpack, unpack_weights
from popcloud.packed.program import Activation, Grid, Kind, Op
from popcloud.runtime import reference, sites

CUBE = list(product((-1, 0, 1), repeat=3))
CHILDREN = list(product((0, 1), repeat=3))


def whole(program, cloud):
    """Return all values of a run, and the pyramid."""
    first, at = sites.ready(program, cloud)
    return sites.values(program, first, at), at


def signs_or_floats(x, value):
    """Return a value as float64 rows."""
    return (unpack(x, value.channels) if value.kind is Kind.BITS else x).astype(np.float64)


def sums(program, index, found, at):
    """Return the bare sums of convolution `index` by looking each neighbour up in a dictionary, in float64."""
    step = program.steps[index]
    x, y = program.values[step.inputs[0]], program.values[step.output]
    rows = signs_or_floats(found[step.inputs[0]], x)
    offsets, weight = 27 if x.level == y.level else 8, step.blobs["weight"]
    rows_of = unpack_weights(weight, offsets * x.channels).T if x.kind is Kind.BITS else weight
    kernels = np.split(rows_of, offsets)
    where = {tuple(site): row for row, site in enumerate(at.levels[x.level].sites.tolist())}
    shifts = step.blobs.get("shifts", np.zeros((1, 3), np.int8)).tolist()
    width = y.channels // len(shifts)
    total = np.zeros((len(at.levels[y.level].sites), y.channels))
    for row, site in enumerate(at.levels[y.level].sites.tolist()):
        for group, shift in enumerate(shifts):
            columns = slice(group * width, (group + 1) * width)
            for k, source in neighbours(np.array(site), np.array(shift), y.level - x.level):
                if source in where:
                    total[row, columns] += rows[where[source]] @ kernels[k][:, columns].astype(np.float64)
    return total


def neighbours(site, shift, up):
    """Yield (kernel offset, input site) by the definition of each kind of convolution."""
    if up == 0:
        yield from ((k, tuple((site + offset + shift).tolist())) for k, offset in enumerate(CUBE))
    elif up == 1:
        yield from ((k, tuple((2 * site + child).tolist())) for k, child in enumerate(CHILDREN))
    else:
        yield CHILDREN.index(tuple((site & 1).tolist())), tuple((site >> 1).tolist())


def parent_rows(at, level):
    coarse = {tuple(s): row for row, s in enumerate(at.levels[level + 1].sites.tolist())}
    return np.array([coarse[tuple(s)] for s in (at.levels[level].sites >> 1).tolist()])


def of_level(x, value, level, at):
    """Return a second input's rows where they are added."""
    return x if value.level == level else x[parent_rows(at, level)]


def ended(program, index, total, found, at):
    """Return the first float of a convolution from its sums, in float64."""
    step = program.steps[index]
    y = total * step.blobs["scale"][0].astype(np.float64) + step.blobs["bias"][0]
    if len(step.inputs) == 2:
        second = step.inputs[1]
        y = y + of_level(found[second], program.values[second], program.values[step.output].level, at)
    if step.activation is Activation.RPRELU:
        shift, slope, offset = step.blobs["prelu"].astype(np.float64)
        return np.where(y > shift, y - shift, slope * (y - shift)) + offset
    return {Activation.NONE: y, Activation.RELU: np.maximum(y, 0), Activation.HARDTANH: y.clip(-1, 1)}[step.activation]


CASES = [
    (kind, step, size, groups)
    for kind in "FB"
    for step, size, groups in [(0, 3, 0), (0, 5, 0), (0, 5, 4), (1, 3, 0), (-1, 5, 0)]
]


@pytest.mark.parametrize(("kind", "step", "size", "groups"), CASES)
@pytest.mark.parametrize("channels", [3, 65])
def test_convolution_is_the_sum_over_neighbours(kind, step, size, groups, channels, rng):
    build = GridBuilder(rng, Grid(0.2, 3, size), 3)
    x = build.add(Op.LINEAR, 0, channels=channels)
    if step < 0:
        x = build.emit(Op.SITE_MEAN, (x,), "F", channels, 1)
    x = x if kind == "F" else build.add(Op.BINARIZE, x)
    build.conv(x, 8, step=step, groups=groups, activation=Activation.RPRELU)
    program, index = build.program(2), len(build.steps) - 2
    found, at = whole(program, surface(rng, 60, 3))
    wanted = ended(program, index, sums(program, index, found, at), found, at)
    np.testing.assert_allclose(found[program.steps[index].output], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("above", [0, 1])
@pytest.mark.parametrize("act", [act for act in Activation if act is not Activation.SIGMOID])
def test_shortcut_comes_before_the_activation(above, act, rng):
    build = GridBuilder(rng, Grid(0.2, 2, 3), 3)
    bits = build.add(Op.BINARIZE, 0)
    shortcut = build.emit(Op.SITE_MEAN, (0,), "F", 3, 1) if above else 0
    build.conv(bits, 3, shortcut=shortcut, activation=act)
    program, index = build.program(2), len(build.steps) - 2
    found, at = whole(program, surface(rng, 60, 3))
    wanted = ended(program, index, sums(program, index, found, at), found, at)
    np.testing.assert_allclose(found[program.steps[index].output], wanted, rtol=1e-5, atol=1e-6)


def test_bits_of_a_convolution_are_the_signs_of_its_floats(rng):
    build = GridBuilder(rng, Grid(0.2, 1, 3), 3)
    first = build.conv(0, 70, kinds="FBB", activation=Activation.HARDTANH)
    build.steps[-1].blobs["thresholds"][1] = [np.inf, -np.inf, *build.steps[-1].blobs["thresholds"][1, 2:]]
    program = build.program(2)
    found, _ = whole(program, surface(rng, 60, 3))
    for row, threshold in enumerate(program.steps[0].blobs["thresholds"]):
        minus = unpack(found[first + 1 + row], 70) < 0
        np.testing.assert_array_equal(minus, found[first] < threshold)
    build.emit(Op.SPARSE_CONV, (0,), "BB", 70, 0, activation=Activation.HARDTANH, blobs=program.steps[0].blobs)
    alone, _ = whole(build.program(2), surface(np.random.default_rng(3), 60, 3))
    for row in (0, 1):  # the floats need not be written for it
        np.testing.assert_array_equal(alone[-3 + row], alone[first + 1 + row])


def test_several_floats_have_a_scale_and_a_bias_each(rng):
    build = GridBuilder(rng, Grid(0.2, 1, 3), 3)
    first = build.conv(0, 5, kinds="FFF", activation=Activation.RELU)
    program = build.program(2)
    found, at = whole(program, surface(rng, 60, 3))
    total = sums(program, 0, found, at)
    blobs = program.steps[0].blobs
    for j in range(3):
        wanted = np.maximum(total * blobs["scale"][j] + blobs["bias"][j], 0)
        np.testing.assert_allclose(found[first + j], wanted, rtol=1e-5, atol=1e-5)


def test_site_mean_is_that_of_the_children_and_unpool_copies(rng):
    build = GridBuilder(rng, Grid(0.2, 2, 3), 3)
    mean = build.emit(Op.SITE_MEAN, (0,), "F", 3, 1)
    copied = build.emit(Op.UNPOOL, (mean,), "F", 3, 0)
    program = build.program(2)
    found, at = whole(program, surface(rng, 80, 3))
    rows = parent_rows(at, 0)
    for parent in range(len(at.levels[1].sites)):
        wanted = found[0][rows == parent].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(found[mean][parent], wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[copied], found[mean][rows])


def test_concat_and_add(rng):
    build = GridBuilder(rng, Grid(0.2, 2, 3), 3)
    other = build.add(Op.LINEAR, 0, channels=61)
    bits = [build.add(Op.BINARIZE, i) for i in (0, other)]
    both = build.emit(Op.CONCAT, (*bits, bits[0]), "B", 67, 0)
    floats = build.emit(Op.CONCAT, (0, other), "F", 64, 0)
    above = build.emit(Op.SITE_MEAN, (floats,), "F", 64, 1)
    added = build.emit(Op.ADD, (floats, above), "F", 64, 0)
    program = build.program(2)
    found, at = whole(program, surface(rng, 60, 3))
    parts = [unpack(found[i], n) for i, n in ((bits[0], 3), (bits[1], 61), (bits[0], 3))]
    np.testing.assert_array_equal(unpack(found[both], 67), np.concatenate(parts, axis=1))
    np.testing.assert_array_equal(found[floats], np.concatenate([found[0], found[other]], axis=1))
    np.testing.assert_array_equal(found[added], found[floats] + found[above][parent_rows(at, 0)])


def test_a_points_answer_is_its_sites(rng):
    program, cloud = random_grid_program(5), surface(rng, 50, 3)
    found, at = whole(program, cloud)
    answer = sites.run(program, cloud)
    assert answer.shape == (50, 4)
    np.testing.assert_array_equal(answer, found[program.steps[-1].output][at.point_to_site])


@given(grid_programs(), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_order_of_points_changes_the_order_of_answers_alone(program, seed):
    """Features are equal for all points of a site, so that their mean does not depend on the order."""
    rng = np.random.default_rng(seed)
    cloud = surface(rng, 40, len(program.features))
    cloud = PointCloud(cloud.xyz, np.ones_like(cloud.features))
    order = rng.permutation(40)
    shuffled = PointCloud(cloud.xyz[order], cloud.features[order])
    np.testing.assert_array_equal(sites.run(program, shuffled), sites.run(program, cloud)[order])


def test_steps_one_by_one_are_the_run(rng):
    program = every_grid_op(3)
    found, at = whole(program, surface(rng, 60, 3))
    for index, step in enumerate(program.steps):
        alone = sites.step(program, index, [found[i] for i in step.inputs], at)
        for array, output in zip(alone, step.outputs, strict=True):
            np.testing.assert_array_equal(array, found[output])
            assert array.dtype == found[output].dtype


@pytest.mark.parametrize("features", [np.full((9, 3), np.nan), np.full((9, 3), 1e39)])
def test_features_that_are_not_finite_are_a_cloud_error(features, rng):
    with pytest.raises(CloudError, match="features: 9 of 9 points have some that are not finite"):
        sites.run(random_grid_program(0), PointCloud(rng.random((9, 3)).astype(np.float32), features))


@pytest.mark.parametrize("features", [None, np.zeros((9, 2)), np.zeros((8, 3))])
def test_other_features_are_a_cloud_error(features, rng):
    with pytest.raises(CloudError, match=r"features: expected shape \(9, 3\): feature 0, feature 1"):
        sites.run(random_grid_program(0), PointCloud(rng.random((9, 3)).astype(np.float32), features))


@pytest.mark.parametrize("xyz", [np.zeros((0, 3)), np.zeros((9, 2)), np.full((9, 3), np.inf), [[0, 0, 0], [1e9, 0, 0]]])
def test_bad_cloud_is_a_cloud_error(xyz):
    with pytest.raises(CloudError):
        sites.run(random_grid_program(0), PointCloud(np.asarray(xyz, np.float32), np.zeros((len(xyz), 3), np.float32)))


def test_input_of_another_shape_is_refused(rng):
    program = every_grid_op(0)
    _, at = sites.ready(program, surface(rng, 30, 3))
    with pytest.raises(CloudError, match="value 'sites': expected float32"):
        sites.step(program, 0, [np.zeros((5, 3), np.float32)], at)


def test_program_for_whole_clouds_is_refused():
    with pytest.raises(CloudError, match="expected a model with a voxel grid"):
        sites.plan_of(None)


def test_every_op_belongs_to_one_reading():
    assert not set(sites.OPS) & set(reference.OPS)
