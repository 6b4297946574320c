"""Sparse convolution of the engine: what numpy says, the same bits by every way, and no crash on wrong arguments."""

from __future__ import annotations

import numpy as np
import pytest

from popcloud import native
from popcloud.errors import EngineError

engine = native.engine()
SHAPES = [(1, 1), (3, 16), (4, 8), (16, 4), (17, 33), (130, 12)]


def kernel_map(rng, inputs, outputs, offsets):
    """Random pairs: offset 0 has none, offset 1 all rows, the others about half of them."""
    shares = [0.0, 1.0] + [0.5] * (offsets - 2)
    rows = [np.flatnonzero(rng.random(outputs) < share) for share in shares]
    ends = np.cumsum([len(r) for r in rows])
    pairs_in = rng.integers(inputs, size=ends[-1]).astype(np.int32)
    return pairs_in, np.concatenate(rows).astype(np.int32), np.stack([np.append(0, ends[:-1]), ends], axis=1)


def floats(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def columns(array, before, after):
    """The same numbers as columns of a wider matrix."""
    wide = np.full((len(array), before + array.shape[1] + after), 7, np.float32)
    wide[:, before : before + array.shape[1]] = array
    return wide, wide[:, before : before + array.shape[1]]


def case(rng, inputs, channels, rows=700, offsets=5):
    x, weight, y = floats(rng, 500, inputs), floats(rng, offsets, inputs, channels), floats(rng, rows, channels)
    return x, weight, kernel_map(rng, 500, rows, offsets), y


@pytest.mark.parametrize(("inputs", "channels"), SHAPES)
def test_convolution_is_numpy_s_and_every_way_gives_the_same_bits(inputs, channels, rng):
    x, weight, (i, o, ranges), start = case(rng, inputs, channels)
    want = start.astype(np.float64)
    for (begin, end), w in zip(ranges, weight, strict=True):
        want[o[begin:end]] += x[i[begin:end]].astype(np.float64) @ w
    first = start.copy()
    engine.sparse_conv(x, weight, i, o, ranges, first)
    np.testing.assert_allclose(first, want, rtol=1e-4, atol=1e-4)
    for kernels in engine.available():
        for threads in (1, 2, 3):
            _, inner = columns(x, 1, 2)
            wide, y = columns(start, 3, 1)
            engine.sparse_conv(inner, weight, i, o, ranges, y, threads, kernels)
            assert y.tobytes() == first.tobytes()
            assert (wide[:, :3] == 7).all()
            assert (wide[:, -1] == 7).all()


@pytest.mark.parametrize(("inputs", "channels"), SHAPES)
def test_weight_gradient_is_numpy_s_and_every_way_gives_the_same_bits(inputs, channels, rng):
    x, start, (i, o, ranges), dy = case(rng, inputs, channels)
    want = start.astype(np.float64)
    for (begin, end), w in zip(ranges, want, strict=True):
        w += x[i[begin:end]].T.astype(np.float64) @ dy[o[begin:end]]
    first = start.copy()
    engine.sparse_conv_weight_grad(x, dy, i, o, ranges, first)
    np.testing.assert_allclose(first, want, rtol=1e-4, atol=1e-3)
    for kernels in engine.available():
        for threads in (1, 2, 3):
            dw = start.copy()
            inner, slopes = columns(x, 1, 2)[1], columns(dy, 2, 0)[1]
            engine.sparse_conv_weight_grad(inner, slopes, i, o, ranges, dw, threads, kernels)
            assert dw.tobytes() == first.tobytes()


def test_gradients_are_the_adjoint(rng):
    """<dy, conv(x)> = <dx, x> = <dw, weight>, where dx is the convolution back with transposed weights."""
    x, weight, (i, o, ranges), dy = case(rng, 6, 9)
    y, dw, dx = np.zeros_like(dy), np.zeros_like(weight), np.zeros_like(x)
    engine.sparse_conv(x, weight, i, o, ranges, y)
    engine.sparse_conv_weight_grad(x, dy, i, o, ranges, dw)
    for (begin, end), w in zip(ranges, weight, strict=True):  # an input row may occur twice: pair by pair
        for p in range(begin, end):
            one = np.array([[0, 1]])
            engine.sparse_conv(dy, w.T.copy()[None], o[p : p + 1], i[p : p + 1], one, dx)
    inner = np.vdot(dy, y)
    np.testing.assert_allclose([np.vdot(dx, x), np.vdot(dw, weight)], [inner, inner], rtol=1e-3)


def test_no_rows_no_offsets_no_channels(rng):
    none, ranges = np.zeros(0, np.int32), np.zeros((2, 2), np.int64)
    y = floats(rng, 0, 4)
    engine.sparse_conv(floats(rng, 0, 3), floats(rng, 2, 3, 4), none, none, ranges, y, 2)
    y = floats(rng, 5, 4)
    before = y.copy()
    engine.sparse_conv(floats(rng, 0, 3), floats(rng, 0, 3, 4), none, none, ranges[:0], y, 2)
    one = np.zeros(1, np.int32)
    engine.sparse_conv(floats(rng, 5, 0), floats(rng, 1, 0, 4), one, one, np.array([[0, 1]]), y, 2)
    engine.sparse_conv_weight_grad(floats(rng, 5, 0), y, one, one, np.array([[0, 1]]), floats(rng, 1, 0, 4), 2)
    assert y.tobytes() == before.tobytes()


@pytest.mark.parametrize("bad", [-1, 500, 700, 2**31 - 1, -(2**31)])
def test_rows_that_are_not_there_are_refused(bad, rng):
    x, weight, (i, o, ranges), y = case(rng, 3, 4)
    dw = np.zeros_like(weight)
    for at in (0, len(i) // 2, len(i) - 1):
        wrong = i.copy()
        wrong[at] = bad
        with pytest.raises(EngineError, match=r"an input row of offset \d is not one of 500"):
            engine.sparse_conv(x, weight, wrong, o, ranges, y)
        with pytest.raises(EngineError, match=r"an input row of offset \d is not one of 500"):
            engine.sparse_conv_weight_grad(x, y, wrong, o, ranges, dw)
        wrong = o.copy()
        wrong[at] = bad
        with pytest.raises(EngineError, match=r"output rows of offset \d must ascend within the 700"):
            engine.sparse_conv(x, weight, i, wrong, ranges, y)


def test_outputs_that_do_not_ascend_are_refused(rng):
    x, weight, (i, o, ranges), y = case(rng, 3, 4)
    wrong = o.copy()
    wrong[1] = wrong[0]
    with pytest.raises(EngineError, match=r"offset 1 must ascend within the 700.*sort"):
        engine.sparse_conv(x, weight, i, wrong, ranges, y)


@pytest.mark.parametrize("wrong", [(-1, 5), (5, 4), (0, 10**6), (-(2**63), 2**63 - 1)])
def test_ranges_outside_the_pairs_are_refused(wrong, rng):
    x, weight, (i, o, ranges), y = case(rng, 3, 4)
    ranges[2] = wrong
    with pytest.raises(EngineError, match="range 2 is"):
        engine.sparse_conv(x, weight, i, o, ranges, y)


def test_shapes_that_do_not_fit_are_refused(rng):
    x, weight, (i, o, ranges), y = case(rng, 3, 4)
    with pytest.raises(EngineError, match=r"weight must be \(5, 3, 4\), found \(5, 4, 4\)"):
        engine.sparse_conv(x, floats(rng, 5, 4, 4), i, o, ranges, y)
    with pytest.raises(EngineError, match=r"dw must be \(5, 3, 4\), found \(5, 3, 3\)"):
        engine.sparse_conv_weight_grad(x, y, i, o, ranges, floats(rng, 5, 3, 3))
    with pytest.raises(EngineError, match=r"ranges must be \(5, 2\).*found \(4, 2\)"):
        engine.sparse_conv(x, weight, i, o, ranges[:4], y)
    with pytest.raises(EngineError, match=r"inputs and .* outputs"):
        engine.sparse_conv(x, weight, i[1:], o, ranges, y)
    with pytest.raises(EngineError, match="y must have its columns side by side"):
        engine.sparse_conv(x, weight, i, o, ranges, floats(rng, 4, 700).T)
    with pytest.raises(EngineError, match="rows that overlap or run backwards"):
        engine.sparse_conv(x[::-1], weight, i, o, ranges, y)
    with pytest.raises(EngineError, match="threads must be 1 to 1024, found 0"):
        engine.sparse_conv(x, weight, i, o, ranges, y, 0)
    with pytest.raises(TypeError, match="incompatible"):
        engine.sparse_conv(x.astype(np.float64), weight, i, o, ranges, y)
