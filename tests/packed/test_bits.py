"""The bit convention, against the plainest words for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from popcloud.packed.bits import mismatches, pack, pack_minus, pack_weights, unpack, unpack_weights, words

WIDTHS = [1, 2, 63, 64, 65, 127, 128, 129, 200]
FLOATS = hnp.arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 130)), elements=st.floats(width=32))


def slow_pack(x, threshold):
    """Bit by bit, in Python integers."""
    packed = np.zeros((x.shape[0], -(-x.shape[1] // 64)), np.uint64)
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            if x[r, c] < threshold[c]:
                packed[r, c // 64] |= np.uint64(1 << c % 64)
    return packed


@given(FLOATS, st.floats(-1, 1, width=32))
def test_pack_is_one_bit_per_sign_lowest_first(x, threshold):
    thresholds = np.full(x.shape[1], threshold, np.float32)
    packed = pack(x, thresholds)
    assert packed.dtype == np.uint64
    np.testing.assert_array_equal(packed, slow_pack(x, thresholds))


@given(FLOATS)
def test_unpack_gives_the_signs_and_zero_and_nan_are_plus(x):
    expected = np.where(x < 0, -1, 1)
    np.testing.assert_array_equal(unpack(pack(x), x.shape[1]), expected)


@given(FLOATS)
def test_tail_bits_are_zero(x):
    tail = x.shape[1] % 64
    if tail:
        assert not (pack(x)[:, -1] >> np.uint64(tail)).any()


def test_nan_and_zeros_are_plus_one():
    assert pack(np.array([[np.nan, 0.0, -0.0, -1e-45, -np.inf]], np.float32)).tolist() == [[0b11000]]


def test_threshold_is_per_channel():
    assert pack(np.array([[1.0, 1.0, 1.0]]), [0.5, 1.0, 1.5]).tolist() == [[0b100]]


def test_threshold_at_infinity_takes_all_or_none(rng):
    x = rng.normal(size=(3, 70))
    assert (unpack(pack(x, np.inf), 70) == -1).all()
    assert (unpack(pack(x, -np.inf), 70) == 1).all()


def test_pack_minus_of_booleans_is_pack_of_their_signs(rng):
    minus = rng.integers(0, 2, (4, 99)).astype(bool)
    np.testing.assert_array_equal(pack_minus(minus), pack(np.where(minus, -1, 1)))


@pytest.mark.parametrize("inputs", WIDTHS)
def test_pack_weights_lays_words_out_by_output_channel(inputs, rng):
    signs = rng.choice([-1, 1], (7, inputs))
    packed = pack_weights(signs)
    assert packed.shape == (words(inputs), 7)
    assert packed.flags.c_contiguous
    for channel in range(7):
        np.testing.assert_array_equal(packed[:, channel], pack(signs[channel : channel + 1])[0])
    np.testing.assert_array_equal(unpack_weights(packed, inputs), signs)


@pytest.mark.parametrize("inputs", WIDTHS)
def test_mismatches_give_the_product_of_signs(inputs, rng):
    x, w = rng.choice([-1, 1], (17, inputs)), rng.choice([-1, 1], (5, inputs))
    np.testing.assert_array_equal(inputs - 2 * mismatches(pack(x), pack_weights(w)), x @ w.T)


@pytest.mark.parametrize(("channels", "expected"), [(1, 1), (63, 1), (64, 1), (65, 2), (128, 2), (129, 3)])
def test_words(channels, expected):
    assert words(channels) == expected
