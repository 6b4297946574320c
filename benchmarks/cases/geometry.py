"""All kernel maps of a 7-level U-Net over a room of some 190,000 sites, by numpy and by the engine: one goal.

A map's mirror symmetry is checked first: of submanifold maps pair i -> j under an offset is j -> i under its opposite;
and that numpy and the engine make the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cases.sparse import EDGES, room
from harness import goal, interleave, report
from popcloud.geometry import fast, pyramid
from popcloud.geometry.kernel_map import KernelMap
from popcloud.geometry.voxels import Voxels, voxelize

CELLS, LEVELS = "200k", 7
GOAL = 1.5  # seconds, in numpy on one core


def run() -> dict[str, Any]:
    """Return the report: milliseconds from sites to all maps, with 3^3 and with the 5^3 that shifted layers need."""
    xyz = room(EDGES[CELLS])
    voxels = voxelize(xyz, EDGES[CELLS])
    made, twin = (pyramid.build(voxels, LEVELS, 5, fast=by) for by in (False, True))
    assert all(mirrored(level.same) for level in made.levels)
    assert all(np.array_equal(a.same.inputs, b.same.inputs) for a, b in zip(made.levels, twin.levels, strict=True))
    assert np.array_equal(fast.voxelize(xyz, EDGES[CELLS]).point_to_site, voxels.point_to_site)
    calls: dict[str, Callable[[], object]] = {
        "voxelize": lambda: voxelize(xyz, EDGES[CELLS]),
        "maps 3^3": lambda: pyramid.build(voxels, LEVELS, 3, fast=False),
        "maps 5^3": lambda: pyramid.build(voxels, LEVELS, 5, fast=False),
    }
    for threads in (1, 2):
        calls |= by_engine(xyz, voxels, threads)
    times = interleave(calls, seconds=6.0, least=5)
    measured = {
        "points": len(xyz),
        "sites": len(voxels.sites),
        "pairs": {name: pairs(size, voxels) for name, size in (("maps 3^3", 3), ("maps 5^3", 5))},
        "median_ms": {name: round(time.median, 1) for name, time in times.items()},
    }
    seconds = (times["voxelize"].median + times["maps 3^3"].median) / 1e3
    return report("geometry", measured, [goal("seconds to voxels and all 3^3 maps", seconds, GOAL, at_least=False)])


def by_engine(xyz: Any, voxels: Voxels, threads: int) -> dict[str, Callable[[], object]]:
    """Return the same calls by the engine, with so many threads."""

    def maps(size: int) -> None:
        sites = voxels.sites
        for level in range(LEVELS):
            if level:
                sites, _ = fast.strided(sites, threads)
            fast.submanifold(sites, size, threads)

    name = f"engine, {threads} thread" + "s" * (threads > 1)
    return {
        f"voxelize ({name})": lambda: fast.voxelize(xyz, EDGES[CELLS], threads=threads),
        f"maps 3^3 ({name})": lambda: maps(3),
        f"maps 5^3 ({name})": lambda: maps(5),
    }


def pairs(size: int, voxels: Any) -> int:
    """Return the pairs of all submanifold maps."""
    return sum(len(level.same.inputs) for level in pyramid.build(voxels, LEVELS, size, fast=True).levels)


def mirrored(same: KernelMap) -> bool:
    """Return whether each offset's pairs are those of the opposite offset, the other way round."""
    parts = [(same.inputs[begin:end], same.outputs[begin:end]) for begin, end in same.ranges]
    opposite = [(outputs, inputs) for inputs, outputs in reversed(parts)]
    return all(
        np.array_equal(np.sort(a[0].astype(np.int64) << 32 | a[1]), np.sort(b[0].astype(np.int64) << 32 | b[1]))
        for a, b in zip(parts, opposite, strict=True)
    )
