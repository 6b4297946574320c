"""PointNet, vanilla and with both T-Nets, real-valued and binary from one class.

Qi et al. 2017; the binary form is BiPointNet's (Qin et al. 2021): the trunk's first layer, the input T-Net's first
layer and the classifier stay real-valued, everything else is binary, the last layers of the T-Nets too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from popcloud.learn.binarizers import REAL
from popcloud.learn.layers import Layer, PooledLayer, Transform, activation_of


class TNet(nn.Module):
    """From points (B, n, width) to a matrix (B, width * width) that is added to the identity.

    first    the binarizer of the first layer: real for the input T-Net, the network's own for the feature T-Net
    ordered  that layer as Layer has it
    """

    def __init__(self, width: int, *, first: str, binarizer: str, pool: str, points: int, ordered: bool = False):
        super().__init__()
        act = activation_of(binarizer)
        self.conv1 = Layer(width, 64, binarizer=first, activation=act, ordered=ordered)
        self.conv2 = Layer(64, 128, binarizer=binarizer, activation=act)
        self.conv3 = PooledLayer(128, 1024, binarizer=binarizer, pool=pool, points=points)
        self.fc1 = Layer(1024, 512, binarizer=binarizer, activation=act)
        self.fc2 = Layer(512, 256, binarizer=binarizer, activation=act)
        self.fc3 = Layer(256, width * width, binarizer=binarizer, norm=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, width) -> (B, width * width)."""
        x = self.conv3(self.conv2(self.conv1(x)))
        return self.fc3(self.fc2(self.fc1(x)))


class PointNet(nn.Module):
    """Classify clouds (B, n, 3) -> (B, classes).

    transforms  with the input and the feature T-Net, or "vanilla"
    binarizer   a name in BINARIZERS, or "real"
    pool        a name in POOLS
    points      how many points a cloud has; sets delta of the pools
    dropout     before the classifier; the binary form has none (methods of both papers)
    """

    def __init__(self, *, classes: int, binarizer: str, pool: str, points: int, transforms: bool, dropout: float = 0.4):
        super().__init__()
        act = activation_of(binarizer)
        shared: dict[str, Any] = {"binarizer": binarizer, "pool": pool, "points": points}
        self.input_net = TNet(3, first=REAL, **shared) if transforms else None
        self.feature_net = TNet(64, first=binarizer, **shared) if transforms else None
        self.input_transform, self.feature_transform = Transform(), Transform()  # no weights; vanilla leaves them out
        self.conv1 = Layer(3, 64, binarizer=REAL, activation=act)
        self.conv2 = Layer(64, 128, binarizer=binarizer, activation=act)
        self.conv3 = PooledLayer(128, 1024, **shared)
        self.fc1 = Layer(1024, 512, binarizer=binarizer, activation=act)
        self.fc2 = Layer(512, 256, binarizer=binarizer, activation=act)
        self.dropout = nn.Dropout(dropout if binarizer == REAL else 0.0)
        self.classifier = Layer(256, classes, binarizer=REAL, norm=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, 3) -> logits (B, classes)."""
        return self._logits_and_transform(x)[0]

    def loss_terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and the penalty of the feature transform, mean |A A^T - I| (Frobenius), 0 if vanilla."""
        logits, m = self._logits_and_transform(x)
        if m is None:
            return logits, logits.new_zeros(())
        a = Transform.matrix(m, 64)
        return logits, torch.linalg.matrix_norm(a @ a.mT - torch.eye(64, dtype=a.dtype, device=a.device)).mean()

    def _logits_and_transform(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        m = None
        if self.input_net is not None:
            x = self.input_transform(x, self.input_net(x))
        x = self.conv1(x)
        if self.feature_net is not None:
            m = self.feature_net(x)
            x = self.feature_transform(x, m)
        x = self.conv3(self.conv2(x))
        x = self.fc2(self.fc1(x))
        return self.classifier(self.dropout(x)), m
