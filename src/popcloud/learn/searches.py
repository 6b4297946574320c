"""Who is near whom, for batches of clouds: `popcloud.geometry` on every cloud, by the engine where there is one.

Neighbours are numbers of rows: no gradient passes through them.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from popcloud import native
from popcloud.geometry import fast, neighbors
from popcloud.packed.bits import pack_minus


def farthest_points(xyz: Tensor, count: int) -> Tensor:
    """Return `count` rows (B, count) int64 of the clouds (B, n, 3), far from each other."""
    return _each(lambda one: _geometry().farthest_points(one, count), xyz)


def nearest(queries: Tensor, points: Tensor, k: int, dilation: int = 1) -> Tensor:
    """Return the rows (B, Q, k) int64 of the points (B, P, 3) nearest to each query (B, Q, 3), in order."""
    return _each(lambda *two: _geometry().nearest(*two, k, dilation), queries, points)


def nearest_features(queries: Tensor, points: Tensor, k: int, dilation: int = 1) -> Tensor:
    """Return the rows (B, Q, k) int64 nearest among features (B, P, C) to each query (B, Q, C), in order."""
    return _each(lambda *two: _geometry().nearest_features(*two, k, dilation), queries, points)


def nearest_signs(queries: Tensor, points: Tensor, k: int, dilation: int = 1) -> Tensor:
    """Return the rows (B, Q, k) int64 whose signs (x < 0 or not) differ least, of (B, Q, C) among (B, P, C)."""
    search = _geometry().nearest_signs
    return _each(lambda *two: search(*(pack_minus(x < 0) for x in two), k, dilation), queries, points)


def ball(queries: Tensor, points: Tensor, radius: float, k: int) -> Tensor:
    """Return the first k rows (B, Q, k) int64 of the points (B, P, 3) within `radius` of each query (B, Q, 3)."""
    return _each(lambda *two: _geometry().ball(*two, radius, k), queries, points)


def density(xyz: Tensor, bandwidth: float) -> Tensor:
    """Return how sparse each cloud (B, n, 3) is at its points, (B, n, 1)."""
    return _each(lambda one: _geometry().density(one, bandwidth)[:, None], xyz)


def _geometry() -> ModuleType:
    return fast if native.available() else neighbors


def _each(search: Callable[..., Any], *clouds: Tensor) -> Tensor:
    """Return what a search finds in each cloud of a batch; rows as int64, and all on the device of the clouds."""
    arrays = [x.detach().float().cpu().contiguous().numpy() for x in clouds]
    found = np.stack([search(*one) for one in zip(*arrays, strict=True)])
    return torch.from_numpy(found.astype(np.int64) if found.dtype.kind == "i" else found).to(clouds[0].device)
