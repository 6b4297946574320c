"""Seeing simple solids from a point: which of them a ray meets first, how far away, and at which angle.

A `Part` is a box, an ellipsoid or a round body (cylinder, cone, tube) that stands upright and is turned about z.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Triple = tuple[float, float, float]

NEAR = 1e-9  # what lies nearer, in metres, is the surface the ray starts from


@dataclass(frozen=True)
class Part:
    """One solid.

    shape   a key of SHAPES
    centre  x, y, z in metres
    size    half the edges of a box, half the axes of an ellipsoid, or bottom radius, top radius and half the height
            of a round body; all > 0, but one of the two radii may be 0
    label   the class it belongs to
    colour  red, green, blue in 0 to 1
    turn    about z through its centre, in radians
    caps    whether a round body is closed at its bottom and at its top; where it is open its inside can be seen
    """

    shape: str
    centre: Triple
    size: Triple
    label: str
    colour: Triple
    turn: float = 0.0
    caps: tuple[bool, bool] = (True, True)

    def moved(self, turn: float, shift: Triple) -> Part:
        """Return the part turned by `turn` radians about the z axis of its coordinates, then shifted."""
        c, s = math.cos(turn), math.sin(turn)
        x, y, z = self.centre
        centre = (c * x - s * y + shift[0], s * x + c * y + shift[1], z + shift[2])
        return replace(self, centre=centre, turn=self.turn + turn)

    @property
    def radius(self) -> float:
        """Return the radius of a ball about the centre that holds the part."""
        if self.shape == "ellipsoid":
            return max(self.size)
        return math.hypot(*self.size) if self.shape == "box" else math.hypot(max(self.size[:2]), self.size[2])


class Hits(NamedTuple):
    """What R rays meet: `distance` (R,) metres, inf for nothing; `part` (R,) its row, -1 for nothing; `normal` (R, 3).

    The normals have length 1 and look towards the eye; 0 where nothing is met.
    """

    distance: Doubles
    part: NDArray[np.int64]
    normal: Doubles


def cast(parts: Sequence[Part], eye: Doubles, directions: Doubles) -> Hits:
    """Return the first part that each ray from `eye` (3,) in `directions` (R, 3), of length 1, meets."""
    distance = np.full(len(directions), np.inf)
    first = np.full(len(directions), -1, dtype=np.int64)
    normal = np.zeros_like(directions)
    for row, part in enumerate(parts):
        rays = np.flatnonzero(_may_meet(part, eye, directions))
        found, facing = SHAPES[part.shape](
            part, _turned(eye - part.centre, -part.turn), _turned(directions[rays], -part.turn)
        )
        nearer = found < distance[rays]
        rays = rays[nearer]
        distance[rays], first[rays] = found[nearer], row
        normal[rays] = _turned(facing[nearer], part.turn)
    away = (normal * directions).sum(axis=1, keepdims=True) > 0
    return Hits(distance, first, np.where(away, -normal, normal))


def _may_meet(part: Part, eye: Doubles, directions: Doubles) -> NDArray[np.bool_]:
    """Return which rays meet the ball around a part: far cheaper than to ask the part itself."""
    toward = np.asarray(part.centre) - eye
    square, along = toward @ toward, directions @ toward
    near = square - part.radius**2
    return (near <= 0) | ((along > 0) & (along * along >= near))


def _turned(vectors: Doubles, angle: float) -> Doubles:
    """Return vectors (..., 3) turned about z."""
    c, s = math.cos(angle), math.sin(angle)
    return np.asarray(vectors @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]]))


# Each of the following takes a part and rays in the part's own coordinates, one origin (3,) and directions (R, 3), and
# gives the distance (R,) to the first point met in front of the origin, inf for none, and a normal there (R, 3).


def _meet_box(part: Part, origin: Doubles, directions: Doubles) -> tuple[Doubles, Doubles]:
    """The slab method (Kay and Kajiya, SIGGRAPH 1986): a ray is inside while it is between all pairs of sides."""
    safe = np.where(np.abs(directions) < NEAR, NEAR, directions)
    one, two = (-np.asarray(part.size) - origin) / safe, (np.asarray(part.size) - origin) / safe
    enter, leave = np.minimum(one, two), np.maximum(one, two).min(axis=1)
    axis = enter.argmax(axis=1)
    distance = enter.max(axis=1)
    return np.where((distance <= leave) & (distance > NEAR), distance, np.inf), np.eye(3)[axis]


def _meet_ellipsoid(part: Part, origin: Doubles, directions: Doubles) -> tuple[Doubles, Doubles]:
    """A unit ball in coordinates that are divided by the half axes; distances along the ray stay what they are."""
    size = np.asarray(part.size)
    start, along = origin / size, directions / size
    a, b, c = (along * along).sum(axis=1), along @ start, start @ start - 1
    inside = b * b - a * c
    distance = (-b - np.sqrt(np.maximum(inside, 0))) / a
    distance = np.where((inside >= 0) & (distance > NEAR), distance, np.inf)
    at = start + np.where(np.isfinite(distance), distance, 0)[:, None] * along
    return distance, _unit(at / size)


def _meet_round(part: Part, origin: Doubles, directions: Doubles) -> tuple[Doubles, Doubles]:
    """A cone frustum: x^2 + y^2 = (middle + slope z)^2 between two heights, and a disc at each end that is closed."""
    bottom, top, half = part.size
    middle, slope = (bottom + top) / 2, (top - bottom) / (2 * half)
    here, wide = directions[:, :2], middle + slope * origin[2]
    a = (here * here).sum(axis=1) - (slope * directions[:, 2]) ** 2
    b = here @ origin[:2] - slope * wide * directions[:, 2]
    root = b * b - a * (origin[:2] @ origin[:2] - wide * wide)
    a = np.where(np.abs(a) < NEAR, NEAR, a)
    spread = np.sqrt(np.maximum(root, 0))
    candidates = []
    for sign in (-1, 1):
        distance = (-b + sign * spread) / a
        z = origin[2] + distance * directions[:, 2]
        candidates.append(np.where((root >= 0) & (np.abs(z) <= half) & (distance > NEAR), distance, np.inf))
    fall = np.where(np.abs(directions[:, 2]) < NEAR, NEAR, directions[:, 2])
    for closed, height, radius in zip(part.caps, (-half, half), (bottom, top), strict=True):
        distance = (height - origin[2]) / fall
        reach = origin[:2] + distance[:, None] * here
        met = (reach * reach).sum(axis=1) <= radius * radius
        candidates.append(np.where(closed & met & (distance > NEAR), distance, np.inf))
    every = np.stack(candidates)
    distance, which = every.min(axis=0), every.argmin(axis=0)
    at = origin + np.where(np.isfinite(distance), distance, 0)[:, None] * directions
    side = np.column_stack([at[:, :2], -slope * (middle + slope * at[:, 2])])
    return distance, np.where(which[:, None] < 2, _unit(side), np.array([0.0, 0.0, 1.0]))


def _unit(vectors: Doubles) -> Doubles:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), NEAR))


SHAPES: dict[str, Callable[[Part, Doubles, Doubles], tuple[Doubles, Doubles]]] = {
    "box": _meet_box,
    "ellipsoid": _meet_ellipsoid,
    "round": _meet_round,
}
