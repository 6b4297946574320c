"""Geometry by the compiled engine: equal to the numpy functions of the same names, element for element."""

from __future__ import annotations

from itertools import product

import numpy as np

from popcloud import native
from popcloud.cloud import check_xyz
from popcloud.errors import RecipeError
from popcloud.geometry.kernel_map import SIZES, Ints, KernelMap
from popcloud.geometry.voxels import MAX_SITES, Voxels


def voxelize(xyz: object, edge: float, *, max_sites: int = MAX_SITES, threads: int = 1) -> Voxels:
    """Return the sites of a cloud (N, 3), as `voxels.voxelize`, and with its errors; max_sites at most 2^25."""
    sites, point_to_site = native.engine().voxelize(check_xyz(xyz), edge, max(max_sites, 0), threads)
    return Voxels(sites, point_to_site, float(edge))


def submanifold(sites: Ints, size: int = 3, threads: int = 1) -> KernelMap:
    """Return the map of a submanifold convolution, as `kernel_map.submanifold`.

    Raises ValueError for sites that are not unique and in canonical order.
    """
    if size not in SIZES:
        raise RecipeError(f"kernel size {size}: expected one of {', '.join(map(str, SIZES))}")
    inputs, outputs, ranges = native.engine().submanifold(np.ascontiguousarray(sites), size, threads)
    offsets = np.array(list(product(range(-(size // 2), size // 2 + 1), repeat=3)), np.int8)
    return KernelMap(offsets, inputs, outputs, ranges, len(sites), len(sites), ranges[::-1].copy())


def strided(sites: Ints, threads: int = 1) -> tuple[Ints, KernelMap]:
    """Return the parents of sites, and the map of a convolution of size and stride 2, as `kernel_map.strided`."""
    coarse, inputs, outputs, ranges = native.engine().strided(np.ascontiguousarray(sites), threads)
    offsets = np.array(list(product((0, 1), repeat=3)), np.int8)
    return coarse, KernelMap(offsets, inputs, outputs, ranges, len(sites), len(coarse))
