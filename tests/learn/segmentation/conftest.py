"""Objects with parts, blocks with classes, and networks small enough to be trained many times in a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from popcloud.cloud import PartSet, PointCloud, SceneSet
from popcloud.data import PARTS, SCENES
from popcloud.learn.backbones import BLOCK_BACKBONES, PART_BACKBONES
from popcloud.learn.columns import Concat, Pool
from popcloud.learn.layers import Layer
from popcloud.learn.tasks import AnyRecipe, load

CATEGORIES = ("stick", "plate")
OWN = {"stick": ("low", "high"), "plate": ("left", "middle", "right")}


class Tiny(nn.Module):
    """One layer of each kind that a network with a class per point has."""

    def __init__(self, *, classes: int, features: Sequence[str], binarizer: str, pool: str, points: int):
        super().__init__()
        self.conv1 = Layer(len(features), 16, binarizer="real", activation="hardtanh")
        self.conv2 = Layer(16, 16, binarizer=binarizer)
        self.pool, self.join = Pool(pool, points), Concat()
        self.dropout = nn.Dropout(0.1)  # so that PyTorch's random state matters
        self.classifier = Layer(32, classes, binarizer="real", norm=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.conv1(x))
        return self.classifier(self.dropout(self.join(self.pool(x), x)))

    def loss_terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self(x)
        return logits, logits.new_zeros(())


def objects(
    root: Path | None,
    split: str,
    *,
    points: int | None = None,
    seed: int = 0,
    categories: Sequence[str] | None = None,
    clouds: int | None = None,
) -> PartSet:
    """Noise stretched along an axis, cut into parts along it; objects have different numbers of points."""
    rng = np.random.default_rng([seed, len(split)])
    names = tuple(categories or CATEGORIES)
    parts = tuple(f"{name}/{part}" for name in names for part in OWN[name])
    made, category = [], np.arange(clouds or 24, dtype=np.int64) % len(names)
    for row in category.tolist():
        xyz = rng.uniform(-1, 1, (20 + int(rng.integers(20)), 3)).astype(np.float32)
        own = OWN[names[row]]
        xyz[:, 1:] *= 0.1 if names[row] == "stick" else 0.7
        cut = np.clip(((xyz[:, 0] + 1) / 2 * len(own)).astype(np.int64), 0, len(own) - 1)
        normals = np.tile(np.array([[0, 0, 1]], np.float32), (len(xyz), 1))
        made.append(PointCloud(xyz, normals, cut + parts.index(f"{names[row]}/{own[0]}")))
    features = ("normal_x", "normal_y", "normal_z")
    return PartSet(tuple(made), category, tuple(f"{split}{i}" for i in range(len(made))), names, parts, features)


def rooms(
    root: Path | None, split: str, *, seed: int = 0, classes: Sequence[str] | None = None, scenes: int | None = None
) -> SceneSet:
    """Rooms of 2 m by 1 m: the floor is dark, what is higher than 1 m is bright."""
    rng = np.random.default_rng([seed, len(split)])
    clouds = []
    for _ in range(scenes or 6):
        xyz = rng.uniform(0, 1, (400, 3)).astype(np.float32) * np.array([2, 1, 2], np.float32)
        labels = (xyz[:, 2] > 1).astype(np.int64)
        colours = np.repeat(labels[:, None] * 1.6 - 0.8, 3, axis=1).astype(np.float32)
        clouds.append(PointCloud(xyz, colours, labels))
    names = tuple(f"{split}/{i}" for i in range(len(clouds)))
    return SceneSet(tuple(clouds), names, tuple(classes or ("floor", "top", "never")), ("red", "green", "blue"))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AnyRecipe]:
    """Return a function from a task and overrides to a recipe of a run that takes a fraction of a second."""
    monkeypatch.setitem(PART_BACKBONES, "tiny", Tiny)
    monkeypatch.setitem(BLOCK_BACKBONES, "tiny", Tiny)
    monkeypatch.setitem(PARTS, "objects", objects)
    monkeypatch.setitem(SCENES, "halls", rooms)
    own = {
        "parts": ["dataset=objects", "train_size=24", "validation_size=8", "test_size=8"],
        "blocks": ["dataset=halls", "train_size=6", "test_size=2", "validation=0.2"],
    }

    def make(task: str, *overrides: str, **fields: Any) -> AnyRecipe:
        plain = [f"task={task}", *own[task], "backbone=tiny", "points=16", "epochs=3", "batch=4", "threads=1"]
        return load(None, [*plain, *overrides, *(f"{name}={value}" for name, value in fields.items())])

    return make
