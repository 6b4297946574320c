"""The exponential is right to a rounding, and the same by other means."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from popcloud.geometry import rounding
from popcloud.geometry.rounding import LARGEST, exp, sigmoid


def by_scalars(x):
    """Return e^x as the docstring says, one Python float at a time."""
    x = min(max(x, -LARGEST), LARGEST)
    n = math.floor(x * rounding.PER_LN2 + 0.5)
    r = (x - n * rounding.LN2_HIGH) - n * rounding.LN2_LOW
    p = rounding.EXP_TERMS[13]
    for k in range(12, -1, -1):
        p = p * r + rounding.EXP_TERMS[k]
    return math.ldexp(p, n)


def test_terms_are_the_series_rounded_once():
    assert [float(Fraction(1, math.factorial(k))) for k in range(14)] == list(rounding.EXP_TERMS)


def test_two_parts_make_ln_2():
    assert math.log(2) == rounding.LN2_HIGH + rounding.LN2_LOW
    assert all(Fraction(n * rounding.LN2_HIGH) == n * Fraction(rounding.LN2_HIGH) for n in range(1024))


def test_exp_is_right_to_1e15(rng):
    x = np.concatenate([rng.uniform(-LARGEST, LARGEST, 5000), rng.normal(size=5000)])
    np.testing.assert_allclose(exp(x), [math.exp(value) for value in x], rtol=1e-15)


def test_exp_is_the_same_one_number_at_a_time(rng):
    x = np.concatenate([rng.uniform(-800, 800, 1000), rng.normal(size=1000), [0.0, -0.0, 1e300, -1e300]])
    assert exp(x).tolist() == [by_scalars(value) for value in x.tolist()]


def test_sigmoid_is_right_to_a_rounding(rng):
    x = (40 * rng.normal(size=5000)).astype(np.float32)
    wanted = [1 / (1 + math.exp(-value)) for value in x.tolist()]
    np.testing.assert_allclose(sigmoid(x), np.array(wanted, np.float32), rtol=1.2e-7)


@pytest.mark.parametrize(
    ("x", "y"), [(0, 0.5), (-0.0, 0.5), (np.inf, 1), (-np.inf, 0), (-104, 0), (20, 1), (np.nan, np.nan)]
)
def test_sigmoid_at_its_ends(x, y):
    np.testing.assert_array_equal(sigmoid(np.array([x], np.float32)), np.array([y], np.float32))
