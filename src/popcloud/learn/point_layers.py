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
from popcloud.learn.columns import Pool
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
        if self.binarizer is None and not self.training and not torch.is_grad_enabled():
            return self._by_rows(groups).unflatten(0, x.shape[:2])
        gates = self.binarizer.gate(x)[:, 0].expand(-1, x.shape[1], -1).flatten(0, 1) if self.gates else None
        return self.pooled(groups, gates).unflatten(0, x.shape[:2])

    def _by_rows(self, x: Tensor) -> Tensor:
        """Return the real-valued layer's pools (groups, outputs) with a program's bits."""
        weight, bias = self.folded_weight()
        rows = ordered.linear(x, weight, bias + self.delta)
        if not self.takes_mean:
            return rows.amax(1)
        return ordered.mean(rows)


class GroupPool(Pool):
    """A pool over the k neighbours of each point: (B, P, k, C) -> (B, P, C). `points` is k: it sets delta."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, k, C) -> (B, P, C)."""
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def real(inputs: int, outputs: int, **options: Any) -> Layer:
    """Return a real-valued layer whose eval mode has a program's bits; options as those of `Layer`."""
    return Layer(inputs, outputs, binarizer="real", ordered=True, **options)


class Nearest(nn.Module):
    """The k nearest of some positions to each query, in order; of k * dilation every dilation-th."""

    def __init__(self, k: int, dilation: int = 1):
        super().__init__()
        self.k, self.dilation = k, dilation

    def forward(self, queries: Tensor, xyz: Tensor) -> Tensor:
        """(B, P, 3), (B, n, 3) -> (B, P, k) int64."""
        return searches.nearest(queries, xyz, self.k, self.dilation)


class NearestFeatures(Nearest):
    """The same in the space of features."""

    def forward(self, queries: Tensor, x: Tensor) -> Tensor:
        """(B, P, C), (B, n, C) -> (B, P, k) int64."""
        return searches.nearest_features(queries, x, self.k, self.dilation)


class NearestSigns(Nearest):
    """The same by the number of signs (x < 0 or not) that differ."""

    def forward(self, queries: Tensor, x: Tensor) -> Tensor:
        """(B, P, C), (B, n, C) -> (B, P, k) int64."""
        return searches.nearest_signs(queries, x, self.k, self.dilation)


class Density(nn.Module):
    """How sparse a cloud is at each point: the inverse of a density whose kernel falls with the squared distance.

    P / sum over the cloud of max(0, 1 - d / bandwidth^2): Epanechnikov's kernel, where PointConv (Wu et al. 2019) has
    a Gaussian; no exponential, so the same bits on any machine. There is no gradient.
    """

    def __init__(self, bandwidth: float):
        super().__init__()
        self.bandwidth = bandwidth

    def forward(self, xyz: Tensor) -> Tensor:
        """(B, n, 3) -> (B, n, 1)."""
        return searches.density(xyz, self.bandwidth)


class Multiply(nn.Module):
    """The product of two values, element by element; the second may have one channel for all."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(..., C), (..., C) or (..., 1) -> (..., C)."""
        return x * y


class Reshape(nn.Module):
    """The same numbers with `each` rows per point: (B, P, j, C) or (B, P, C) -> (B, P, each, j C / each).

    Of one row per point the answer is (B, P, j C).
    """

    def __init__(self, each: int):
        super().__init__()
        self.each = each

    def forward(self, x: Tensor) -> Tensor:
        """As above."""
        flat = x.flatten(2)
        return flat if self.each == 1 else flat.unflatten(2, (self.each, -1))


class Product(nn.Module):
    """y[c, j] = sum over the neighbours of x[c] m[j]: PointConv's weighted sum, PointCNN's transform."""

    def forward(self, x: Tensor, m: Tensor) -> Tensor:
        """(B, P, k, C), (B, P, k, M) -> (B, P, C M), M of channel c side by side."""
        if torch.is_grad_enabled():
            return (x.mT @ m).flatten(2)
        return ordered.products(x.mT.flatten(0, 1), m.flatten(0, 1)).flatten(1).unflatten(0, x.shape[:2])


class TernaryLayer(Layer):
    """A binary Layer that reads an input of 0 as 0, not as +1: twice the work of signs.

    BiPointNet's release has such signs. It matters where zeros are common: a point's difference to itself, or to a
    neighbour with the same maximum.
    """

    TINY = 2.0**-149  # the smallest number above 0: the signs below 0 and below this one differ at 0 alone

    @property
    def bare(self) -> bool:
        """Return False: zeros are no signs."""
        return False

    def operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `Layer`, with zeros."""
        seen, weight = super().operands(x)
        return seen * (x != 0), weight

    def exact_operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `Layer`, with zeros."""
        seen, weight = super().exact_operands(x)
        return seen * (x != 0), weight


class GroupedLayer(Layer):
    """A Layer in `groups` groups, each of inputs / groups inputs that lie together, and of outputs / groups outputs.

    `inputs` is then that of a group, and so is what its binarizer sees: thresholds are the same for all groups.
    Factors that depend on the inputs (XNOR-Net's per row, Real-to-Binary's gate) are left out: they would be one per
    group.
    """

    def __init__(self, inputs: int, outputs: int, *, groups: int, **options: Any):
        super().__init__(inputs // groups, outputs, **options)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """(..., groups * inputs) -> (..., outputs)."""
        shape, x = x.shape[:-1], x.reshape(-1, self.groups, self.inputs)
        if self.training:
            y = normed(self.multiplied(self._seen(x), self.trained_weight()), self.norm, self.activation)
        elif self.ordered and not torch.is_grad_enabled():
            y = self.activation(self._by_rows(x, *self.folded_weight()))
        else:
            y = self.tail(self.sums(x))
        return y.unflatten(0, shape)

    def multiplied(self, seen: Tensor, weight: Tensor) -> Tensor:
        """(R, groups, inputs), (outputs, inputs) -> (R, outputs)."""
        return torch.bmm(seen.transpose(0, 1), self._each(weight)).transpose(0, 1).flatten(1)

    def _seen(self, x: Tensor) -> Tensor:
        """Return what training multiplies by the weights."""
        if self.binarizer is None:
            return x
        seen: Tensor = (self.binarizer.inputs_signs if self.binarizer.bases == 1 else self.binarizer.trained_inputs)(x)
        return seen

    def _by_rows(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        start = bias.view(self.groups, 1, -1).expand(-1, len(x), -1)
        return ordered.products(x.transpose(0, 1), self._each(weight), start).transpose(0, 1).flatten(1)

    def _each(self, weight: Tensor) -> Tensor:
        """Return weights (outputs, inputs) as (groups, inputs, outputs of a group)."""
        return weight.view(self.groups, -1, self.inputs).mT
