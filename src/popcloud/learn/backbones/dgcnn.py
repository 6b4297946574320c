"""DGCNN, the dynamic graph network, real-valued and binary from one class.

Wang et al. 2019; the plan is BiPointNet's (Qin et al. 2021): two edge convolutions, of which the second one finds its
neighbours in the space of features. The layers on positions and the classifier stay real-valued, the rest is binary.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from popcloud.errors import RecipeError, unknown
from popcloud.learn.backbones.classifier import Classifier
from popcloud.learn.binarizers import REAL
from popcloud.learn.columns import Concat
from popcloud.learn.layers import Layer, PooledLayer, activation_of
from popcloud.learn.point_layers import (
    GatherSubtract,
    GroupPooled,
    Nearest,
    NearestFeatures,
    NearestSigns,
    RowNorm,
    real,
)

SEARCHES: dict[str, type[Nearest]] = {"features": NearestFeatures, "signs": NearestSigns}


class PositionEdges(nn.Module):
    """The edge convolution on positions: (x_i beside x_j - x_i) -> 64 -> 64 -> 64, pooled over the neighbours.

    The first layer is linear before its norm, A x_i + B (x_j - x_i) = B x_j - (B - A) x_i: computed once per point.
    """

    def __init__(self, *, k: int, binarizer: str, pool: str):
        super().__init__()
        act = activation_of(binarizer)
        self.near, self.relative = Nearest(k), GatherSubtract()
        self.neighbour, self.own = (real(3, 64, norm=False, bias=False) for _ in range(2))
        self.act = RowNorm(64, activation=act)
        self.conv2 = Layer(64, 64, binarizer=binarizer, activation=act, ordered=True)
        self.conv3 = GroupPooled(64, 64, binarizer=binarizer, pool=pool, points=k)

    def forward(self, xyz: Tensor) -> Tensor:
        """(B, n, 3) -> (B, n, 64)."""
        rows = self.relative(self.neighbour(xyz), self.near(xyz, xyz), self.own(xyz))
        return self.conv3(self.conv2(self.act(rows)))


class DGCNN(Classifier):
    """Classify clouds (B, n, 3) -> (B, classes).

    binarizer   a name in BINARIZERS, or "real"
    pool        a name in POOLS
    points      how many points a cloud has; sets delta of the last pool
    k           how many neighbours a point has, itself among them
    neighbours  of the second edge convolution: "features", nearest in Euclid's distance; "signs", those whose signs
                differ least (Hamming), which a processor counts 64 at a time; the real-valued twin has no signs and
                takes features
    dropout     in the head of the real-valued form; the binary form has none
    """

    def __init__(
        self,
        *,
        classes: int,
        binarizer: str,
        pool: str,
        points: int,
        k: int = 20,
        neighbours: str = "features",
        dropout: float = 0.4,
    ):
        super().__init__()
        if neighbours not in SEARCHES:
            raise RecipeError(unknown("kind of neighbours", neighbours, SEARCHES))
        act = activation_of(binarizer)
        shared: dict[str, Any] = {"binarizer": binarizer, "pool": pool}
        self.edges1 = PositionEdges(k=k, **shared)
        search = SEARCHES["features" if binarizer == REAL else neighbours]
        self.near, self.relative, self.beside = search(k), GatherSubtract(), Concat()
        self.edges2 = GroupPooled(128, 128, points=k, **shared)
        self.conv3 = PooledLayer(192, 1024, points=points, **shared)
        self.fc1 = Layer(1024, 512, binarizer=binarizer, activation=act, ordered=True)
        self.fc2 = Layer(512, 256, binarizer=binarizer, activation=act, ordered=True)
        self.dropout = nn.Dropout(dropout if binarizer == REAL else 0.0)
        self.classifier = real(256, classes, norm=False)

    def forward(self, xyz: Tensor) -> Tensor:
        """(B, n, 3) -> logits (B, classes)."""
        x = self.edges1(xyz)
        near = self.near(x, x)
        y = self.edges2(self.beside(x, self.relative(x, near, x)))
        x = self.conv3(self.beside(x, y))
        return self.classifier(self.dropout(self.fc2(self.fc1(x))))
