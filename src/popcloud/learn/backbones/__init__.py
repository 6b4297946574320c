"""The family of networks: one a file, one line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from torch import nn

from popcloud.errors import RecipeError, unknown
from popcloud.learn.backbones.dgcnn import DGCNN
from popcloud.learn.backbones.fcn import Fcn
from popcloud.learn.backbones.official import OfficialDGCNN, OfficialPointNet, OfficialPointNet2
from popcloud.learn.backbones.pointcnn import PointCNN
from popcloud.learn.backbones.pointconv import PointConv
from popcloud.learn.backbones.pointnet import PointNet
from popcloud.learn.backbones.pointnet2 import PointNet2
from popcloud.learn.backbones.pointnet_points import PointNetBlocks, PointNetParts
from popcloud.learn.backbones.unet import UNet
from popcloud.learn.designs import design_of

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "pointnet_vanilla": partial(PointNet, transforms=False),
    "pointnet": partial(PointNet, transforms=True),
    "pointnet2": PointNet2,
    "dgcnn": DGCNN,
    "dgcnn_hamming": partial(DGCNN, neighbours="signs"),
    "pointcnn": PointCNN,
    "pointconv": PointConv,
}

OFFICIAL: dict[str, Callable[..., nn.Module]] = {  # those that BiPointNet's release lays out in another way
    "pointnet_vanilla": partial(OfficialPointNet, transforms=False),
    "pointnet": partial(OfficialPointNet, transforms=True),
    "pointnet2": OfficialPointNet2,
    "dgcnn": OfficialDGCNN,
}

PART_BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "pointnet_parts_vanilla": partial(PointNetParts, transforms=False),
    "pointnet_parts": partial(PointNetParts, transforms=True),
}

BLOCK_BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "pointnet_blocks_vanilla": partial(PointNetBlocks, transforms=False),
    "pointnet_blocks": partial(PointNetBlocks, transforms=True),
}

SCENE_BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "unet_s": partial(UNet, width=16, blocks=1),
    "unet_h": partial(UNet, width=32, blocks=2),
    "fcn_s": partial(Fcn, width=16, blocks=1),
    "fcn_h": partial(Fcn, width=24, blocks=2),
}


def build(
    name: str, *, classes: int, binarizer: str, pool: str, points: int, layout: Literal["own", "official"] = "own"
) -> nn.Module:
    """Return a network with fresh weights. Raises RecipeError that names the valid ones.

    layout  "own", or "official": as BiPointNet's release has it, see `popcloud.learn.backbones.official`
    """
    known = OFFICIAL if layout == "official" else BACKBONES
    if name not in known:
        raise RecipeError(unknown("backbone", name, known) + (" in layout 'official'" if known is OFFICIAL else ""))
    return known[name](classes=classes, binarizer=binarizer, pool=pool, points=points)


def build_points(
    name: str, *, classes: int, features: Sequence[str], binarizer: str, pool: str, points: int
) -> nn.Module:
    """Return a network with a class per point and fresh weights: net(x (B, n, features)) -> (B, n, classes).

    features  names of the columns of x, "x", "y", "z" first
    Raises RecipeError that names the valid ones.
    """
    known = PART_BACKBONES | BLOCK_BACKBONES
    if name not in known:
        raise RecipeError(unknown("backbone", name, known))
    return known[name](classes=classes, features=features, binarizer=binarizer, pool=pool, points=points)


def build_scene(
    name: str,
    *,
    classes: int,
    features: int,
    variant: str,
    binarizer: str | None = None,
    **options: Any,
) -> nn.Module:
    """Return a network over active sites with fresh weights: net(x (sites, features), at) -> (sites, classes).

    variant     a name in VARIANTS: what BSC-Net compares
    binarizer   a name in BINARIZERS, "real", or None for the variant's own
    options     fields of a Design, such as groups
    The pyramid must have `.levels` levels with neighbourhoods of `.size`. Raises RecipeError that names the valid ones.
    """
    if name not in SCENE_BACKBONES:
        raise RecipeError(unknown("backbone", name, SCENE_BACKBONES))
    design = design_of(variant, binarizer, **options)
    return SCENE_BACKBONES[name](design, classes=classes, features=features)
