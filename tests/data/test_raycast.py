"""Rays against solids whose first point is known, and against a slow march that asks only what lies inside."""

from __future__ import annotations

import math

import numpy as np
import pytest

from popcloud.data.raycast import SHAPES, Part, cast

ROUND = {"label": "bin", "colour": (0.5, 0.5, 0.5)}
BOX = Part("box", (4, 0, 0), (1, 2, 0.5), "box", (1, 0, 0))
BALL = Part("ellipsoid", (8, 0, 0), (2, 2, 2), "ball", (0, 1, 0))
EYE = np.zeros(3)
AHEAD = np.array([[1.0, 0, 0]])


def toward(*points) -> np.ndarray:
    vectors = np.array(points, dtype=float)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def inside(part: Part, points: np.ndarray) -> np.ndarray:
    """Whether points (N, 3) lie inside a closed part: the definition of each shape, nothing of the ray."""
    c, s = math.cos(part.turn), math.sin(part.turn)
    x, y, z = (points - part.centre).T
    x, y = c * x + s * y, c * y - s * x
    a, b, h = part.size
    if part.shape == "box":
        return (np.abs(x) <= a) & (np.abs(y) <= b) & (np.abs(z) <= h)
    if part.shape == "ellipsoid":
        return (x / a) ** 2 + (y / b) ** 2 + (z / h) ** 2 <= 1
    return (np.hypot(x, y) <= a + (b - a) * (z + h) / (2 * h)) & (np.abs(z) <= h)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_first_point_is_where_a_march_along_the_ray_gets_inside(shape, rng):
    steps = np.arange(0, 6, 0.005)
    compared = 0
    for _ in range(20):
        part = Part(shape, tuple(rng.uniform([2, -1, -1], [4, 1, 1])), tuple(rng.uniform(0.2, 1.2, 3)), **ROUND)
        part = part.moved(rng.uniform(-0.3, 0.3), (0, 0, 0))
        directions = toward(*(rng.standard_normal((60, 3)) * 0.25 + [1, 0, 0]))
        hits = cast([part], EYE, directions)
        marched = inside(part, (directions[:, None] * steps[None, :, None]).reshape(-1, 3)).reshape(60, -1)
        met = marched.any(axis=1)
        # A march misses what is thinner than its step: it may know less, never more.
        assert np.isfinite(hits.distance[met]).all()
        np.testing.assert_allclose(hits.distance[met], steps[marched[met].argmax(axis=1)], atol=0.0051)
        assert np.isfinite(hits.distance[~met]).sum() <= 4
        compared += met.sum()
    assert compared > 100


def test_the_nearest_part_hides_what_is_behind_it():
    hits = cast([BALL, BOX], EYE, toward((1, 0, 0), (8, 0, 1.5), (-1, 0, 0)))
    np.testing.assert_array_equal(hits.part, [1, 0, -1])
    assert hits.distance[0] == pytest.approx(3)
    assert np.isinf(hits.distance[2])
    assert cast([BALL], EYE, AHEAD).distance[0] == pytest.approx(6)


def test_normals_have_length_one_and_look_at_the_eye(rng):
    parts = [BOX, BALL, Part("round", (0, 3, 0), (0.5, 1, 1), **ROUND), Part("round", (0, -3, -2), (1, 1, 1), **ROUND)]
    directions = toward(*rng.standard_normal((800, 3)))
    hits = cast(parts, EYE, directions)
    met = hits.part >= 0
    assert set(hits.part) == {-1, 0, 1, 2, 3}
    np.testing.assert_allclose(np.linalg.norm(hits.normal[met], axis=1), 1)
    assert ((hits.normal * directions).sum(axis=1)[met] < 0).all()
    np.testing.assert_array_equal(hits.normal[~met], 0)


def test_normals_by_hand():
    cone = Part("round", (3, 0, 0), (1, 0, 1), **ROUND)  # from radius 1 at z = -1 to a tip at z = 1
    slope = np.array([-2, 0, 1]) / math.sqrt(5)
    np.testing.assert_allclose(cast([BOX], EYE, AHEAD).normal, [[-1, 0, 0]])
    np.testing.assert_allclose(cast([BALL], EYE, AHEAD).normal, [[-1, 0, 0]])
    np.testing.assert_allclose(cast([cone], EYE, AHEAD).normal, [slope])
    np.testing.assert_allclose(
        cast([cone], np.array([3, 0.1, 5.0]), np.array([[0, 0, -1.0]])).normal[0, 2], 1 / math.sqrt(5)
    )


def test_a_turned_box_is_met_at_its_corner():
    turned = Part("box", (0, 0, 0), (1, 1, 1), "box", (1, 0, 0)).moved(math.pi / 4, (5, 0, 0))
    assert turned.centre == (5, 0, 0)
    hits = cast([turned], np.array([0, 1e-6, 0]), AHEAD)
    assert hits.distance[0] == pytest.approx(5 - math.sqrt(2), abs=1e-5)
    np.testing.assert_allclose(hits.normal[0], [-math.sqrt(0.5), math.sqrt(0.5), 0])


def test_moving_turns_about_the_origin():
    moved = Part("box", (2, 0, 1), (1, 1, 1), "box", (1, 0, 0)).moved(math.pi / 2, (10, 0, 3))
    np.testing.assert_allclose(moved.centre, (10, 2, 4))


@pytest.mark.parametrize(("caps", "distance"), [((True, True), 1.0), ((True, False), 3.0), ((False, False), np.inf)])
def test_an_open_tube_shows_its_inside(caps, distance):
    tube = Part("round", (0, 0, 0), (1, 1, 1), **ROUND, caps=caps)
    hits = cast([tube], np.array([0.2, 0, 2.0]), np.array([[0, 0, -1.0]]))
    assert hits.distance[0] == pytest.approx(distance)
    slanted = cast([tube], np.array([0.0, 0, 2.0]), toward((0.5, 0, -1)))
    if not caps[1]:  # through the open top, onto the wall from inside: it looks back at the eye
        np.testing.assert_allclose(slanted.normal[0], [-1, 0, 0], atol=1e-12)
        assert slanted.distance[0] == pytest.approx(math.sqrt(5))


def test_what_lies_behind_is_not_met():
    for part in (BOX, BALL, Part("round", (3, 0, 0), (0.5, 1, 1), **ROUND)):
        assert np.isinf(cast([part], EYE, -AHEAD).distance[0])


def test_rays_along_the_axes_are_no_special_case():
    post = Part("round", (0, 0, 0), (0.5, 0.5, 1), **ROUND)
    assert cast([post], np.array([0, 0, 4.0]), np.array([[0, 0, -1.0]])).distance[0] == pytest.approx(3)
    assert cast([post], np.array([4.0, 0, 0]), np.array([[-1.0, 0, 0]])).distance[0] == pytest.approx(3.5)
    assert cast([BOX], np.array([4, 0, 4.0]), np.array([[0, 0, -1.0]])).distance[0] == pytest.approx(3.5)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_ball_about_a_part_holds_it(shape, rng):
    for _ in range(20):
        part = Part(shape, (0, 0, 0), tuple(rng.uniform(0.1, 2, 3)), **ROUND)
        points = rng.uniform(-2, 2, (500, 3))
        held = points[inside(part, points)]
        assert (np.linalg.norm(held, axis=1) <= part.radius + 1e-9).all()
