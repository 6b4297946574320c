"""PointNet with a class per point: parts of objects, and blocks of rooms; real-valued and binary from one class.

Qi et al. 2017, figure 2 and appendix C; the binary form is BiPointNet's (Qin et al. 2021): the trunk's first layer, the
input T-Net's first layer and the classifier stay real-valued, everything else is binary. What of a cloud's one row the
classifier's layers read, they read beside each point's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from popcloud.learn.backbones.pointnet import TNet
from popcloud.learn.binarizers import REAL
from popcloud.learn.columns import Concat, Pool, Slice
from popcloud.learn.layers import Layer, PooledLayer, Transform, activation_of


class Aligned(nn.Module):
    """Points with their positions turned by the input T-Net, which reads x, y, z alone: (B, n, C) -> (B, n, C)."""

    def __init__(self, columns: int, **shared: Any):
        super().__init__()
        self.net = TNet(3, first=REAL, ordered=True, **shared)
        self.transform = Transform(ordered=True)
        self.positions = Slice(0, 3) if columns > 3 else None
        self.others = Slice(3, columns - 3) if columns > 3 else None
        self.join = Concat()

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, columns) -> the same."""
        if self.positions is None or self.others is None:
            return self.transform(x, self.net(x))
        xyz = self.positions(x)
        return self.join(self.transform(xyz, self.net(xyz)), self.others(x))


class FeatureTransform(nn.Module):
    """A T-Net over `width` features and its product with them: (B, n, width) -> the same, and the matrix's offset."""

    def __init__(self, width: int, **shared: Any):
        super().__init__()
        self.width = width
        self.net = TNet(width, first=shared["binarizer"], **shared)
        self.transform = Transform(ordered=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n, width) -> (B, n, width), (B, width * width)."""
        m = self.net(x)
        return self.transform(x, m), m

    def penalty(self, m: Tensor) -> Tensor:
        """Return the mean |A A^T - I| (Frobenius) of the matrices A = identity + m."""
        a = Transform.matrix(m, self.width)
        return torch.linalg.matrix_norm(a @ a.mT - torch.eye(self.width, dtype=a.dtype, device=a.device)).mean()


class PerPoint(nn.Module, ABC):
    """What both networks share, abstract: (B, n, features) -> logits (B, n, classes), and the transform's penalty."""

    feature_transform: FeatureTransform | None

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, features) -> logits (B, n, classes)."""
        return self._logits_and_transform(x)[0]

    def loss_terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and the penalty of the feature transform, 0 if vanilla."""
        logits, m = self._logits_and_transform(x)
        if m is None or self.feature_transform is None:
            return logits, logits.new_zeros(())
        return logits, self.feature_transform.penalty(m)

    @abstractmethod
    def _logits_and_transform(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits, and the matrix of the feature transform, None if vanilla."""


class PointNetParts(PerPoint):
    """Give each point of an object its part: 64-128-128-512-2048, all of them read by 256-256-128-parts.

    features    names of the columns, "x", "y", "z" first; those of categories are constant over a cloud
    transforms  with the input and the feature T-Net (of 128 features), or "vanilla"
    binarizer, pool, points  as PointNet's
    """

    def __init__(
        self, *, classes: int, features: Sequence[str], binarizer: str, pool: str, points: int, transforms: bool
    ):
        super().__init__()
        act = activation_of(binarizer)
        shared: dict[str, Any] = {"binarizer": binarizer, "pool": pool, "points": points}
        layer: dict[str, Any] = {"binarizer": binarizer, "activation": act}
        columns = len(features)
        self.align = Aligned(columns, **shared) if transforms else None
        self.conv1 = Layer(columns, 64, binarizer=REAL, activation=act, ordered=True)
        self.conv2 = Layer(64, 128, **layer)
        self.conv3 = Layer(128, 128, **layer)
        self.feature_transform = FeatureTransform(128, **shared) if transforms else None
        self.conv4 = Layer(128, 512, **layer)
        self.conv5 = Layer(512, 2048, binarizer=binarizer)
        self.pool = Pool(pool, points)
        self.join = Concat()
        self.head1 = Layer(2 * 2048 + 512 + 128 + 128 + 64, 256, **layer)
        self.head2 = Layer(256, 256, **layer)
        self.head3 = Layer(256, 128, **layer)
        self.classifier = Layer(128, classes, binarizer=REAL, norm=False, ordered=True)

    def _logits_and_transform(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        m = None
        one = self.conv1(x if self.align is None else self.align(x))
        two = self.conv2(one)
        three = y = self.conv3(two)
        if self.feature_transform is not None:
            y, m = self.feature_transform(y)
        four = self.conv4(y)
        five = self.conv5(four)
        y = self.join(self.pool(five), one, two, three, four, five)
        return self.classifier(self.head3(self.head2(self.head1(y)))), m


class PointNetBlocks(PerPoint):
    """Give each point of a block its class: the classifying PointNet's trunk, then 512-256-128-classes.

    The rows of 64 features after the feature T-Net, and the pooled row of 1,024, are what the last layers read.
    Arguments as PointNetParts'.
    """

    def __init__(
        self, *, classes: int, features: Sequence[str], binarizer: str, pool: str, points: int, transforms: bool
    ):
        super().__init__()
        act = activation_of(binarizer)
        shared: dict[str, Any] = {"binarizer": binarizer, "pool": pool, "points": points}
        layer: dict[str, Any] = {"binarizer": binarizer, "activation": act}
        columns = len(features)
        self.align = Aligned(columns, **shared) if transforms else None
        self.conv1 = Layer(columns, 64, binarizer=REAL, activation=act, ordered=True)
        self.feature_transform = FeatureTransform(64, **shared) if transforms else None
        self.conv2 = Layer(64, 128, **layer)
        self.conv3 = PooledLayer(128, 1024, **shared)
        self.join = Concat()
        self.head1 = Layer(1024 + 64, 512, **layer)
        self.head2 = Layer(512, 256, **layer)
        self.head3 = Layer(256, 128, **layer)
        self.classifier = Layer(128, classes, binarizer=REAL, norm=False, ordered=True)

    def _logits_and_transform(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        m = None
        x = self.conv1(x if self.align is None else self.align(x))
        if self.feature_transform is not None:
            x, m = self.feature_transform(x)
        y = self.join(self.conv3(self.conv2(x)), x)
        return self.classifier(self.head3(self.head2(self.head1(y)))), m
