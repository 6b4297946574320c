"""Geometry by the compiled engine: equal to the numpy functions of the same names, element for element."""

from __future__ import annotations

from itertools import product

import numpy as np

from popcloud import native
from popcloud.cloud import Floats, check_xyz
from popcloud.errors import RecipeError
from popcloud.geometry.kernel_map import SIZES, Ints, KernelMap
from popcloud.geometry.neighbors import (
    Rows,
    Words,
    check_ball,
    check_bandwidth,
    check_count,
    check_features,
    check_nearest,
)
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


def farthest_points(xyz: object, count: int, threads: int = 1) -> Rows:
    """Return `count` rows (count,) of a cloud (N, 3), or (B, count) of clouds (B, N, 3), as `neighbors` does.

    Threads share clouds; one cloud is for one of them.
    """
    points = _clouds(xyz, "cloud")
    check_count(points.shape[-2], count)
    rows: Rows = native.engine().farthest_points(points, count, threads)
    return rows


def nearest(queries: object, points: object, k: int, dilation: int = 1, threads: int = 1) -> Rows:
    """Return the rows (Q, k) of the points (P, 3) nearest to each query (Q, 3), as `neighbors.nearest`.

    Of clouds (B, Q, 3) and (B, P, 3): (B, Q, k).
    """
    asked, among = _clouds(queries, "queries"), _clouds(points, "points")
    check_nearest(among.shape[-2], k, dilation)
    rows: Rows = native.engine().nearest(asked, among, k, dilation, threads)
    return rows


def nearest_features(queries: Floats, points: Floats, k: int, dilation: int = 1, threads: int = 1) -> Rows:
    """Return the rows (Q, k) of the points (P, C) nearest to each query (Q, C), as `neighbors.nearest_features`.

    Of clouds (B, Q, C) and (B, P, C): (B, Q, k).
    """
    if queries.ndim != 3:
        check_features(queries, points)
    check_nearest(points.shape[-2], k, dilation)
    asked, among = (np.ascontiguousarray(array, np.float32) for array in (queries, points))
    rows: Rows = native.engine().nearest_features(asked, among, k, dilation, threads)
    return rows


def nearest_signs(queries: Words, points: Words, k: int, dilation: int = 1, threads: int = 1) -> Rows:
    """Return the rows (Q, k) of the packed signs (P, W) nearest to each query (Q, W), as `neighbors.nearest_signs`.

    Of clouds (B, Q, W) and (B, P, W): (B, Q, k).
    """
    if queries.ndim != 3:
        check_features(queries, points)
    check_nearest(points.shape[-2], k, dilation)
    asked, among = np.ascontiguousarray(queries), np.ascontiguousarray(points)
    rows: Rows = native.engine().nearest_signs(asked, among, k, dilation, threads)
    return rows


def ball(queries: object, points: object, radius: float, k: int, threads: int = 1) -> Rows:
    """Return the first k rows (Q, k) of the points (P, 3) around each query (Q, 3), as `neighbors.ball`.

    Of clouds (B, Q, 3) and (B, P, 3): (B, Q, k).
    """
    asked, among = _clouds(queries, "queries"), _clouds(points, "points")
    rows: Rows = native.engine().ball(asked, among, float(check_ball(radius, k)), k, threads)
    return rows


def three_nearest(queries: object, points: object, threads: int = 1) -> tuple[Rows, Floats]:
    """Return the rows and weights (Q, 3) of the three nearest points, as `neighbors.three_nearest`; also of clouds."""
    asked, among = _clouds(queries, "queries"), _clouds(points, "points")
    check_nearest(among.shape[-2], 3, 1)
    rows, weights = native.engine().three_nearest(asked, among, threads)
    return rows, weights


def interpolate(features: Floats, rows: Rows, weights: Floats, threads: int = 1) -> Floats:
    """Return features (P, C) at the queries of rows and weights (Q, 3), as `neighbors.interpolate`; also of clouds."""
    values, by = (np.ascontiguousarray(array, np.float32) for array in (features, weights))
    answer: Floats = native.engine().interpolate(values, np.ascontiguousarray(rows, np.int32), by, threads)
    return answer


def density(points: object, bandwidth: float, threads: int = 1) -> Floats:
    """Return how sparse a cloud (P, 3) is at each point, (P,), as `neighbors.density`; also of clouds (B, P, 3)."""
    answer: Floats = native.engine().density(_clouds(points, "points"), float(check_bandwidth(bandwidth)), threads)
    return answer


def _clouds(xyz: object, name: str) -> Floats:
    """Return one cloud (N, 3), or clouds (B, N, 3), checked as one."""
    points = np.asarray(xyz)
    if points.ndim != 3:
        return check_xyz(xyz, name)
    return check_xyz(points.reshape(-1, points.shape[2]), name).reshape(points.shape)
