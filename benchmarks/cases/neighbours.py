"""Neighbours of points, on one thread: k nearest (20), balls of 32, farthest points; 1,024, 16,384, 131,072 points.

Every call starts from the points as an array and ends with rows: building what is searched and all queries together,
which are the points themselves. Clouds are points on a sphere and in a cube; the ball's radius holds 32 at the median.
cKDTree gets workers=1, and float64 as it wants it; pykdtree one OpenMP thread. Neither knows balls by rows: cKDTree
lists all points inside, and both find the 32 nearest within the radius, which are the same where there are no more.
PyTorch is what networks in it do: cdist and topk, distances and sort, a loop of argmax; in parts of 2^24 pairs, and not
on the largest cloud where that takes a minute. Answers are compared before the timing: distances for k nearest, rows
of all balls that no point is on the edge of, and farthest points as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import apart, goal, interleave, report
from popcloud import native

SIZES = (1024, 16384, 131072)
SAMPLES = {1024: 512, 16384: 1024, 131072: 1024}
K, IN_BALL = 20, 32
PAIRS = 1 << 24
MOST_FOR_PAIRS = 16384  # points of whom PyTorch compares all
LEAST, SECONDS = 3, 1.5

Floats = NDArray[np.float32]
Call = Callable[[Floats, float], NDArray[Any]]


def run() -> dict[str, Any]:
    """Return the report: a goal per operation and size, by the shape where it is hardest."""
    measured = apart(__file__)
    goals = []
    for operation in OPERATIONS:
        for size in SIZES:
            ratios = [_ratio(measured[f"{shape}, {size}"][operation]) for shape in SHAPES]
            goals.append(goal(f"{operation}, {size} points: times faster than the best peer", min(ratios), 1.0))
    return report("neighbours", measured, goals)


def _ratio(times: dict[str, dict[str, float]]) -> float:
    best = min(time["median_ms"] for name, time in times.items() if name != "popcloud")
    return best / times["popcloud"]["median_ms"]


def measure(sizes: tuple[int, ...] = SIZES, least: int = LEAST, seconds: float = SECONDS) -> dict[str, Any]:
    """Return the times of all by shape and size, then operation, then name."""
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    return {
        f"{shape}, {size}": _measure(make(rng, size), least, seconds)
        for size in sizes
        for shape, make in SHAPES.items()
    }


def _measure(points: Floats, least: int, seconds: float) -> dict[str, Any]:
    radius = _radius(points)
    made: dict[str, Any] = {"radius": round(radius, 5), "farthest points": SAMPLES.get(len(points), len(points) // 2)}
    for operation, (calls, check) in OPERATIONS.items():
        asked = {name: call for name, call in calls.items() if not _too_many(operation, name, points)}
        answers = {name: call(points, radius) for name, call in asked.items()}
        for name, answer in answers.items():
            assert check(points, radius, answers["popcloud"], answer, name), f"{name} finds others: {operation}"
        bound = {name: lambda call=call: call(points, radius) for name, call in asked.items()}
        made[operation] = {
            name: time.record() for name, time in interleave(bound, seconds=seconds, least=least).items()
        }
    return made


def _too_many(operation: str, name: str, points: Floats) -> bool:
    return name == "PyTorch" and operation != "farthest points" and len(points) > MOST_FOR_PAIRS


def _radius(points: Floats) -> float:
    from scipy.spatial import cKDTree

    return float(np.float32(np.median(cKDTree(points).query(points[:500], k=IN_BALL)[0][:, -1])))


def sphere(rng: np.random.Generator, count: int) -> Floats:
    """Return points on the unit sphere."""
    points = rng.normal(size=(count, 3))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def cube(rng: np.random.Generator, count: int) -> Floats:
    """Return points in the unit cube."""
    return rng.uniform(size=(count, 3)).astype(np.float32)


def our_nearest(points: Floats, radius: float) -> NDArray[Any]:
    """Return the engine's k nearest."""
    return native.engine().nearest(points, points, K)


def our_balls(points: Floats, radius: float) -> NDArray[Any]:
    """Return the engine's balls."""
    return native.engine().ball(points, points, radius, IN_BALL)


