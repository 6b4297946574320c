"""A network and scenes small enough to be trained through all stages many times in a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from popcloud.cloud import IGNORE, PointCloud, SceneSet
from popcloud.data import LABELLED_SPLITS, SCENES
from popcloud.learn.backbones import SCENE_BACKBONES
from popcloud.learn.backbones.unet import UNet
from popcloud.learn.scenes.recipe import SceneRecipe
from popcloud.learn.tasks import load

CLASSES = ("floor", "wall", "thing")
SIZES = {"train": 3, "val": 2, "test": 1}
PLAIN = [
    "task=scenes",
    "backbone=tiny",
    "dataset=corners",
    "edge=0.25",
    "groups=2",
    "epochs=2",
    "batch=2",
    "threads=1",
    "augment.rotate_z=true",
    "augment.crop=1.5",
]


def corner(rng: np.random.Generator, points: int = 90) -> PointCloud:
    """A floor, a wall and a ball in the corner of a room of 2 m; one point in ten has no label."""
    labels = np.arange(points, dtype=np.int64) % 3
    xyz = rng.uniform(0, 2, (points, 3)).astype(np.float32)
    xyz[labels == 0, 2] = 0
    xyz[labels == 1, 0] = 0
    ball = rng.standard_normal((points, 3)).astype(np.float32)
    ball = 1 + 0.3 * ball / np.linalg.norm(ball, axis=1, keepdims=True)
    xyz[labels == 2] = ball[labels == 2]
    features = np.stack([np.cos(labels), rng.uniform(-1, 1, points)], axis=1).astype(np.float32)
    labels[::10] = IGNORE
    return PointCloud(xyz, features, labels)


def corners(
    root: Path | None, split: str, *, seed: int = 0, classes: Sequence[str] | None = None, scenes: int | None = None
) -> SceneSet:
    """So many corners as the split has."""
    rng = np.random.default_rng([seed, list(SIZES).index(split)])
    count = scenes or SIZES[split]
    clouds = tuple(corner(rng) for _ in range(count))
    return SceneSet(clouds, tuple(f"{split}{i}" for i in range(count)), CLASSES, ("red", "other"))


@pytest.fixture
def scenes() -> SceneSet:
    """Three corners."""
    return corners(None, "train")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SceneRecipe]:
    """Return a function from overrides to a recipe of a run that takes a fraction of a second."""
    monkeypatch.setitem(SCENE_BACKBONES, "tiny", partial(UNet, width=4, blocks=1, levels=2))
    monkeypatch.setitem(SCENES, "corners", corners)
    monkeypatch.setitem(LABELLED_SPLITS, "corners", tuple(SIZES))

    def make(*overrides: str, **fields: Any) -> SceneRecipe:
        recipe = load(None, [*PLAIN, *overrides, *(f"{name}={value}" for name, value in fields.items())])
        assert isinstance(recipe, SceneRecipe)
        return recipe

    return make
