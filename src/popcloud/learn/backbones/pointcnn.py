"""PointCNN, real-valued and binary from one class.

Li et al. 2018, with the plan of PyTorch Geometric's example that BiPointNet (Qin et al. 2021) binarizes. A layer's
neighbourhoods are put in order by a matrix that is learned from the positions of the neighbours (the X-transform). In
the binary form the layers that read positions and the classifier stay real-valued, the rest is binary. What differs
from the release: batch norm comes before the activation, as everywhere here, and once more after the X-transform; the
activation is ReLU in the real-valued form, where it has ELU; the last X-Conv's linear layer is the pool's, so that all
pools apply to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from popcloud.learn.backbones.classifier import Classifier
from popcloud.learn.binarizers import REAL
from popcloud.learn.columns import Concat
from popcloud.learn.layers import Layer, PooledLayer, activation_of
from popcloud.learn.point_layers import (
    FarthestPoints,
    Gather,
    GatherSubtract,
    GroupedLayer,
    Nearest,
    Product,
    Reshape,
    RowNorm,
    real,
)
from popcloud.packed.program import Sampling


class XConv(nn.Module):
    """One X-Conv but for its last linear layer (Li et al. 2018, algorithm 1).

    The neighbours' features, with `hidden` ones that are learned from their positions, times the learned (k, k) matrix
    of the neighbourhood; then a convolution along the k rows, channel by channel.

    inputs    channels of the features, 0: none
    outputs   channels of the linear layer that follows; sets how many this one gives, `self.outputs`
    """

    def __init__(self, inputs: int, outputs: int, *, k: int, hidden: int, dilation: int, binarizer: str):
        super().__init__()
        shared: dict[str, Any] = {"binarizer": binarizer, "ordered": True}
        act, channels = activation_of(binarizer), inputs + hidden
        self.outputs = channels * math.ceil(outputs / channels)
        self.near, self.relative, self.gather, self.beside = Nearest(k, dilation), GatherSubtract(), Gather(), Concat()
        self.lift1 = real(3, hidden, activation=act)
        self.lift2 = Layer(hidden, hidden, activation=act, **shared)
        self.flat, self.square, self.product = Reshape(1), Reshape(k), Product()
        self.matrix1 = real(3 * k, k * k, activation=act)
        self.matrix2 = GroupedLayer(k * k, k * k, groups=k, activation=act, **shared)
        self.matrix3 = GroupedLayer(k * k, k * k, groups=k, **shared)
        self.norm = RowNorm(channels * k, activation="none")
        self.conv = GroupedLayer(channels * k, self.outputs, groups=channels, **shared)

    def forward(self, x: Tensor | None, xyz: Tensor) -> Tensor:
        """(B, n, inputs) or None, (B, n, 3) -> (B, n, self.outputs)."""
        near = self.near(xyz, xyz)
        offsets = self.relative(xyz, near, xyz)
        lifted = self.lift2(self.lift1(offsets))
        if x is not None:
            lifted = self.beside(lifted, self.gather(x, near))
        matrix = self.square(self.matrix3(self.matrix2(self.matrix1(self.flat(offsets)))))
        return self.conv(self.norm(self.product(lifted, matrix)))


class PointCNN(Classifier):
    """Classify clouds (B, n, 3) -> (B, classes).

    binarizer   a name in BINARIZERS, or "real"
    pool        a name in POOLS
    points      how many points a cloud has; sets delta of the pool
    neighbours, dilations   of the four X-Convs
    ratios      of the sampling after the first and after the second one
    dropout     in the head of the real-valued form; the binary form has none
    """

    def __init__(
        self,
        *,
        classes: int,
        binarizer: str,
        pool: str,
        points: int,
        neighbours: Sequence[int] = (8, 12, 16, 16),
        dilations: Sequence[int] = (1, 2, 2, 2),
        ratios: Sequence[float] = (0.375, 0.334),
        dropout: float = 0.4,
    ):
        super().__init__()
        act = activation_of(binarizer)
        shared: list[dict[str, Any]] = [
            {"k": k, "dilation": dilation, "binarizer": binarizer}
            for k, dilation in zip(neighbours, dilations, strict=True)
        ]
        last = Sampling(tuple(ratios)).count(points, 2)
        self.conv1 = XConv(0, 48, hidden=32, **shared[0])
        self.linear1 = Layer(self.conv1.outputs, 48, binarizer=binarizer, activation=act, ordered=True)
        self.conv2 = XConv(48, 96, hidden=64, **shared[1])
        self.linear2 = Layer(self.conv2.outputs, 96, binarizer=binarizer, activation=act, ordered=True)
        self.conv3 = XConv(96, 192, hidden=128, **shared[2])
        self.linear3 = Layer(self.conv3.outputs, 192, binarizer=binarizer, activation=act, ordered=True)
        self.conv4 = XConv(192, 384, hidden=256, **shared[3])
        self.linear4 = PooledLayer(self.conv4.outputs, 384, binarizer=binarizer, pool=pool, points=last)
        self.sample1, self.sample2 = (FarthestPoints(ratio) for ratio in ratios)
        self.gather = Gather()
        self.fc1 = Layer(384, 256, binarizer=binarizer, activation=act, ordered=True)
        self.fc2 = Layer(256, 128, binarizer=binarizer, activation=act, ordered=True)
        self.dropout = nn.Dropout(dropout if binarizer == REAL else 0.0)
        self.classifier = real(128, classes, norm=False)

    def forward(self, xyz: Tensor) -> Tensor:
        """(B, n, 3) -> logits (B, classes)."""
        x = self.linear1(self.conv1(None, xyz))
        rows = self.sample1(xyz)
        x, xyz = self.gather(x, rows), self.gather(xyz, rows)
        x = self.linear2(self.conv2(x, xyz))
        rows = self.sample2(xyz)
        x, xyz = self.gather(x, rows), self.gather(xyz, rows)
        x = self.linear3(self.conv3(x, xyz))
        x = self.linear4(self.conv4(x, xyz))
        return self.classifier(self.dropout(self.fc2(self.fc1(x))))
