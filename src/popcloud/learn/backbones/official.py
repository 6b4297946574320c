"""The networks as BiPointNet's release lays them out, so that its checkpoints answer here what they answer there.

Read off the public code (github.com/htqin/BiPointNet, Qin et al. 2021). What differs from this project's own layout:

PointNet    the T-Nets clip (or rectify) before a maximum or mean over points
the others  a layer is linear -> activation -> batch norm; relative positions are binarized with the features; one more
            real-valued layer lifts positions; balls hold up to 64 points
all         the offsets of EMA-max are the release's estimates, in the fourth place beside the closed form

PointCNN is not here: its X-transform sums over the other side of the learned matrix than PRODUCT does, and its
real-valued form has ELU.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from popcloud.errors import RecipeError, unknown
from popcloud.learn.backbones.classifier import Classifier
from popcloud.learn.backbones.pointnet import PointNet, TNet
from popcloud.learn.binarizers import BINARIZERS, REAL, IrNet
from popcloud.learn.columns import Concat, Pool
from popcloud.learn.layers import Layer, activation_of, ema_delta
from popcloud.learn.point_layers import (
    Ball,
    FarthestPoints,
    Gather,
    GatherSubtract,
    GroupPool,
    Nearest,
    NearestFeatures,
    RowNorm,
    TernaryLayer,
    real,
)

OFFSETS = {20: -1.8268, 64: -2.2983, 1024: -3.2041, 2048: -3.4025, 4096: -3.5836}  # of EMA-max, by number of rows
POOLS = ("max", "mean", "ema-max")


def offset(pool: str, rows: int) -> float:
    """Return what a pool over so many rows adds; of other numbers than the release's the closed form."""
    return OFFSETS.get(rows, ema_delta(rows)) if pool == "ema-max" else 0.0


def check_pool(pool: str) -> None:
    """Raise RecipeError for a pool that the release does not have."""
    if pool not in POOLS:
        raise RecipeError(unknown("pool of layout 'official'", pool, POOLS) + "; its mean is BiPointNet's EMA-avg")


class OfficialTNet(TNet):
    """A T-Net whose rows are activated before a maximum or mean over the points; not before EMA-max."""

    def __init__(self, width: int, *, first: str, binarizer: str, pool: str, points: int):
        super().__init__(width, first=first, binarizer=binarizer, pool=pool, points=points)
        self.pool: nn.Module = nn.Dropout(0.0)  # nothing, where the layer pools
        if pool == "mean" or (pool == "max" and _reads_floats(binarizer)):
            self.add_module("conv3", Layer(128, 1024, binarizer=binarizer, activation=activation_of(binarizer)))
            self.pool = Pool(pool, points)
        else:  # a clipped maximum has the sign of the maximum
            self.conv3.delta = offset(pool, points)
        _give_bias(self.fc3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, width) -> (B, width * width)."""
        x = self.pool(self.conv3(self.conv2(self.conv1(x))))
        return self.fc3(self.fc2(self.fc1(x)))


def _reads_floats(binarizer: str) -> bool:
    """Return whether layers of a binarizer see more of their inputs than signs."""
    return binarizer == REAL or BINARIZERS[binarizer].scales_rows or BINARIZERS[binarizer].gates


def _give_bias(layer: Layer) -> None:
    """Give a layer without batch norm the bias that the release's IR-Net has."""
    if isinstance(layer.binarizer, IrNet):
        layer.bias = nn.Parameter(layer.weight.new_zeros(layer.outputs))


class OfficialPointNet(PointNet):
    """PointNet; arguments as those of `PointNet`."""

    def __init__(self, *, classes: int, binarizer: str, pool: str, points: int, transforms: bool):
        check_pool(pool)
        super().__init__(classes=classes, binarizer=binarizer, pool=pool, points=points, transforms=False)
        shared: dict[str, Any] = {"binarizer": binarizer, "pool": pool, "points": points}
        if transforms:
            self.input_net = OfficialTNet(3, first=REAL, **shared)
            self.feature_net = OfficialTNet(64, first=binarizer, **shared)
        self.conv3.delta = offset(pool, points)


class Late(nn.Module):
    """linear -> ReLU -> batch norm on (..., inputs) -> (..., outputs).

    zeros  inputs of 0 are common, and 0 to a binary layer too, as the release has it
    """

    def __init__(self, inputs: int, outputs: int, *, binarizer: str, zeros: bool = False):
        super().__init__()
        kind = TernaryLayer if zeros and binarizer != REAL else Layer
        self.linear = kind(inputs, outputs, binarizer=binarizer, activation="relu", norm=False, ordered=True)
        _give_bias(self.linear)
        self.norm = RowNorm(outputs, activation="none")

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return self.norm(self.linear(x))


