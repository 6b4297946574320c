"""The numpy reading of each Op, against other formulas for the same thing: sums of ±1 as float64 matrix products."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from popcloud.cloud import prepare
from popcloud.errors import CloudError
from popcloud.packed.bits import pack, pack_weights, unpack
from popcloud.packed.program import Activation, Kind, Op, Rows
from popcloud.runtime import points, reference, sites
from popcloud.runtime.reference import OPS, Layer, activate, fma
from programs import every_op, programs, random_program

SINGLE = st.floats(width=32, allow_nan=False, allow_infinity=False)
INPUTS = [1, 63, 64, 65, 128, 129]
ROWS = [1, 2, 3, 17]


def call(op, *inputs, channels, activation=Activation.NONE, **blobs):
    return OPS[op](Layer(blobs, activation, channels), *inputs)


def floats(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def signs(rng, *shape):
    return rng.choice([-1, 1], shape)


class Case:
    """Signs x (rows, inputs), weights w (9, inputs), their products, and what an op needs of them."""

    def __init__(self, rng, rows, inputs):
        self.inputs = inputs
        x, w = signs(rng, rows, inputs), signs(rng, 9, inputs)
        self.dots = x.astype(np.float64) @ w.T.astype(np.float64)
        self.mismatches = (x[:, None] != w).sum(axis=2)
        self.x, self.weight = pack(x), pack_weights(w)
        self.limit = rng.integers(-1, inputs, 9, endpoint=True).astype(np.int32)

    def call(self, op, *more, **blobs):
        return call(op, self.x, *more, channels=self.inputs, weight=self.weight, **blobs)


@pytest.fixture(params=[(rows, inputs) for rows in ROWS for inputs in INPUTS], ids=str)
def case(request, rng):
    return Case(rng, *request.param)


def same_signs(packed, minus):
    np.testing.assert_array_equal(unpack(packed, minus.shape[1]), np.where(minus, -1, 1))


def test_every_op_has_its_function():
    assert set(OPS) | set(sites.OPS) | set(points.OPS) == set(Op)
    assert not set(OPS) & (set(sites.OPS) | set(points.OPS))
    assert set(sites.OPS) & set(points.OPS) == {Op.CONCAT}


def test_binary_linear(case, rng):
    scale, bias = floats(rng, 9), floats(rng, 9)
    y = case.call(Op.BINARY_LINEAR, scale=scale, bias=bias)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, scale * case.dots + bias, rtol=1e-6, atol=1e-6)


def test_binary_linear_without_scale_is_exact(case):
    one, none = np.ones(1, np.float32), np.zeros(1, np.float32)
    np.testing.assert_array_equal(case.call(Op.BINARY_LINEAR, scale=one, bias=none), case.dots)


def test_binary_linear_with_a_row_scale(case, rng):
    row, scale, bias = floats(rng, len(case.x), 1), floats(rng, 1), floats(rng, 9)
    y = case.call(Op.BINARY_LINEAR, row, scale=scale, bias=bias)
    np.testing.assert_allclose(y, scale * (row * case.dots) + bias, rtol=1e-5, atol=1e-5)


def test_binary_linear_bits(case):
    same_signs(case.call(Op.BINARY_LINEAR_BITS, limit=case.limit), case.mismatches > case.limit)


@pytest.mark.parametrize("op", [Op.BINARY_LINEAR_BITS, Op.BINARY_MAX_BITS])
def test_limits_at_their_ends_decide_alone(case, op):
    ends = np.array([-1] * 4 + [case.inputs] * 5, np.int32)
    bits = unpack(case.call(op, limit=ends), 9)
    assert (bits[:, :4] == -1).all()  # more than -1 mismatches: always
    assert (bits[:, 4:] == 1).all()  # more than all of them: never


def test_binary_max(case, rng):
    scale, bias = floats(rng, 9), floats(rng, 9)
    y = case.call(Op.BINARY_MAX, scale=scale, bias=bias)
    np.testing.assert_allclose(y, (scale * case.dots.max(axis=0) + bias)[None], rtol=1e-6, atol=1e-6)


def test_binary_max_bits_is_the_sign_of_the_largest(case):
    largest = case.dots.max(axis=0, keepdims=True)
    same_signs(case.call(Op.BINARY_MAX_BITS, limit=case.limit), largest < case.inputs - 2 * case.limit)


def test_binary_max_bits_is_plus_where_any_row_is(case):
    rows = unpack(case.call(Op.BINARY_LINEAR_BITS, limit=case.limit), 9)
    pooled = unpack(case.call(Op.BINARY_MAX_BITS, limit=case.limit), 9)
    np.testing.assert_array_equal(pooled[0], rows.max(axis=0))


def test_binary_mean(case, rng):
    scale, bias = floats(rng, 9), floats(rng, 1)
    y = case.call(Op.BINARY_MEAN, scale=scale, bias=bias)
    np.testing.assert_allclose(y, (scale * case.dots.mean(axis=0) + bias)[None], rtol=1e-5, atol=1e-5)


def test_binary_mean_bits(case):
    mean = (case.dots.sum(axis=0).astype(np.float32) / np.float32(len(case.x)))[None]
    for threshold in (mean[0], np.nextafter(mean[0], np.float32(np.inf))):
        same_signs(case.call(Op.BINARY_MEAN_BITS, threshold=threshold), mean < threshold)


def test_linear(rng):
    x, w, b = floats(rng, 17, 65), floats(rng, 65, 9), floats(rng, 9)
    y = call(Op.LINEAR, x, channels=65, weight=w, bias=b)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, x.astype(np.float64) @ w + b, rtol=1e-5, atol=1e-5)


def test_linear_starts_at_the_bias_and_goes_in_order():
    big = np.float32(2**25)
    order = np.array([[big], [1], [-big]], np.float32)  # 1 is lost beside 2^25, but not after it has gone
    x, bias = np.ones((1, 3), np.float32), np.zeros(1, np.float32)
    assert call(Op.LINEAR, x, channels=3, weight=order, bias=bias) == 0
    assert call(Op.LINEAR, x, channels=3, weight=order[[0, 2, 1]], bias=bias) == 1
    assert call(Op.LINEAR, x, channels=3, weight=order * 0, bias=bias + 7) == 7
    assert call(Op.LINEAR, x, channels=3, weight=order[[1, 1, 2]], bias=bias + big) == 0


def test_binarize(rng):
    x = floats(rng, 3, 70)
    x[0, :3] = np.nan, 0, -0.0
    threshold = np.concatenate([np.zeros(3, np.float32), floats(rng, 67)])
    same_signs(call(Op.BINARIZE, x, channels=70, threshold=threshold), x < threshold)


def test_affine(rng):
    x, scale, bias = floats(rng, 5, 7), floats(rng, 7), floats(rng, 1)
    np.testing.assert_array_equal(call(Op.AFFINE, x, channels=7, scale=scale, bias=bias), fma(scale, x, bias))


def test_rprelu_rounds_each_operation(rng):
    x, shift, slope, offset = floats(rng, 40, 7), floats(rng, 7), floats(rng, 7), floats(rng, 7)
    x[0] = shift
    y = call(Op.RPRELU, x, channels=7, shift=shift, slope=slope, offset=offset)
    for (r, c), value in np.ndenumerate(x):
        moved = np.float32(value - shift[c])
        expected = np.float32((moved if value > shift[c] else np.float32(slope[c] * moved)) + offset[c])
        assert y[r, c] == expected


def test_transform_adds_the_identity(rng):
    x = floats(rng, 6, 3)
    none = np.zeros((1, 9), np.float32)
    np.testing.assert_array_equal(call(Op.TRANSFORM, x, none, channels=3), x)
    m = floats(rng, 1, 9)
    np.testing.assert_allclose(call(Op.TRANSFORM, x, m, channels=3), x @ (m.reshape(3, 3) + np.eye(3)), rtol=1e-5)


def test_pools(rng):
    x = floats(rng, 33, 5)
    np.testing.assert_array_equal(call(Op.POOL_MAX, x, channels=5), x.max(axis=0)[None])
    np.testing.assert_allclose(call(Op.POOL_MEAN, x, channels=5), x.mean(axis=0, dtype=np.float64)[None], rtol=1e-6)
    np.testing.assert_allclose(call(Op.ROW_MEAN_ABS, x, channels=5), np.abs(x).mean(axis=1)[:, None], rtol=1e-6)


def test_means_are_summed_in_float64_in_order():
    column = np.array([[2.0**30], [1], [-(2.0**30)], [1e-3]], np.float32)
    mean = np.float32((1 + float(np.float32(1e-3))) / 4)
    assert call(Op.POOL_MEAN, column, channels=1) == mean
    assert call(Op.ROW_MEAN_ABS, column.T, channels=4) == np.float32((2.0**31 + 1 + float(np.float32(1e-3))) / 4)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Activation.NONE, [-2, -1, -0.5, 0, 1, 3]),
        (Activation.RELU, [0, 0, 0, 0, 1, 3]),
        (Activation.HARDTANH, [-1, -1, -0.5, 0, 1, 1]),
    ],
)
@pytest.mark.parametrize("op", [Op.LINEAR, Op.AFFINE, Op.BINARY_LINEAR, Op.BINARY_MAX, Op.BINARY_MEAN])
def test_activation_follows_the_affine_map(op, how, expected):
    bias, one = np.array([-2, -1, -0.5, 0, 1, 3], np.float32), np.ones(1, np.float32)
    if op is Op.AFFINE:
        x, blobs = np.zeros((1, 6), np.float32), {"scale": one}
    elif op is Op.LINEAR:
        x, blobs = np.zeros((1, 2), np.float32), {"weight": np.ones((2, 6), np.float32)}
    else:  # of two inputs one agrees and one does not
        x, blobs = pack(np.array([[1, -1]])), {"scale": one, "weight": pack_weights(np.ones((6, 2)))}
    assert call(op, x, channels=2, activation=how, bias=bias, **blobs).tolist() == [expected]


def test_nan_passes_the_activations():
    nan = np.array([[np.nan]], np.float32)
    assert all(np.isnan(activate(nan, how)).all() for how in Activation)


@given(SINGLE, SINGLE, SINGLE)
@example(1.0, 1.0, -3.4028234663852886e38)
def test_fma_is_the_nearest_float_to_the_exact_result(a, b, c):
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    assume(abs(exact) < Fraction(float(np.finfo(np.float32).max)))
    with np.errstate(over="ignore", under="ignore"):
        y = fma(np.float32(a), np.float32(b), np.float32(c))
        neighbours = [np.nextafter(y, np.float32(way)) for way in (np.inf, -np.inf)]  # the largest float has one
    error = abs(Fraction(float(y)) - exact)
    for neighbour in neighbours:
        if np.isfinite(neighbour):
            other = abs(Fraction(float(neighbour)) - exact)
            even = int(np.float32(y).view(np.uint32)) % 2 == 0
            assert error < other or (error == other and even)


def test_fma_rounds_once_where_float64_would_round_twice():
    # a * b is 2^-24 - 2^-70, so the sum lies below the middle of two floats by less than float64 can see.
    a, b, c = np.float32(1 + 2**-23), np.float32(2.0**-24 * (1 - 2**-23)), np.float32(1 + 2**-23)
    assert np.float32(np.float64(a) * np.float64(b) + np.float64(c)) == np.float32(1 + 2**-22)
    assert fma(a, b, c) == c


def test_run_is_the_last_value(rng):
    program, cloud = every_op(2), rng.normal(size=(50, 3))
    found = reference.values(program, cloud)
    answer = reference.run(program, cloud)
    assert answer.shape == (3,)
    np.testing.assert_array_equal(answer, found[-1][0])


@given(programs(), st.integers(1, 9))
def test_values_are_of_the_kind_and_size_they_say(program, count):
    cloud = np.random.default_rng(count).normal(size=(count, 3))
    found = reference.values(program, cloud)
    points = program.points or count
    for value, array in zip(program.values, found, strict=True):
        width = value.channels if value.kind is Kind.FLOAT else -(-value.channels // 64)
        assert array.shape == (points if value.rows is Rows.POINT else 1, width)
        assert array.dtype == (np.float32 if value.kind is Kind.FLOAT else np.uint64)


def test_cloud_is_resampled_and_normalised_as_the_program_says(rng):
    program = random_program(3, points=20, normalize="unit_sphere")
    cloud = rng.normal(size=(50, 3)) * 9
    np.testing.assert_array_equal(reference.values(program, cloud)[0], prepare(cloud, 20, "unit_sphere"))


def test_steps_one_by_one_are_the_run(rng):
    program, cloud = every_op(2), rng.normal(size=(12, 3))
    found = reference.values(program, cloud)
    for index, step in enumerate(program.steps):
        alone = reference.step(program, index, [found[i] for i in step.inputs], 12)
        np.testing.assert_array_equal(alone, found[step.output])


def test_order_of_points_does_not_matter_to_max(rng):
    program = every_op(2)
    cloud = rng.normal(size=(30, 3)).astype(np.float32)
    program = replace(program, normalize="none")
    at = next(s.output for s in program.steps if s.op is Op.BINARY_MAX_BITS)
    bits = next(s for s in program.steps if s.op is Op.BINARY_MAX_BITS).inputs[0]
    found = reference.values(program, cloud)
    index = next(i for i, s in enumerate(program.steps) if s.output == at)
    shuffled = reference.step(program, index, [rng.permutation(found[bits])], 30)
    np.testing.assert_array_equal(shuffled, found[at])


@pytest.mark.parametrize("cloud", [np.zeros((0, 3)), np.zeros((4, 2)), np.full((4, 3), np.nan), "cloud"])
def test_bad_cloud_is_a_cloud_error(cloud):
    with pytest.raises(CloudError):
        reference.run(every_op(2), cloud)


@pytest.mark.parametrize("wrong", [np.zeros((12, 4), np.float32), np.zeros((11, 3), np.float32), np.zeros((12, 3))])
def test_step_refuses_inputs_of_another_shape_or_dtype(wrong):
    with pytest.raises(CloudError, match=r"value 'cloud': expected float32 \(12, 3\), found"):
        reference.step(every_op(2), 0, [wrong], 12)
