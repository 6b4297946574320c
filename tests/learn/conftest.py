"""A network and a data set small enough to be trained many times in a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from popcloud.cloud import CloudSet
from popcloud.data import DATASETS
from popcloud.learn.backbones import BACKBONES
from popcloud.learn.layers import Layer, PooledLayer
from popcloud.learn.recipe import Recipe, load

CLASSES = ("near", "wide", "tall")
STRETCH = np.array([[0.2, 0.2, 0.2], [1.0, 1.0, 0.2], [0.2, 0.2, 1.0]], dtype=np.float32)


class Tiny(nn.Module):
    """Each kind of layer once, and dropout, so that PyTorch's random state matters."""

    def __init__(self, *, classes: int, binarizer: str, pool: str, points: int):
        super().__init__()
        self.conv1 = Layer(3, 16, binarizer="real", activation="hardtanh")
        self.conv2 = PooledLayer(16, 32, binarizer=binarizer, pool=pool, points=points)
        self.fc1 = Layer(32, 16, binarizer=binarizer, activation="hardtanh")
        self.dropout = nn.Dropout(0.2)
        self.classifier = Layer(16, classes, binarizer="real", norm=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.fc1(self.conv2(self.conv1(x)))))

    def loss_terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self(x)
        return logits, logits.new_zeros(())


def blobs(
    root: Path | None,
    split: str,
    *,
    points: int,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    clouds: int | None = None,
) -> CloudSet:
    """Noise stretched along the axes, differently for each class."""
    rng = np.random.default_rng([seed, split == "train"])
    names = tuple(classes or CLASSES)
    labels = np.arange(clouds or 30, dtype=np.int64) % len(names)
    noise = rng.standard_normal((len(labels), points, 3), dtype=np.float32)
    return CloudSet(noise * STRETCH[labels][:, None], labels, names)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """Return a function from overrides to a recipe of a run that takes a fraction of a second."""
    monkeypatch.setitem(BACKBONES, "tiny", Tiny)
    monkeypatch.setitem(DATASETS, "blobs", blobs)
    plain = ["backbone=tiny", "dataset=blobs", "points=16", "epochs=3", "batch=8", "train_size=30", "test_size=12"]
    plain.append("threads=1")  # such small sums only lose by a second thread

    def make(*overrides: str, **fields: Any) -> Recipe:
        return load(None, [*plain, *overrides, *(f"{name}={value}" for name, value in fields.items())])

    return make


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Return a function that sets PyTorch's number of threads; afterwards it is as it was."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
