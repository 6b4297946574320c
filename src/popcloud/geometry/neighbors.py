"""Who is near whom among points: the meaning, in numpy; `fast` has the same by the engine, element for element.

Squared distances d of positions are float32: (dx dx + dy dy) + dz dz, every operation rounded. "In order" of distances:
the smaller first, of equal ones the smaller row first, NaN last. `k` neighbours with dilation D are numbers 0, D, 2 D,
... (k - 1) D in order (dilated k-NN: Li et al. 2019, DeepGCNs). Nothing here is random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import Floats, check_xyz
from popcloud.errors import CloudError, EngineError, RecipeError
from popcloud.geometry.rounding import fma

Rows = NDArray[np.int32]
Words = NDArray[np.uint64]

PAIRS = 1 << 22  # of a query and a point, at a time: what bounds the memory
NEAREST_OF_ALL = np.float32(1e-10)  # squared distances of interpolation are at least that: no division by zero


def farthest_points(xyz: object, count: int) -> Rows:
    """Return `count` rows (count,) of a cloud (N, 3): row 0, then again and again the one farthest from all before.

    Of equally far ones the first. Farthest point sampling (Eldar et al. 1997; PointNet++, Qi et al. 2017), with a
    fixed start. Raises CloudError for more rows than points.
    """
    points = check_xyz(xyz)
    check_count(len(points), count)
    rows = np.zeros(count, np.int32)
    least = np.full(len(points), np.inf, np.float32)
    for i in range(1, count):
        least = np.minimum(least, squared(points[rows[i - 1]], points))
        rows[i] = least.argmax()
    return rows


def nearest(queries: object, points: object, k: int, dilation: int = 1) -> Rows:
    """Return the rows (Q, k) of the points (P, 3) nearest to each query (Q, 3), in order.

    Raises CloudError where there are fewer points than (k - 1) dilation + 1, or any is not finite.
    """
    asked, among = check_xyz(queries, "queries"), check_xyz(points, "points")
    check_nearest(len(among), k, dilation)
    return _in_order(lambda part: squared(asked[part, None], among), len(asked), len(among), k, dilation)


def nearest_features(queries: Floats, points: Floats, k: int, dilation: int = 1) -> Rows:
    """Return the rows (Q, k) of the points (P, C) nearest to each query (Q, C) in the space of features, in order.

    The order is that of d: half of |p|^2 (from 0, takes fma(p[c], p[c], s); times 0.5), then fma(-p[c], q[c], d), c in
    order: half the squared distance but for what is the query's alone. Errors as `nearest`; features may be infinite
    or NaN.
    """
    check_features(queries, points)
    check_nearest(len(points), k, dilation)
    half = np.zeros(len(points), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # features that are not finite are nobody's mistake here
        for column in points.T:
            half = fma(column, column, half)
        half *= np.float32(0.5)
        return _in_order(lambda part: _keys(queries[part], points, half), len(queries), len(points), k, dilation)


def nearest_signs(queries: Words, points: Words, k: int, dilation: int = 1) -> Rows:
    """Return the rows (Q, k) of the packed signs (P, W) uint64 that differ least from each query (Q, W), in order.

    The distance is the number of bits that differ (Hamming). Errors as `nearest`.
    """
    check_features(queries, points)
    check_nearest(len(points), k, dilation)
    return _in_order(lambda part: _mismatches(queries[part], points), len(queries), len(points), k, dilation)


def ball(queries: object, points: object, radius: float, k: int) -> Rows:
    """Return the first k rows (Q, k) of the points (P, 3) with d <= radius radius around each query (Q, 3).

    In the order of rows, not of distances (PointNet++, Qi et al. 2017); where there are fewer, the first one again.
    radius is a float32, so is its square. Raises CloudError for a query with no point around it, and names the first.
    """
    asked, among = check_xyz(queries, "queries"), check_xyz(points, "points")
    reach = check_ball(radius, k)
    rows = np.empty((len(asked), k), np.int32)
    for part in _parts(len(asked), len(among)):
        inside = squared(asked[part, None], among) <= reach * reach
        empty = ~inside.any(axis=1)
        if empty.any():
            raise empty_ball(part.start + int(empty.argmax()), reach)
        rank = np.cumsum(inside, axis=1) - 1
        first = inside.argmax(axis=1).astype(np.int32)
        rows[part] = first[:, None]
        query, row = np.nonzero(inside & (rank < k))
        rows[part][query, rank[query, row]] = row
    return rows


def three_nearest(queries: object, points: object) -> tuple[Rows, Floats]:
    """Return the rows (Q, 3) of the three points (P, 3) nearest to each query (Q, 3), and weights (Q, 3) float32.

    v = 1 / d with d no less than 1e-10 and no more than float32 holds; a weight is v / ((v0 + v1) + v2), all rounded
    (PointNet++, Qi et al. 2017, equation 2 with p = 2). Raises CloudError for fewer than three points.
    """
    asked, among = check_xyz(queries, "queries"), check_xyz(points, "points")
    rows = nearest(asked, among, 3)
    return rows, weights_of(squared(asked[:, None], among[rows]))


def interpolate(features: Floats, rows: Rows, weights: Floats) -> Floats:
    """Return (w0 f[r0] + w1 f[r1]) + w2 f[r2], (Q, C), all rounded: of features (P, C), rows and weights (Q, 3).

    Raises EngineError for rows that features don't have, as the engine does; a negative one is none from the end.
    """
    strange = rows[(rows < 0) | (rows >= len(features))]
    if len(strange):
        raise EngineError(f"rows must be those of features, less than {len(features)}, found {strange[0]}")
    parts = weights[:, :, None] * features[rows]
    total: Floats = (parts[:, 0] + parts[:, 1]) + parts[:, 2]
    return total


def density(points: object, bandwidth: float) -> Floats:
    """Return how sparse the cloud (P, 3) is at each point, (P,): P / the sum of max(0, 1 - d / (bandwidth bandwidth)).

    The sum runs over all rows in order, in float32, all rounded: an inverse density by a triangular kernel of squared
    distances (PointConv, Wu et al. 2019, weighs by such). bandwidth is a float32, so is its square.
    """
    among = check_xyz(points, "points")
    width = check_bandwidth(bandwidth)
    total = np.zeros(len(among), np.float32)
    for point in among:
        with np.errstate(over="ignore"):  # too far for float32 is far enough
            near = np.float32(1) - squared(among, point) / (width * width)
        total += np.where(near > 0, near, np.float32(0))
    return np.float32(len(among)) / total


def squared(one: Floats, two: Floats) -> Floats:
    """Return the squared distances of positions (..., 3) float32 that broadcast, every operation rounded."""
    with np.errstate(over="ignore"):  # too far for float32 is infinitely far
        x, y, z = (one[..., axis] - two[..., axis] for axis in range(3))
        total: Floats = (x * x + y * y) + z * z
    return total


def weights_of(d: Floats) -> Floats:
    """Return the weights (Q, 3) of neighbours at squared distances d (Q, 3), as `three_nearest` says."""
    v = np.float32(1) / np.clip(d, NEAREST_OF_ALL, np.finfo(np.float32).max)
    weights: Floats = v / ((v[:, 0] + v[:, 1]) + v[:, 2])[:, None]
    return weights


def check_count(points: int, count: int) -> None:
    """Raise CloudError unless so many points can be chosen."""
    if not 1 <= count <= points:
        raise CloudError(f"{count} farthest points: expected 1 to {points}, as many as the cloud has")


def check_nearest(points: int, k: int, dilation: int) -> None:
    """Raise RecipeError for numbers that make no sense, CloudError for a cloud that is too small for them."""
    if k < 1 or dilation < 1:
        raise RecipeError(f"k nearest: expected k and dilation of at least 1, found {k} and {dilation}")
    need = (k - 1) * dilation + 1
    if points < need:
        raise CloudError(
            f"k nearest: k = {k} with dilation {dilation} needs at least {need} points, found {points}; "
            "use a smaller k or a larger cloud"
        )


def check_features(queries: NDArray[np.generic], points: NDArray[np.generic]) -> None:
    """Raise CloudError unless both are (rows, channels) with equal channels."""
    if queries.ndim != 2 or points.ndim != 2 or queries.shape[1] != points.shape[1]:
        raise CloudError(f"features: expected (Q, C) and (P, C), found {queries.shape} and {points.shape}")


def check_ball(radius: float, k: int) -> np.float32:
    """Return the radius in float32. Raises RecipeError unless it is finite, positive, and k at least 1."""
    if k < 1:
        raise RecipeError(f"ball: expected k of at least 1, found {k}")
    return _positive("ball: radius", radius)


def check_bandwidth(bandwidth: float) -> np.float32:
    """Return the bandwidth in float32. Raises RecipeError unless it is positive and its square in range."""
    return _positive("density: bandwidth", bandwidth)


def empty_ball(query: int, radius: np.float32) -> CloudError:
    """Return the error of a query that has no point around it."""
    return CloudError(f"ball: no point lies within {radius:g} of query {query}; use a larger radius")


def _positive(name: str, number: float) -> np.float32:
    with np.errstate(over="ignore", under="ignore"):
        one = np.float32(number)
        fits = one > 0 and np.isfinite(one * one) and one * one > 0
    if not fits:
        raise RecipeError(f"{name}: expected a positive number with a square that float32 holds, found {number}")
    return one


def _parts(queries: int, points: int) -> Iterator[slice]:
    """Yield slices of the queries with no more than PAIRS pairs each, if it can be."""
    step = max(1, PAIRS // max(points, 1))
    return (slice(start, min(start + step, queries)) for start in range(0, queries, step))


def _in_order(
    distances: Callable[[slice], NDArray[np.generic]], queries: int, points: int, k: int, dilation: int
) -> Rows:
    """Return numbers 0, D, ... of the rows in order, per query: a stable sort keeps equal distances in their order."""
    rows = np.empty((queries, k), np.int32)
    for part in _parts(queries, points):
        order = np.argsort(distances(part), axis=1, kind="stable")
        rows[part] = order[:, : (k - 1) * dilation + 1 : dilation]
    return rows


def _keys(queries: Floats, points: Floats, half: Floats) -> Floats:
    total = np.broadcast_to(half, (len(queries), len(half)))
    for c in range(points.shape[1]):
        total = fma(-points[:, c], queries[:, c, None], total)
    return total


def _mismatches(queries: Words, points: Words) -> NDArray[np.int64]:
    total = np.zeros((len(queries), len(points)), np.int64)
    for word in range(points.shape[1]):
        total += np.bitwise_count(queries[:, word, None] ^ points[:, word])
    return total
