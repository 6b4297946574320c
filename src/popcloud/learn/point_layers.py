"""The layers of networks that work on neighbourhoods of points; each has one or a few steps in a program.

A batch of clouds is (B, n, C), positions (B, n, 3), the neighbours' numbers (B, P, k) int64, and their rows
(B, P, k, C) for P points of k neighbours. In eval mode without gradients all have a program's bits.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from popcloud.learn import ordered, searches
from popcloud.learn.gathering import Gathered, Spread
from popcloud.learn.layers import Layer, Norm, PooledLayer, make_activation, normed


class FarthestPoints(nn.Module):
    """The numbers of ceil(ratio * n) points far from each other, the first of them row 0 (PointNet++ 2017)."""

    def __init__(self, ratio: float):
        super().__init__()
        self.ratio = ratio

    def forward(self, xyz: Tensor) -> Tensor:
        """(B, n, 3) -> (B, P) int64."""
        return searches.farthest_points(xyz, math.ceil(self.ratio * xyz.shape[1]))


class Ball(nn.Module):
    """The first k points within `radius` of each centre, in the order of rows; the first again where there are fewer.

    Raises CloudError for a centre with no point around it.
    """

    def __init__(self, radius: float, k: int):
        super().__init__()
        self.radius, self.k = radius, k

    def forward(self, centres: Tensor, xyz: Tensor) -> Tensor:
        """(B, P, 3), (B, n, 3) -> (B, P, k) int64."""
        return searches.ball(centres, xyz, self.radius, self.k)


class Gather(nn.Module):
    """The rows of the points with given numbers."""

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:
        """(B, n, C), (B, P) or (B, P, k) -> (B, P, C) or (B, P, k, C)."""
        return Gathered.apply(x, rows)


class GatherSubtract(nn.Module):
    """The rows of the neighbours of each point less a row of the point itself."""

    def forward(self, x: Tensor, rows: Tensor, centres: Tensor) -> Tensor:
        """(B, n, C), (B, P, k), (B, P, C) -> (B, P, k, C)."""
        return Spread.apply(x, rows, centres)


class Subtract(nn.Module):
    """One less the other."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, n, C) twice -> (B, n, C)."""
        return x - y


class Beside(nn.Module):
    """The channels of two values side by side; a row of a point is repeated for its neighbours."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(..., C), (..., D) -> (..., C + D), where either may lack the neighbours."""
        first, second = (one[:, :, None] if one.ndim < max(x.ndim, y.ndim) else one for one in (x, y))
        shape = torch.broadcast_shapes(first.shape[:-1], second.shape[:-1])
        return torch.cat([first.expand(*shape, -1), second.expand(*shape, -1)], dim=-1)


class Negated(nn.Module):
    """A bare real layer with its weights' signs turned; it owns none: they are those of `layer`."""

    def __init__(self, layer: Layer):
        super().__init__()
        self.outputs, self.layers = layer.outputs, (layer,)  # in a tuple: no second name for the same weights

    @property
    def layer(self) -> Layer:
        """Return the layer whose weights these are."""
        return self.layers[0]

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        if self.training or torch.is_grad_enabled():
            y: Tensor = self.layer(x)
            return -y
        weight, bias = self.layer.folded_weight()
        return ordered.linear(x, -weight, -bias)


class RowNorm(nn.Module):
    """Batch norm and activation of rows, whatever made them: (..., C) -> (..., C)."""

    def __init__(self, channels: int, *, activation: str):
        super().__init__()
        self.channels = channels
        self.norm = Norm(channels)
        self.activation = make_activation(activation, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels) -> the same."""
        if self.training:
            return normed(x.flatten(0, -2), self.norm, self.activation).view(x.shape)
        return self.tail(x)

    def tail(self, x: Tensor) -> Tensor:
        """Return the output for x (..., channels), in eval mode."""
        return self.activation(ordered.fma(x, *self.norm.folded()))


class GroupPooled(PooledLayer):
    """linear -> batch norm -> pool over the k neighbours of each point: (B, P, k, inputs) -> (B, P, outputs).

    `points` is k: it sets delta.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, k, inputs) -> (B, P, outputs)."""
        groups = x.flatten(0, 1)
        exact = self.binarizer is None and not self.training and not torch.is_grad_enabled()
        pooled = self._by_rows(groups) if exact else super().forward(groups)
        return pooled.unflatten(0, x.shape[:2])

    def _by_rows(self, x: Tensor) -> Tensor:
        """Return the real-valued layer's pools (groups, outputs) with a program's bits."""
        weight, bias = self.folded_weight()
        rows = ordered.linear(x, weight, bias + self.delta)
        if not self.takes_mean:
            return rows.amax(1)
        total = rows.new_zeros(len(rows), self.outputs, dtype=torch.float64)
        for row in rows.unbind(1):  # in order
            total += row
        return (total / x.shape[1]).to(rows.dtype)


def real(inputs: int, outputs: int, **options: Any) -> Layer:
    """Return a real-valued layer whose eval mode has a program's bits; options as those of `Layer`."""
    return Layer(inputs, outputs, binarizer="real", ordered=True, **options)
