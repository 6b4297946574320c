"""Clouds: from files, from data sets, and changed for training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from popcloud.cloud import BlockSet, CloudSet, PartSet, SceneSet
from popcloud.data import (
    ign_lidarhd,
    modelnet40,
    nyu_depth_v2,
    parts,
    rooms,
    s3dis,
    s3dis_blocks,
    scannet,
    semantic_kitti,
    shapenet_part,
    shapes,
)
from popcloud.errors import DatasetError, unknown

# Each entry: load(root, split, *, points, seed=0, classes=None, clouds=None) -> CloudSet, see shapes.load.
DATASETS: dict[str, Callable[..., CloudSet]] = {
    "shapes": shapes.load,
    "modelnet40": modelnet40.load,
}

# Each entry: load(root, split, *, seed=0, classes=None, scenes=None) -> SceneSet, see ign_lidarhd.load.
SCENES: dict[str, Callable[..., SceneSet]] = {
    "rooms": rooms.load,
    "ign_lidarhd_dense": partial(ign_lidarhd.load, part="dense"),
    "ign_lidarhd_sparse": partial(ign_lidarhd.load, part="sparse"),
    "scannet": scannet.load,
    "nyu_depth_v2": nyu_depth_v2.load,
    "s3dis": s3dis.load,
    "semantic_kitti": semantic_kitti.load,
}

# Each entry: load(root, split, *, points=None, seed=0, categories=None, clouds=None) -> PartSet, see parts.load.
PARTS: dict[str, Callable[..., PartSet]] = {
    "parts": parts.load,
    "shapenet_part": shapenet_part.load,
}

# Ready-made blocks of rooms; popcloud.geometry.blocks.block_set cuts the like from scenes with colours.
# Each entry: load(root, split, *, test_area, seed=0, classes=None, blocks=None) -> BlockSet, see s3dis_blocks.load.
BLOCKS: dict[str, Callable[..., BlockSet]] = {
    "s3dis_blocks": s3dis_blocks.load,
}

# The splits of each whose labels are public: what can be learnt from, chosen by and measured on.
LABELLED_SPLITS: dict[str, tuple[str, ...]] = {
    "rooms": ("train", "val", "test"),
    "ign_lidarhd_dense": ign_lidarhd.SPLITS,
    "ign_lidarhd_sparse": ign_lidarhd.SPLITS,
    "scannet": ("train", "val"),
    "nyu_depth_v2": tuple(nyu_depth_v2.SPLITS),
    "s3dis": s3dis.SPLITS,
    "semantic_kitti": ("train", "val"),
}


def dataset(name: str) -> Callable[..., CloudSet]:
    """Return the loader called `name`. Raises DatasetError that lists the valid names."""
    if name not in DATASETS:
        raise DatasetError(unknown("dataset", name, DATASETS))
    return DATASETS[name]


def scenes(name: str) -> Callable[..., SceneSet]:
    """Return the loader of scenes called `name`. Raises DatasetError that lists the valid names."""
    if name not in SCENES:
        raise DatasetError(unknown("data set of scenes", name, SCENES))
    return SCENES[name]


def part_sets(name: str) -> Callable[..., PartSet]:
    """Return the loader of objects with parts called `name`. Raises DatasetError that lists the valid names."""
    if name not in PARTS:
        raise DatasetError(unknown("data set of parts", name, PARTS))
    return PARTS[name]


def block_sets(name: str) -> Callable[..., BlockSet]:
    """Return the loader of ready-made blocks called `name`. Raises DatasetError that lists the valid names."""
    if name not in BLOCKS:
        raise DatasetError(unknown("data set of blocks", name, BLOCKS))
    return BLOCKS[name]
