"""Sites and kernel maps for tests: clouds that are awkward each in its own way, and what a map says pair by pair."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import strategies as st

from popcloud.geometry.kernel_map import KernelMap
from popcloud.geometry.voxels import morton

Pairs = list[tuple[int, int]]


def canonical(cells) -> np.ndarray:
    """Return the unique cells, (S, 3) int32 in canonical order."""
    cells = np.unique(np.asarray(cells, np.int64), axis=0)
    return cells[np.argsort(morton(cells))].astype(np.int32)


def dense(edge: int, at: int = 0) -> np.ndarray:
    """Return all sites of a cube."""
    return canonical(list(product(range(at, at + edge), repeat=3)))


def pairs(made: KernelMap, k: int) -> Pairs:
    """Return the (input, output) pairs of offset k, in the order of the map."""
    begin, end = made.ranges[k]
    return list(zip(made.inputs[begin:end].tolist(), made.outputs[begin:end].tolist(), strict=True))


def all_pairs(made: KernelMap) -> list[Pairs]:
    return [pairs(made, k) for k in range(len(made.ranges))]


def assert_same_map(one: KernelMap, two: KernelMap) -> None:
    """Hold two maps to saying the same of every offset, wherever in the arrays its pairs lie."""
    np.testing.assert_array_equal(one.offsets, two.offsets)
    assert all_pairs(one) == all_pairs(two)
    assert (one.input_sites, one.output_sites) == (two.input_sites, two.output_sites)


CLOUDS = {
    "one site": canonical([[5, -3, 0]]),
    "dense block": dense(5),
    "around zero": dense(6, -3),
    "across 2^20": dense(3, (1 << 20) - 1),
    "far below zero": dense(3, -(1 << 29)),
    "scattered": canonical(np.random.default_rng(1).integers(-500, 500, (60, 3))),
    "crowded": canonical(np.random.default_rng(2).integers(-9, 9, (900, 3))),
    "as far apart as may be": canonical([[-(1 << 19), 0, 0], [(1 << 19) - 1, 0, 0], [(1 << 19) - 2, 1, -1]]),
}
small_clouds = st.lists(st.tuples(*[st.integers(-7, 7)] * 3), min_size=1, max_size=40).map(canonical)
