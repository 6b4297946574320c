"""Augmentation: identity by default, each change within its limits, the input untouched."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcloud.data.augment import JITTER_LIMIT, Augment
from popcloud.errors import RecipeError

EVERYTHING = Augment(scale=(0.8, 1.25), translate=0.1, jitter=0.01, dropout=0.5, rotate_z=True)


@pytest.fixture
def xyz(rng) -> np.ndarray:
    return rng.standard_normal((40, 64, 3)).astype(np.float32)


def test_the_defaults_change_nothing_and_draw_nothing(xyz, rng):
    state = rng.bit_generator.state
    np.testing.assert_array_equal(Augment().apply(xyz, rng), xyz)
    assert rng.bit_generator.state == state


def test_the_answer_is_a_copy_even_where_nothing_changes(xyz, rng):
    assert not np.shares_memory(Augment().apply(xyz, rng), xyz)


def test_the_input_stays_as_it_is(xyz, rng):
    before = xyz.copy()
    xyz.flags.writeable = False
    changed = EVERYTHING.apply(xyz, rng)
    np.testing.assert_array_equal(xyz, before)
    assert changed.dtype == np.float32
    assert changed.shape == xyz.shape
    assert changed.flags.c_contiguous
    assert np.isfinite(changed).all()


def test_same_generator_same_answer(xyz):
    one, two, other = (EVERYTHING.apply(xyz, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_scale_is_one_factor_per_cloud(xyz, rng):
    factor = Augment(scale=(0.5, 2.0)).apply(xyz, rng) / xyz
    np.testing.assert_allclose(factor, np.broadcast_to(factor[:, :1, :1], factor.shape), rtol=1e-5)
    assert factor.min() >= 0.5 - 1e-5
    assert factor.max() <= 2 + 1e-5
    assert np.ptp(factor[:, 0, 0]) > 0.75


def test_translation_is_one_shift_per_cloud_and_axis(xyz, rng):
    shift = Augment(translate=0.2).apply(xyz, rng) - xyz
    np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :1], shift.shape), atol=1e-6)
    assert np.abs(shift).max() <= 0.2 + 1e-6
    assert (shift[:, 0].std(axis=0) > 0.05).all()


def test_jitter_has_its_deviation_and_its_limit(xyz, rng):
    shift = Augment(jitter=0.05).apply(np.repeat(xyz, 20, axis=0), rng) - np.repeat(xyz, 20, axis=0)
    assert shift.std() == pytest.approx(0.05, rel=0.02)
    assert np.abs(shift).max() <= JITTER_LIMIT * 0.05 + 1e-6


def test_dropout_copies_the_first_point(xyz, rng):
    changed = Augment(dropout=0.6).apply(xyz, rng)
    lost = (changed != xyz).any(axis=2)
    np.testing.assert_array_equal(changed[lost], np.broadcast_to(xyz[:, :1], xyz.shape)[lost])
    share = lost.mean(axis=1)
    assert share.mean() == pytest.approx(0.3, abs=0.08)  # uniform from 0 to 0.6
    assert share.std() > 0.1


def test_rotation_keeps_height_and_distance(xyz, rng):
    changed = Augment(rotate_z=True).apply(xyz, rng)
    np.testing.assert_allclose(changed[..., 2], xyz[..., 2], rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(changed, axis=2), np.linalg.norm(xyz, axis=2), rtol=1e-5)
    turn = angles(changed, xyz)
    np.testing.assert_allclose(turn, np.broadcast_to(turn[:, :1], turn.shape), atol=1e-4)
    assert np.histogram(np.angle(turn[:, 0]), bins=2, range=(-np.pi, np.pi))[0].min() > 5


def test_rotation_in_degrees_is_limited(xyz, rng):
    turn = np.degrees(np.angle(angles(Augment(rotate_z=15).apply(xyz, rng), xyz)))
    assert np.abs(turn).max() <= 15.01
    assert np.abs(turn).max() > 10


def angles(changed: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """The turn of every point about z, as a complex number of length 1."""
    turn = (changed[..., 0] + 1j * changed[..., 1]) / (xyz[..., 0] + 1j * xyz[..., 1])
    return turn / np.abs(turn)


@given(st.floats(0.1, 1), st.floats(0, 0.5), st.floats(0, 1))
def test_dropped_points_stay_dropped_copies_after_all_other_changes(low, shift, dropout):
    xyz = np.random.default_rng(3).standard_normal((3, 16, 3)).astype(np.float32)
    augment = Augment(scale=(low, 1.0), translate=shift, dropout=dropout)
    changed = augment.apply(xyz, np.random.default_rng(4))
    unchanged = Augment(scale=(low, 1.0), translate=shift).apply(xyz, np.random.default_rng(4))
    for cloud, whole in zip(changed, unchanged, strict=True):
        assert {row.tobytes() for row in cloud} <= {row.tobytes() for row in whole}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"scale": (1.2, 0.8)}, "augment.scale"),
        ({"scale": (0.0, 1.0)}, "augment.scale"),
        ({"scale": (1.0,)}, "augment.scale"),
        ({"scale": (1.0, float("inf"))}, "augment.scale"),
        ({"translate": -0.1}, "augment.translate"),
        ({"jitter": float("nan")}, "augment.jitter"),
        ({"jitter": float("inf")}, "augment.jitter"),
        ({"dropout": 1.1}, "augment.dropout"),
        ({"rotate_z": -1}, "augment.rotate_z"),
        ({"rotate_z": 181}, "augment.rotate_z"),
    ],
)
def test_values_out_of_range_are_refused(arguments, says):
    with pytest.raises(RecipeError, match=says) as caught:
        Augment(**arguments)
    assert "found" in str(caught.value)
