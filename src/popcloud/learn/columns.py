"""Layers that put columns of points side by side, take some out, and pool rows that are read by themselves as well.

Each has one step or two in a program; in eval mode all have its bits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from popcloud.errors import RecipeError, unknown
from popcloud.learn import ordered
from popcloud.learn.layers import POOLS, ema_delta


class Slice(nn.Module):
    """Some columns: `count` of them from `first`."""

    def __init__(self, first: int, count: int):
        super().__init__()
        self.first, self.outputs = first, count

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, C) -> (B, n, count)."""
        return x[..., self.first : self.first + self.outputs]


class Concat(nn.Module):
    """The channels of several values side by side.

    The row of a cloud is repeated for its points, that of a point for its neighbours.
    """

    def forward(self, *parts: Tensor) -> Tensor:
        """(B, C), (B, P, C) or (B, P, k, C), one at least of points -> the sum of C, for all rows of the longest."""
        rows = max((part.shape[:-1] for part in parts), key=len)
        whole = (slice(None),)
        spread = (p[whole * (p.ndim - 1) + (None,) * (len(rows) - p.ndim + 1)] for p in parts)
        return torch.cat([p.expand(*rows, -1) for p in spread], dim=-1)


class Pool(nn.Module):
    """A pool over the points of rows that other layers read too: (B, n, C) -> (B, C); else PooledLayer is the one.

    pool    a name in POOLS; ema-max adds delta(points)
    points  how many points the pool expects
    """

    def __init__(self, pool: str, points: int):
        super().__init__()
        if pool not in POOLS:
            raise RecipeError(unknown("pool", pool, POOLS))
        self.takes_mean = pool.endswith("mean")
        self.delta = ema_delta(points) if pool == "ema-max" else 0.0

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, C) -> (B, C)."""
        if self.takes_mean:
            return x.mean(1) if self.training else ordered.mean(x)
        return x.amax(1) + self.delta
