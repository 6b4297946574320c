"""Clouds that a search may stumble over, for tests of neighbours: name -> points (N, 3) float32."""

from __future__ import annotations

from itertools import product

import numpy as np

RNG = np.random.default_rng(5)


def _lattice(edge: int) -> np.ndarray:
    """Points on a grid, where most distances are shared by many, in no order."""
    return RNG.permutation(np.array(list(product(range(edge), repeat=3)), np.float64))


def _clusters() -> np.ndarray:
    """Dense clusters far from each other, and one point by itself."""
    return np.concatenate([RNG.normal(middle, 1e-3, (90, 3)) for middle in (-50, 0, 1, 400)] + [[[1e4, 0, 0]]])


CLOUDS: dict[str, np.ndarray] = {
    name: np.ascontiguousarray(points, np.float32)
    for name, points in {
        "normal": RNG.normal(size=(700, 3)),
        "sphere": (lambda x: x / np.linalg.norm(x, axis=1, keepdims=True))(RNG.normal(size=(1100, 3))),
        "lattice": _lattice(9),
        "clusters": _clusters(),
        "duplicates": np.repeat(RNG.normal(size=(40, 3)), 9, axis=0)[RNG.permutation(360)],
        "all in one place": np.full((150, 3), 0.1),
        "one point": [[1.0, 2.0, 3.0]],
        "three points": [[0, 0, 0], [1, 0, 0], [0.5, 0, 0]],
        "a line": np.outer(RNG.permutation(300), [0.5, 0.25, -1]),
        "far from the origin": 1e5 + RNG.normal(size=(400, 3)),
        "huge": RNG.normal(size=(130, 3)) * 1e20,
        "tiny": RNG.normal(size=(260, 3)) * 1e-22,
    }.items()
}