def chain(widths: Sequence[int], *, binarizer: str, lifts: bool) -> nn.Sequential:
    """Return layers of these widths.

    lifts  the first one sees positions: in a binary network it is real-valued and linear, with nothing after it; else
           it sees differences of rows, of which many are 0
    """
    layers: list[nn.Module] = [Late(a, b, binarizer=binarizer) for a, b in pairwise(widths)]
    if not lifts:
        layers[0] = Late(widths[0], widths[1], binarizer=binarizer, zeros=True)
    elif binarizer != REAL:
        layers[0] = real(widths[0], widths[1], norm=False)
    return nn.Sequential(*layers)


class OfficialDGCNN(Classifier):
    """DGCNN; arguments as those of `DGCNN`.

    A point is its own first neighbour, as in present PyTorch Geometric; in older ones it was none.
    """

    def __init__(self, *, classes: int, binarizer: str, pool: str, points: int, k: int = 20):
        check_pool(pool)
        super().__init__()
        self.near1, self.near2 = Nearest(k), NearestFeatures(k)
        self.relative, self.beside = GatherSubtract(), Concat()
        self.edges1 = chain((6, 64, 64, 64), binarizer=binarizer, lifts=True)
        self.edges2 = chain((128, 128), binarizer=binarizer, lifts=False)
        self.conv3 = Late(192, 1024, binarizer=binarizer)
        self.pool1, self.pool2, self.pool3 = GroupPool(pool, k), GroupPool(pool, k), Pool(pool, points)
        for module, rows in ((self.pool1, k), (self.pool2, k), (self.pool3, points)):
            module.delta = offset(pool, rows)
        self.fc1, self.fc2 = Late(1024, 512, binarizer=binarizer), Late(512, 256, binarizer=binarizer)
        self.dropout = nn.Dropout(0.5 if binarizer == REAL else 0.0)
        self.classifier = real(256, classes, norm=False)

    def forward(self, xyz: Tensor) -> Tensor:
        """(B, n, 3) -> logits (B, classes)."""
        x = self.pool1(self.edges1(self._edges(xyz, self.near1(xyz, xyz))))
        y = self.pool2(self.edges2(self._edges(x, self.near2(x, x))))
        x = self.pool3(self.conv3(self.beside(x, y)))
        return self.classifier(self.dropout(self.fc2(self.fc1(x))))

    def _edges(self, x: Tensor, near: Tensor) -> Tensor:
        return self.beside(x, self.relative(x, near, x))


class OfficialPointNet2(Classifier):
    """PointNet++; arguments as those of `PointNet2`.

    Sampling starts at row 0, and of more than k points in a ball the first k by row count; the real-valued release
    starts anywhere, and its search may take others.
    """

    def __init__(
        self,
        *,
        classes: int,
        binarizer: str,
        pool: str,
        points: int,
        k: int = 64,
        ratios: Sequence[float] = (0.5, 0.25),
        radii: Sequence[float] = (0.2, 0.4),
    ):
        check_pool(pool)
        if pool == "mean":  # a group with few points is filled up with its first one, which a mean would feel
            raise RecipeError("pool 'mean': layout 'official' of pointnet2 has max and ema-max alone")
        super().__init__()
        act = activation_of(binarizer)
        self.sample1, self.sample2 = (FarthestPoints(ratio) for ratio in ratios)
        self.ball1, self.ball2 = (Ball(radius, k) for radius in radii)
        self.gather, self.relative, self.beside = Gather(), GatherSubtract(), Concat()
        self.sa1 = chain((3, 64, 64, 128), binarizer=binarizer, lifts=True)
        self.sa2 = chain((131, 128, 128, 256), binarizer=binarizer, lifts=False)
        self.sa3 = chain((259, 256, 512, 1024), binarizer=binarizer, lifts=False)
        self.pool1, self.pool2, self.pool3 = GroupPool(pool, k), GroupPool(pool, k), Pool(pool, points)
        # The release's offsets are those of 64 and 1,024 rows, though the last pool has an eighth of the points.
        self.pool1.delta = self.pool2.delta = offset(pool, 64)
        self.pool3.delta = offset(pool, 1024)
        head: dict[str, Any] = {"binarizer": binarizer, "activation": act, "norm": False, "ordered": True}
        self.fc1 = Layer(1024, 512, **head)
        self.fc2 = (Layer if binarizer == REAL else TernaryLayer)(512, 256, **head)  # a sum of signs alone may be 0
        _give_bias(self.fc1)
        _give_bias(self.fc2)
        self.dropout = nn.Dropout(0.5 if binarizer == REAL else 0.0)
        self.classifier = real(256, classes, norm=False)

    def forward(self, xyz: Tensor) -> Tensor:
        """(B, n, 3) -> logits (B, classes)."""
        centres = self.gather(xyz, self.sample1(xyz))
        near = self.ball1(centres, xyz)
        x, xyz = self.pool1(self.sa1(self.relative(xyz, near, centres))), centres
        centres = self.gather(xyz, self.sample2(xyz))
        near = self.ball2(centres, xyz)
        rows = self.beside(self.gather(x, near), self.relative(xyz, near, centres))
        x = self.pool2(self.sa2(rows))
        x = self.pool3(self.sa3(self.beside(x, centres)))
        return self.classifier(self.dropout(self.fc2(self.fc1(x))))
