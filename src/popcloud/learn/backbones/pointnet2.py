"""PointNet++ with single-scale grouping, real-valued and binary from one class.

Qi et al. 2017 (NeurIPS); the binary form follows BiPointNet (Qin et al. 2021): layers on positions and the classifier
stay real-valued, all else is binary, and the pools are entropy-maximizing. What differs from its release: batch norm
comes before the activation, as everywhere here; and positions relative to a centre are not reduced to their signs, but
have a small real-valued branch in the first layer of each level (see `SetAbstraction`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from popcloud.errors import RecipeError, unknown
from popcloud.learn.backbones.classifier import Classifier
from popcloud.learn.binarizers import REAL
from popcloud.learn.columns import Concat
from popcloud.learn.layers import Layer, PooledLayer, activation_of
from popcloud.learn.point_blocks import FirstLayer
from popcloud.learn.point_layers import (
    Ball,
    FarthestPoints,
    Gather,
    GatherSubtract,
    GroupPooled,
    real,
)
from popcloud.packed.program import Sampling

XYZ = ("real", "signs")


class SignsLayer(nn.Module):
    """The first layer as in BiPointNet's release: relative positions are binarized with the features."""

    def __init__(self, inputs: int, outputs: int, *, binarizer: str):
        super().__init__()
        self.gather, self.relative, self.beside = Gather(), GatherSubtract(), Concat()
        self.linear = Layer(inputs + 3, outputs, binarizer=binarizer, activation=activation_of(binarizer), ordered=True)

    def forward(self, x: Tensor, xyz: Tensor, near: Tensor | None, centres: Tensor) -> Tensor:
        """As `FirstLayer`."""
        if near is None:
            return self.linear(self.beside(x, xyz))
        return self.linear(self.beside(self.gather(x, near), self.relative(xyz, near, centres)))


class SetAbstraction(nn.Module):
    """One level: sample centres, group their neighbours, three layers on each group, the last one pooled.

    ratio, radius, k  of the sampling and of the balls; ratio None: all points are one group
    inputs, widths    channels of the features (0: none), of the three layers
    xyz               how relative positions enter beside features, a name in XYZ: "real", added to the first layer's
                      sums by a real-valued branch; "signs", as BiPointNet's release does
    points            how many rows the pool expects; sets delta
    """

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int],
        *,
        ratio: float | None,
        radius: float,
        k: int,
        xyz: str,
        binarizer: str,
        pool: str,
    ):
        super().__init__()
        self.sample = None if ratio is None else FarthestPoints(ratio)
        self.ball, self.gather = Ball(radius, k), Gather()
        first: type[nn.Module] = FirstLayer
        options: dict[str, Any] = {"binarizer": binarizer, "radius": radius}
        if xyz == "signs" and inputs:
            first = SignsLayer
            options.pop("radius")
        self.conv1 = first(inputs, widths[0], **options)
        act = activation_of(binarizer)
        self.conv2 = Layer(widths[0], widths[1], binarizer=binarizer, activation=act, ordered=True)
        pooled = PooledLayer if ratio is None else GroupPooled
        self.conv3 = pooled(widths[1], widths[2], binarizer=binarizer, pool=pool, points=k)

    def forward(self, x: Tensor | None, xyz: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n, C) or None, (B, n, 3) -> features (B, P, widths[2]) and centres (B, P, 3); of one group (B, ...)."""
        if self.sample is None:
            return self.conv3(self.conv2(self.conv1(x, xyz, None, xyz))), xyz
        centres = self.gather(xyz, self.sample(xyz))
        near = self.ball(centres, xyz)
        return self.conv3(self.conv2(self.conv1(x, xyz, near, centres))), centres


class PointNet2(Classifier):
    """Classify clouds (B, n, 3) -> (B, classes).

    binarizer     a name in BINARIZERS, or "real"
    pool          a name in POOLS
    points        how many points a cloud has; sets delta of the last pool
    neighbours    k of the two levels with groups; BiPointNet's release takes up to 64
    ratios, radii of the same
    xyz           as in SetAbstraction
    dropout       in the head of the real-valued form; the binary form has none
    """

    def __init__(
        self,
        *,
        classes: int,
        binarizer: str,
        pool: str,
        points: int,
        neighbours: Sequence[int] = (32, 32),
        ratios: Sequence[float] = (0.5, 0.25),
        radii: Sequence[float] = (0.2, 0.4),
        xyz: str = "real",
        dropout: float = 0.4,
    ):
        super().__init__()
        if xyz not in XYZ:
            raise RecipeError(unknown("way of positions", xyz, XYZ))
        act = activation_of(binarizer)
        shared: dict[str, Any] = {"xyz": xyz, "binarizer": binarizer, "pool": pool}
        (k1, k2), (ratio1, ratio2), (radius1, radius2) = neighbours, ratios, radii
        last = Sampling(tuple(ratios)).count(points, 2)
        self.sa1 = SetAbstraction(0, (64, 64, 128), ratio=ratio1, radius=radius1, k=k1, **shared)
        self.sa2 = SetAbstraction(128, (128, 128, 256), ratio=ratio2, radius=radius2, k=k2, **shared)
        self.sa3 = SetAbstraction(256, (256, 512, 1024), ratio=None, radius=1.0, k=last, **shared)
        self.fc1 = Layer(1024, 512, binarizer=binarizer, activation=act, ordered=True)
        self.fc2 = Layer(512, 256, binarizer=binarizer, activation=act, ordered=True)
        self.dropout = nn.Dropout(dropout if binarizer == REAL else 0.0)
        self.classifier = real(256, classes, norm=False)

    def forward(self, xyz: Tensor) -> Tensor:
        """(B, n, 3) -> logits (B, classes)."""
        x, centres = self.sa1(None, xyz)
        x, centres = self.sa2(x, centres)
        x, _ = self.sa3(x, centres)
        return self.classifier(self.dropout(self.fc2(self.fc1(x))))