def our_farthest(points: Floats, radius: float) -> NDArray[Any]:
    """Return the engine's farthest points."""
    return native.engine().farthest_points(points, SAMPLES.get(len(points), len(points) // 2))


def scipy_nearest(points: Floats, radius: float) -> NDArray[Any]:
    """Return cKDTree's k nearest."""
    from scipy.spatial import cKDTree

    return cKDTree(points).query(points, k=K, workers=1)[1]


def scipy_quick_nearest(points: Floats, radius: float) -> NDArray[Any]:
    """Return cKDTree's k nearest by a tree that is built faster."""
    from scipy.spatial import cKDTree

    return cKDTree(points, balanced_tree=False, compact_nodes=False).query(points, k=K, workers=1)[1]


def scipy_balls(points: Floats, radius: float) -> NDArray[Any]:
    """Return cKDTree's lists of all points in each ball, as an array of lists."""
    from scipy.spatial import cKDTree

    return cKDTree(points).query_ball_point(points, radius, workers=1, return_sorted=True)


def scipy_balls_nearest(points: Floats, radius: float) -> NDArray[Any]:
    """Return cKDTree's nearest in each ball; the number of points where there are fewer."""
    from scipy.spatial import cKDTree

    return cKDTree(points).query(points, k=IN_BALL, distance_upper_bound=radius, workers=1)[1]


def pykdtree_nearest(points: Floats, radius: float) -> NDArray[Any]:
    """Return pykdtree's k nearest."""
    from pykdtree.kdtree import KDTree

    return KDTree(points).query(points, k=K)[1]


def pykdtree_balls(points: Floats, radius: float) -> NDArray[Any]:
    """Return pykdtree's nearest in each ball; the number of points where there are fewer."""
    from pykdtree.kdtree import KDTree

    return KDTree(points).query(points, k=IN_BALL, distance_upper_bound=radius)[1]


def torch_nearest(points: Floats, radius: float) -> NDArray[Any]:
    """Return PyTorch's k nearest by all distances."""
    import torch

    x = torch.from_numpy(points)
    mode = "donot_use_mm_for_euclid_dist"  # the faster way by products is wrong by more than neighbours are apart
    parts = x.split(max(1, PAIRS // len(x)))
    return torch.cat([torch.cdist(q, x, compute_mode=mode).topk(K, largest=False)[1] for q in parts]).numpy()


def torch_balls(points: Floats, radius: float) -> NDArray[Any]:
    """Return PyTorch's balls as networks have them: the rows inside, sorted, the first one where there are no more."""
    import torch

    x, rows = torch.from_numpy(points), []
    for q in x.split(max(1, PAIRS // len(x))):
        inside = torch.cdist(q, x, compute_mode="donot_use_mm_for_euclid_dist") <= radius
        kept = torch.where(inside, torch.arange(len(x)), len(x)).topk(IN_BALL, largest=False, sorted=True)[0]
        rows.append(torch.where(kept == len(x), kept[:, :1], kept))
    return torch.cat(rows).numpy()


def torch_farthest(points: Floats, radius: float) -> NDArray[Any]:
    """Return PyTorch's farthest points."""
    import torch

    count = SAMPLES.get(len(points), len(points) // 2)
    x, y, z = torch.from_numpy(points).T.contiguous()
    least, rows = torch.full((len(points),), torch.inf), torch.zeros(count, dtype=torch.int64)
    for i in range(1, count):
        row = rows[i - 1]
        d = ((x - x[row]) ** 2 + (y - y[row]) ** 2) + (z - z[row]) ** 2
        least = torch.minimum(least, d)
        rows[i] = least.argmax()
    return rows.numpy()


def same_distances(points: Floats, radius: float, ours: NDArray[Any], other: NDArray[Any], name: str) -> bool:
    """Return whether neighbours are equally far, but for roundings: of equal ones any will do."""
    exact = points.astype(np.float64)
    own, others = (np.linalg.norm(exact[:, None] - exact[rows.astype(np.int64)], axis=2) for rows in (ours, other))
    return np.allclose(own, others, rtol=1e-5, atol=1e-6)


def same_balls(points: Floats, radius: float, ours: NDArray[Any], other: NDArray[Any], name: str) -> bool:
    """Return whether balls hold the same rows: of all, or of those that are not full."""
    wrong = 0
    full = (np.diff(ours, axis=1) > 0).all(axis=1)
    for row, (own, found) in enumerate(zip(ours.tolist(), other.tolist(), strict=True)):
        if isinstance(found, list) and other.ndim == 1:
            wrong += own != (found[:IN_BALL] + found[:1] * IN_BALL)[:IN_BALL]
        elif not full[row] or name in ("popcloud", "PyTorch"):
            wrong += set(own) != {number for number in found if number < len(points)}
    return wrong <= len(points) // 500  # a point on the edge is in or out by the last digit


def same_rows(points: Floats, radius: float, ours: NDArray[Any], other: NDArray[Any], name: str) -> bool:
    """Return whether the rows are the same."""
    return np.array_equal(ours, other)


SHAPES = {"sphere": sphere, "cube": cube}
OPERATIONS: dict[str, tuple[dict[str, Call], Callable[..., bool]]] = {
    "k nearest": (
        {
            "popcloud": our_nearest,
            "cKDTree": scipy_nearest,
            "cKDTree, built faster": scipy_quick_nearest,
            "pykdtree": pykdtree_nearest,
            "PyTorch": torch_nearest,
        },
        same_distances,
    ),
    "balls": (
        {
            "popcloud": our_balls,
            "cKDTree": scipy_balls,
            "cKDTree, nearest inside": scipy_balls_nearest,
            "pykdtree, nearest inside": pykdtree_balls,
            "PyTorch": torch_balls,
        },
        same_balls,
    ),
    "farthest points": ({"popcloud": our_farthest, "PyTorch": torch_farthest}, same_rows),
}


if __name__ == "__main__":
    print(json.dumps(measure()))
