"""PointConv, real-valued and binary from one class.

Wu, Qi and Li 2019: a convolution whose weights are a function of the position in the neighbourhood, made cheap by
summing over neighbours before the widest product (their section 3.1), with densities that make up for uneven sampling.
Their MLPs and widths; what differs: the kernel of the density (see `Density`), which isn't divided by the largest of a
neighbourhood but normalised by the first layer's batch norm; the weighted sums have a batch norm, without which their
signs would say little; and the last level, which pools all points, as PointNet++
does: there the entropy-maximizing pools apply, where a sum weighted by 16 functions of the position would need a layer
from 16,384 to 1,024 alone. In the binary form (BiPointNet's rules, Qin et al. 2021) all layers on positions and
densities and the classifier stay real-valued: they are small. The rest is binary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from popcloud.learn.backbones.classifier import Classifier
from popcloud.learn.binarizers import REAL
from popcloud.learn.layers import Layer, PooledLayer, activation_of
from popcloud.learn.point_blocks import FirstLayer
from popcloud.learn.point_layers import (
    Density,
    FarthestPoints,
    Gather,
    GatherSubtract,
    Multiply,
    Nearest,
    Product,
    RowNorm,
    real,
)
from popcloud.packed.program import Sampling

FUNCTIONS = 16  # of the position, by which neighbours are weighed


class PositionWeights(nn.Module):
    """How a neighbourhood is summed: 3 -> 8 -> 8 -> 16 functions of the relative position, times the density's factor.

    The factor, 1 -> 16 -> 8 -> 1, is a function of how sparse the cloud is at a point; it is computed once per point.
    """

    def __init__(self, bandwidth: float):
        super().__init__()
        self.weight1, self.weight2 = real(3, 8, activation="relu"), real(8, 8, activation="relu")
        self.weight3 = real(8, FUNCTIONS, activation="relu")
        self.density = Density(bandwidth)
        self.density1, self.density2 = real(1, 16, activation="relu"), real(16, 8, activation="relu")
        self.density3 = real(8, 1, activation="sigmoid")
        self.gather, self.multiply = Gather(), Multiply()

    def forward(self, offsets: Tensor, xyz: Tensor, near: Tensor) -> Tensor:
        """(B, P, k, 3), (B, n, 3), (B, P, k) -> (B, P, k, 16)."""
        factor = self.density3(self.density2(self.density1(self.density(xyz))))
        weights = self.weight3(self.weight2(self.weight1(offsets)))
        return self.multiply(weights, self.gather(factor, near))


class PointConvLevel(nn.Module):
    """Sample centres, take the k nearest of each, three layers on each of these, their weighted sums, one layer.

    inputs, widths    channels of the features (0: none), of the three layers
    ratio, k          of the sampling and of the neighbourhoods
    bandwidth         of the density
    radius            about as far as neighbours are: the first layer's weights start as if positions were divided by it
    """

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int],
        *,
        ratio: float,
        k: int,
        bandwidth: float,
        radius: float,
        binarizer: str,
    ):
        super().__init__()
        shared: dict[str, Any] = {"binarizer": binarizer, "activation": activation_of(binarizer), "ordered": True}
        self.sample, self.gather, self.near = FarthestPoints(ratio), Gather(), Nearest(k)
        self.relative, self.product = GatherSubtract(), Product()
        self.conv1 = FirstLayer(inputs, widths[0], binarizer=binarizer, radius=radius)
        self.conv2 = Layer(widths[0], widths[1], **shared)
        self.conv3 = Layer(widths[1], widths[2], **shared)
        self.weights = PositionWeights(bandwidth)
        self.norm = RowNorm(FUNCTIONS * widths[2], activation="none")
        self.linear = Layer(FUNCTIONS * widths[2], widths[2], **shared)

    def forward(self, x: Tensor | None, xyz: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n, C) or None, (B, n, 3) -> features (B, P, widths[2]) and centres (B, P, 3)."""
        centres = self.gather(xyz, self.sample(xyz))
        near = self.near(centres, xyz)
        x = self.conv3(self.conv2(self.conv1(x, xyz, near, centres)))
        weights = self.weights(self.relative(xyz, near, centres), xyz, near)
        return self.linear(self.norm(self.product(x, weights))), centres


class PointConv(Classifier):
    """Classify clouds (B, n, 3) -> (B, classes).

    binarizer   a name in BINARIZERS, or "real"
    pool        a name in POOLS
    points      how many points a cloud has; sets delta of the pool
    neighbours  k of the two levels with neighbourhoods
    ratios, bandwidths, radii   of the same
    dropout     in the head of the real-valued form; the binary form has none
    """

    def __init__(
        self,
        *,
        classes: int,
        binarizer: str,
        pool: str,
        points: int,
        neighbours: Sequence[int] = (32, 64),
        ratios: Sequence[float] = (0.5, 0.25),
        bandwidths: Sequence[float] = (0.1, 0.2),
        radii: Sequence[float] = (0.2, 0.4),
        dropout: float = 0.4,
    ):
        super().__init__()
        act = activation_of(binarizer)
        levels: list[dict[str, Any]] = [
            {"k": k, "ratio": ratio, "bandwidth": bandwidth, "radius": radius, "binarizer": binarizer}
            for k, ratio, bandwidth, radius in zip(neighbours, ratios, bandwidths, radii, strict=True)
        ]
        last = Sampling(tuple(ratios)).count(points, 2)
        self.level1 = PointConvLevel(0, (64, 64, 128), **levels[0])
        self.level2 = PointConvLevel(128, (128, 128, 256), **levels[1])
        self.conv1 = FirstLayer(256, 256, binarizer=binarizer, radius=1.0)
        self.conv2 = Layer(256, 512, binarizer=binarizer, activation=act, ordered=True)
        self.conv3 = PooledLayer(512, 1024, binarizer=binarizer, pool=pool, points=last)
        self.fc1 = Layer(1024, 512, binarizer=binarizer, activation=act, ordered=True)
        self.fc2 = Layer(512, 256, binarizer=binarizer, activation=act, ordered=True)
        self.dropout = nn.Dropout(dropout if binarizer == REAL else 0.0)
        self.classifier = real(256, classes, norm=False)

    def forward(self, xyz: Tensor) -> Tensor:
        """(B, n, 3) -> logits (B, classes)."""
        x, centres = self.level1(None, xyz)
        x, centres = self.level2(x, centres)
        x = self.conv3(self.conv2(self.conv1(x, centres, None, centres)))
        return self.classifier(self.dropout(self.fc2(self.fc1(x))))
