"""The family of networks: one a file, one line here."""

from __future__ import annotations

from functools import partial

from torch import nn

from popcloud.errors import RecipeError, unknown
from popcloud.learn.backbones.pointnet import PointNet

BACKBONES = {
    "pointnet_vanilla": partial(PointNet, transforms=False),
    "pointnet": partial(PointNet, transforms=True),
}


def build(name: str, *, classes: int, binarizer: str, pool: str, points: int) -> nn.Module:
    """Return a network with fresh weights. Raises RecipeError that names the valid ones."""
    if name not in BACKBONES:
        raise RecipeError(unknown("backbone", name, BACKBONES))
    return BACKBONES[name](classes=classes, binarizer=binarizer, pool=pool, points=points)
