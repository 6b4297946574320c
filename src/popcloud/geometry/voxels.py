"""Points to active sites, and what the points of a site have in common.

The canonical order of sites is the Morton order (Z order) of their coordinates, x the highest of three interleaved
bits. In it the eight children of a parent lie side by side, and parents keep the order of their children.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import IGNORE, Floats, check_xyz
from popcloud.errors import CloudError

Ints = NDArray[np.int32]

MAX_SITES = 1 << 22
SPAN_BITS = 20  # a cloud spans at most 2^20 sites along an axis
FARTHEST = 1 << 30  # the largest distance of a site from zero: neighbours and blocks still fit int32
FEWEST = 8  # a cloud around zero has sites in eight octants, whatever the edge


@dataclass(frozen=True)
class Voxels:
    """The active sites of one cloud.

    sites          (S, 3) int32, unique, in canonical order: floor(xyz / edge), not moved by the cloud's minimum
    point_to_site  (N,) int32: the row of each point's site
    edge           of a site, metres
    """

    sites: Ints
    point_to_site: Ints
    edge: float


def voxelize(xyz: object, edge: float, *, max_sites: int = MAX_SITES) -> Voxels:
    """Return the sites of a cloud (N, 3), cubes of `edge` metres; floor and quotient in float64.

    Raises CloudError for a cloud that is empty or not finite, an edge that is no positive number, and an edge too small
    for the cloud: more than `max_sites` sites, a span over 2^20 sites, or a site farther than 2^30 from zero. The last
    three say an edge that fits.
    """
    points = check_xyz(xyz)
    if not (edge > 0 and math.isfinite(edge)):
        raise CloudError(f"voxel edge {edge}: expected a positive number of metres")
    if max_sites < FEWEST:
        raise CloudError(f"max_sites {max_sites}: expected at least {FEWEST}, which a cloud around zero needs")
    fault = _out_of_grid(points, edge)
    if not fault:
        grid = _grid(points, edge)
        keys, inverse = np.unique(morton(grid), return_inverse=True)
        if len(keys) <= max_sites:
            a_point = np.empty(len(keys), np.int64)
            a_point[inverse] = np.arange(len(points))
            return Voxels(grid[a_point].astype(np.int32), inverse.astype(np.int32), float(edge))
        fault = f"gives {len(keys)} sites, at most {max_sites} are allowed"
    raise CloudError(f"voxel edge {edge:g} m {fault}; an edge of {_fitting_edge(points, edge, max_sites)} m fits")


def morton(grid: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the keys (S,) of sites (S, 3): sorted keys are canonical order, the parent's key is key >> 3.

    The keys count from the last multiple of 2^20 at or before the sites on each axis. So they compare within one call;
    the order they give does not depend on which other sites are there.
    """
    columns = grid.astype(np.int64, copy=False).T
    x, y, z = (_spread(column - (column.min() >> SPAN_BITS << SPAN_BITS)) for column in columns)
    return x << 2 | y << 1 | z


def _spread(bits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 21-bit numbers with two zeros before each bit (the usual masks of Morton codes)."""
    for shift, mask in (
        (32, 0x1F00000000FFFF),
        (16, 0x1F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ):
        bits = (bits | bits << shift) & mask
    return bits


def _grid(points: Floats, edge: float) -> NDArray[np.int64]:
    return np.floor(points.astype(np.float64) / edge).astype(np.int64)


def _out_of_grid(points: Floats, edge: float) -> str:
    """Return what is wrong with the range of sites, or ""."""
    with np.errstate(over="ignore"):
        low, high = np.floor(_ends(points) / edge)
    farthest = max(-low.min(), high.max())
    if farthest > FARTHEST:
        return f"puts a point {farthest:.3g} sites from zero, at most {FARTHEST} are allowed"
    span = (high - low).max() + 1
    if span > 1 << SPAN_BITS:
        return f"spreads the cloud over {span:.0f} sites along an axis, at most {1 << SPAN_BITS} are allowed"
    return ""


def _ends(points: Floats) -> NDArray[np.float64]:
    """Return the least and the greatest coordinate of each axis, (2, 3)."""
    return np.array([[column.min() for column in points.T], [column.max() for column in points.T]], np.float64)


def _fitting_edge(points: Floats, edge: float, max_sites: int) -> str:
    """Return an edge of two digits that fits, about the smallest above `edge`. It is tried out, not estimated."""
    low, high = _ends(points)
    edge = max(edge, np.abs([low, high]).max() / FARTHEST, (high - low).max() / (1 << SPAN_BITS))
    while True:
        text = _round_up(edge)
        edge, ratio = float(text), 0.0
        if not _out_of_grid(points, edge):
            ratio = len(np.unique(morton(_grid(points, edge)))) / max_sites
            if ratio <= 1:
                return text
        edge *= max(ratio ** (1 / 3), 1.02)  # sites fall with the edge's cube at most


def _round_up(edge: float) -> str:
    """Return the smallest decimal number of two digits that is not below `edge`."""
    unit = 10.0 ** (math.floor(math.log10(edge)) - 1)
    return f"{float(f'{math.ceil(edge / unit) * unit:.2g}'):g}"


def mean_features(voxels: Voxels, features: NDArray[np.floating]) -> Floats:
    """Return the mean of the features (N, F) of each site's points, (S, F) float32; sums in float64, in point order.

    Raises CloudError for another shape and for numbers that are not finite.
    """
    points, sites = len(voxels.point_to_site), len(voxels.sites)
    if features.ndim != 2 or len(features) != points:
        raise CloudError(f"features: expected shape ({points}, F), one row a point, found {features.shape}")
    check_finite(features)
    counts = np.bincount(voxels.point_to_site, minlength=sites)
    means = np.empty((sites, features.shape[1]), np.float32)
    for column, values in enumerate(features.T):
        means[:, column] = np.bincount(voxels.point_to_site, values, sites) / counts
    return means


def check_finite(features: NDArray[np.floating]) -> None:
    """Raise CloudError if some of the features (N, F) are not finite."""
    if not np.isfinite(features).all():
        bad = int((~np.isfinite(features)).any(axis=1).sum())
        raise CloudError(
            f"features: {bad} of {len(features)} points have some that are not finite; set those or drop the points"
        )


def majority_labels(voxels: Voxels, labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return the most frequent label of each site's points, (S,) int64, of labels (N,) in 0 .. classes - 1 or IGNORE.

    The lowest of equally frequent classes wins; points with IGNORE have no vote; a site without votes gets IGNORE.
    Raises CloudError for another shape and for a label outside the classes.
    """
    if labels.shape != voxels.point_to_site.shape:
        raise CloudError(f"labels: expected shape {voxels.point_to_site.shape}, one a point, found {labels.shape}")
    strange = labels[(labels != IGNORE) & ((labels < 0) | (labels >= classes))]
    if len(strange):
        raise CloudError(f"label {strange[0]}: expected 0 to {classes - 1}, or {IGNORE} for none")
    winner = np.full(len(voxels.sites), IGNORE, np.int64)
    most = np.zeros(len(voxels.sites), np.int64)
    for label in range(classes):
        votes = np.bincount(voxels.point_to_site[labels == label], minlength=len(winner))
        winner[votes > most] = label
        np.maximum(most, votes, out=most)
    return winner
