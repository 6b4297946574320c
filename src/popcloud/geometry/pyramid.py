"""All kernel maps of a network over a cloud, made once, before the network runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from popcloud import native
from popcloud.geometry import fast as engine
from popcloud.geometry import kernel_map as plain
from popcloud.geometry.kernel_map import Ints, KernelMap, stack_maps
from popcloud.geometry.voxels import Voxels


@dataclass(frozen=True)
class Level:
    """The active sites (S, 3) int32 of one level, and the map of the submanifold convolutions on them."""

    sites: Ints
    same: KernelMap


@dataclass(frozen=True)
class Pyramid:
    """The levels of a cloud, or of several stacked clouds, from fine to coarse.

    levels         the finest first; a site of level l is an edge of 2^l voxels wide
    down           (levels - 1) strided maps: down[l] leads from level l to l + 1, and transposed back
    point_to_site  (N,) int32: the row of each point in levels[0]
    """

    levels: tuple[Level, ...]
    down: tuple[KernelMap, ...]
    point_to_site: Ints


def build(voxels: Voxels, levels: int, size: int = 3, *, fast: bool | None = None) -> Pyramid:
    """Return the pyramid of `levels` levels over the voxels, with submanifold maps of `size` 3 or 5.

    fast  by the compiled engine, or in plain numpy, which gives the same; None: by the engine where there is one
    """
    by = engine if by_engine(fast) else plain
    sites, made, down = voxels.sites, [], []
    for level in range(levels):
        if level:
            sites, to_coarse = by.strided(sites)
            down.append(to_coarse)
        made.append(Level(sites, by.submanifold(sites, size)))
    return Pyramid(tuple(made), tuple(down), voxels.point_to_site)


def by_engine(fast: bool | None) -> bool:
    """Return what `fast` means here: None is whether the compiled engine is there."""
    return native.available() if fast is None else fast


def stack(pyramids: Sequence[Pyramid]) -> Pyramid:
    """Return the pyramid of a batch: rows and points of the clouds in that order; clouds never meet.

    All must have the same number of levels and the same kernel size. Sites of different clouds may be equal.
    """
    firsts = np.cumsum([0, *(len(p.levels[0].sites) for p in pyramids)])
    points = [p.point_to_site + np.int32(first) for p, first in zip(pyramids, firsts[:-1], strict=True)]
    levels = tuple(
        Level(np.concatenate([level.sites for level in row]), stack_maps([level.same for level in row]))
        for row in zip(*(p.levels for p in pyramids), strict=True)
    )
    down = tuple(stack_maps(row) for row in zip(*(p.down for p in pyramids), strict=True))
    return Pyramid(levels, down, np.concatenate(points))
