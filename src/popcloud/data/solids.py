"""The made-up solids: for each class, a way to draw bodies of random proportions.

Each maker takes a generator and a count B and gives a Mesh of B bodies, of about unit size, upright along z. The ranges
of the proportions are such that no two classes meet: a capsule always has a long straight part, a tube a wide hole.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from popcloud.data.mesh import Mesh, box, extrude, revolve, sweep, union

Floats = NDArray[np.floating]


def _uniform(rng: np.random.Generator, low: float, high: float, count: int) -> Floats:
    return rng.uniform(low, high, count)


def _profile(*rows: tuple[Floats | float, Floats | float], count: int) -> Floats:
    """Return (B, P, 2) from P rows of (radius, height), each a number or one per body."""
    columns = [np.stack([np.broadcast_to(value, (count,)) for value in row], axis=1) for row in rows]
    return np.stack(columns, axis=1)


def _arc(start: float, end: float, steps: int) -> Floats:
    """Return (steps, 2): points (cos, sin) of the unit circle from angle `start` to `end`, in degrees."""
    angle = np.radians(np.linspace(start, end, steps))
    return np.stack([np.cos(angle).clip(0), np.sin(angle)], axis=1)


def sphere(rng: np.random.Generator, count: int) -> Mesh:
    """A ball."""
    return revolve(np.tile(_arc(-90, 90, 17), (count, 1, 1)))


def capsule(rng: np.random.Generator, count: int) -> Mesh:
    """A cylinder between two half balls."""
    straight = _uniform(rng, 1.4, 2.2, count)[:, None]
    low, high = np.tile(_arc(-90, 0, 8), (count, 1, 1)), np.tile(_arc(0, 90, 8), (count, 1, 1))
    low[:, :, 1] -= straight
    high[:, :, 1] += straight
    return revolve(np.concatenate([low, high], axis=1) * 0.5)


def _cuboid(half: Floats) -> Mesh:
    return box(-half, half)


def cube(rng: np.random.Generator, count: int) -> Mesh:
    """A box with edges of about one length."""
    return _cuboid(rng.uniform(0.55, 0.65, (count, 3)))


def plate(rng: np.random.Generator, count: int) -> Mesh:
    """A flat box."""
    half = rng.uniform([0.6, 0.6, 0.04], [1.0, 1.0, 0.12], (count, 3))
    return _cuboid(half)


def cylinder(rng: np.random.Generator, count: int) -> Mesh:
    """A round column with flat ends."""
    radius = _uniform(rng, 0.4, 0.6, count)
    return revolve(_profile((0, -0.8), (radius, -0.8), (radius, 0.8), (0, 0.8), count=count))


def tube(rng: np.random.Generator, count: int) -> Mesh:
    """A pipe: a column with a wide hole along its axis."""
    outer = _uniform(rng, 0.5, 0.7, count)
    inner = outer * _uniform(rng, 0.65, 0.8, count)
    rows = ((outer, -0.7), (outer, 0.7), (inner, 0.7), (inner, -0.7), (outer, -0.7))
    return revolve(_profile(*rows, count=count))


def cone(rng: np.random.Generator, count: int) -> Mesh:
    """A round base and a tip."""
    radius = _uniform(rng, 0.55, 0.8, count)
    return revolve(_profile((0, -0.7), (radius, -0.7), (0, 0.8), count=count))


def prism(rng: np.random.Generator, count: int) -> Mesh:
    """A column with three sides."""
    radius = _uniform(rng, 0.6, 0.75, count)
    return revolve(_profile((0, -0.8), (radius, -0.8), (radius, 0.8), (0, 0.8), count=count), segments=3)


def torus(rng: np.random.Generator, count: int) -> Mesh:
    """A ring."""
    thickness = _uniform(rng, 0.15, 0.28, count)[:, None, None]
    angle = np.linspace(0, 2 * np.pi, 13)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return revolve(thickness * circle + np.array([0.75, 0.0]), segments=32)


def bowl(rng: np.random.Generator, count: int) -> Mesh:
    """A hollow half ball, open at the top."""
    wall = _uniform(rng, 0.8, 0.9, count)[:, None, None]
    outer = np.tile(_arc(-90, 0, 9), (count, 1, 1))
    return revolve(np.concatenate([outer, outer[:, ::-1] * wall], axis=1))


def helix(rng: np.random.Generator, count: int) -> Mesh:
    """A spring of two to three and a half turns."""
    turns = _uniform(rng, 2.0, 3.5, count)[:, None]
    along = np.linspace(0, 1, 72)
    angle = 2 * np.pi * turns * along
    height = np.broadcast_to((along - 0.5) * 1.8, angle.shape)
    curve = np.stack([0.55 * np.cos(angle), 0.55 * np.sin(angle), height], axis=2)
    return sweep(curve, _uniform(rng, 0.08, 0.13, count))


def cross(rng: np.random.Generator, count: int) -> Mesh:
    """Three bars through one centre, one along each axis."""
    thick = _uniform(rng, 0.14, 0.22, count)
    bars = []
    for axis in range(3):
        half = np.repeat(thick[:, None], 3, axis=1)
        half[:, axis] = rng.uniform(0.85, 1.0, count)
        bars.append(_cuboid(half))
    return union(*bars)


def l_beam(rng: np.random.Generator, count: int) -> Mesh:
    """A beam with the section of an L."""
    wall = _uniform(rng, 0.15, 0.25, count)
    long = _uniform(rng, 0.8, 1.1, count)
    zero, half = np.zeros(count), 0.8 * np.ones(count)
    outline = [(wall, wall), (wall, long), (zero, long), (zero, zero), (long, zero), (long, wall)]
    return extrude(np.stack([np.stack(corner, axis=1) for corner in outline], axis=1), -half, half)


def table(rng: np.random.Generator, count: int) -> Mesh:
    """A board on four legs at its corners."""
    half = rng.uniform([0.6, 0.6], [0.9, 0.9], (count, 2))
    height, leg, board = (rng.uniform(*span, count) for span in ((0.7, 1.1), (0.12, 0.2), (0.08, 0.14)))
    top = np.concatenate([half, (height + board)[:, None]], axis=1)
    bottom = np.concatenate([-half, height[:, None]], axis=1)
    legs = []
    for x, y in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        outer = half * (x, y)
        inner = outer - leg[:, None] * (x, y)
        low = np.concatenate([np.minimum(outer, inner), np.zeros((count, 1))], axis=1)
        high = np.concatenate([np.maximum(outer, inner), height[:, None]], axis=1)
        legs.append(box(low, high))
    return union(box(bottom, top), *legs)


SOLIDS: dict[str, Callable[[np.random.Generator, int], Mesh]] = {
    "sphere": sphere,
    "capsule": capsule,
    "cube": cube,
    "plate": plate,
    "cylinder": cylinder,
    "tube": tube,
    "cone": cone,
    "prism": prism,
    "torus": torus,
    "bowl": bowl,
    "helix": helix,
    "cross": cross,
    "l_beam": l_beam,
    "table": table,
}
