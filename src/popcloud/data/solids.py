"""The made-up solids: for each class, a way to draw bodies of random proportions.

Each maker takes a generator and a count B and gives a Mesh of B bodies, of about unit size, upright along z. The ranges
of the proportions are such that no two classes meet: a plate is never as thick as a cube, a tube has a wide hole.
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


def _corner(x: Floats, y: Floats, z: Floats | float) -> Floats:
    """Return (B, 3)."""
    return np.stack([x, y, np.broadcast_to(z, x.shape)], axis=1)


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
    """A slim round column with flat ends."""
    radius = _uniform(rng, 0.3, 0.42, count)
    return revolve(_profile((0, -0.8), (radius, -0.8), (radius, 0.8), (0, 0.8), count=count))


def tube(rng: np.random.Generator, count: int) -> Mesh:
    """A pipe: a short wide column, open along its axis."""
    outer = _uniform(rng, 0.65, 0.8, count)
    inner = outer * _uniform(rng, 0.75, 0.85, count)
    rows = ((outer, -0.5), (outer, 0.5), (inner, 0.5), (inner, -0.5), (outer, -0.5))
    return revolve(_profile(*rows, count=count))


def cone(rng: np.random.Generator, count: int) -> Mesh:
    """A round base and a tip."""
    radius = _uniform(rng, 0.55, 0.8, count)
    return revolve(_profile((0, -0.7), (radius, -0.7), (0, 0.8), count=count))


def hourglass(rng: np.random.Generator, count: int) -> Mesh:
    """Two cones, tip to tip, with a narrow neck."""
    radius, neck = _uniform(rng, 0.5, 0.7, count), _uniform(rng, 0.06, 0.12, count)
    return revolve(_profile((0, -0.8), (radius, -0.8), (neck, 0), (radius, 0.8), (0, 0.8), count=count))


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


def arch(rng: np.random.Generator, count: int) -> Mesh:
    """Two posts under a beam."""
    width, height, deep = (rng.uniform(*span, count) for span in ((0.7, 0.9), (1.0, 1.4), (0.2, 0.35)))
    post = _uniform(rng, 0.25, 0.35, count)
    beam = box(_corner(-width, -deep, height), _corner(width, deep, height + post))
    left = box(_corner(-width, -deep, 0), _corner(post - width, deep, height))
    right = box(_corner(width - post, -deep, 0), _corner(width, deep, height))
    return union(beam, left, right)


def table(rng: np.random.Generator, count: int) -> Mesh:
    """A board on four legs at its corners."""
    half_x, half_y, height = (rng.uniform(*span, count) for span in ((0.6, 0.9), (0.6, 0.9), (0.7, 1.1)))
    leg, board = _uniform(rng, 0.12, 0.2, count), _uniform(rng, 0.08, 0.14, count)
    parts = [box(_corner(-half_x, -half_y, height), _corner(half_x, half_y, height + board))]
    for x in (-half_x, half_x - leg):
        parts += [box(_corner(x, y, 0), _corner(x + leg, y + leg, height)) for y in (-half_y, half_y - leg)]
    return union(*parts)


SOLIDS: dict[str, Callable[[np.random.Generator, int], Mesh]] = {
    "sphere": sphere,
    "cube": cube,
    "plate": plate,
    "cylinder": cylinder,
    "tube": tube,
    "cone": cone,
    "hourglass": hourglass,
    "torus": torus,
    "bowl": bowl,
    "helix": helix,
    "cross": cross,
    "l_beam": l_beam,
    "arch": arch,
    "table": table,
}
