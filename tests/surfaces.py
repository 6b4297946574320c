"""Clouds on surfaces and at random, and their pyramids as tensors: what tests of sparse networks run on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from popcloud.geometry.plan import GridPlan
from popcloud.geometry.pyramid import Pyramid
from popcloud.learn.maps import TensorPyramid


def scattered(rng: np.random.Generator, count: int = 150, side: int = 8) -> NDArray[np.float32]:
    """Points in different sites of a cube of side^3 sites of edge 1, some of them neighbours."""
    cells = rng.choice(side**3, count, replace=False)
    return np.stack(np.unravel_index(cells, (side,) * 3), axis=1).astype(np.float32) + np.float32(0.5)


def sphere(rng: np.random.Generator, count: int = 20_000, radius: float = 10.0) -> NDArray[np.float32]:
    """Points on a sphere."""
    xyz = rng.standard_normal((count, 3))
    return (radius * xyz / np.linalg.norm(xyz, axis=1, keepdims=True)).astype(np.float32)


def room(rng: np.random.Generator, count: int = 20_000, side: float = 16.0) -> NDArray[np.float32]:
    """Points on a floor, two walls, and a box that stands on the floor."""
    xyz = rng.uniform(0, side, (count, 3))
    flat = np.arange(count) % 3
    xyz[np.arange(count), flat] = 0.3
    box = np.arange(count) % 4 == 0
    xyz[box] = side / 2 + (xyz[box] - 0.3) / 4
    return xyz.astype(np.float32)


def pyramid_of(xyz: NDArray[np.float32], levels: int = 3, size: int = 3, edge: float = 1.0) -> TensorPyramid:
    """The pyramid of a cloud as tensors."""
    return TensorPyramid.of(geometry_of(xyz, levels, size, edge))


def geometry_of(xyz: NDArray[np.float32], levels: int = 3, size: int = 3, edge: float = 1.0) -> Pyramid:
    """The pyramid of a cloud as geometry makes it."""
    return GridPlan(edge, levels, size).build(xyz)
