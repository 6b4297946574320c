"""ScanNet v2 (Dai et al., CVPR 2017): rooms reconstructed from RGB-D video, 20 classes of things indoors.

Of each scene two files are read: <scene>_vh_clean_2.ply, the vertices of its mesh with their colours, and
<scene>_vh_clean_2.labels.ply, the same vertices with NYU40 ids in the property `label`. The benchmark's 20 classes are
20 of those ids; the other ids, and 0 for what nobody labelled, are IGNORE. z is up, the unit is a metre.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from popcloud.cloud import IGNORE, PointCloud, SceneSet, check_xyz
from popcloud.data.common import check_scene_request, keep_scenes
from popcloud.data.files_ply import read_columns
from popcloud.data.scene_files import (
    COLOURS,
    check_halves,
    check_lengths,
    damaged,
    folder_of,
    id_table,
    listed,
    look_up,
    missing,
    scaled_colours,
    scene_set,
)

OF_NYU40 = {  # the benchmark's classes by their NYU40 id, in the benchmark's order
    1: "wall", 2: "floor", 3: "cabinet", 4: "bed", 5: "chair", 6: "sofa", 7: "table", 8: "door", 9: "window",
    10: "bookshelf", 11: "picture", 12: "counter", 14: "desk", 16: "curtain", 24: "refrigerator", 28: "shower curtain",
    33: "toilet", 34: "sink", 36: "bathtub", 39: "otherfurniture",
}  # fmt: skip
CLASSES = tuple(OF_NYU40.values())
STRAYS = (50, 149)  # in scene0270_00, scene0270_02 and scene0384_00 as published: no NYU40 ids, unlabelled
LAYOUT = (
    "expected scannetv2_{train,val,test}.txt beside scans/<scene>/<scene>_vh_clean_2.ply and "
    "<scene>_vh_clean_2.labels.ply (test scenes: scans_test/)"
)
WITHHELD = "the benchmark keeps the labels of its test scenes to itself: use the split 'val'"

_TABLE = id_table(
    dict.fromkeys((*range(41), *STRAYS), IGNORE) | {key: CLASSES.index(name) for key, name in OF_NYU40.items()}
)


def load(
    root: Path | None,
    split: str,
    *,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    scenes: int | None = None,
) -> SceneSet:
    """Read the scenes of one of the official lists, 1201 for train and 312 for val, in the list's order.

    root     the folder with the lists and scans/
    seed     for the choice of `scenes`; nothing else has chance in it
    classes  names from CLASSES, default all; they become classes 0, 1, ... in this order, other points IGNORE
    scenes   at most so many, drawn by the seed; the others are not read
    Returns clouds with colours in [-1, 1].
    Raises DatasetError for a list, cloud or labels that are missing, for halves that don't fit each other and for ids
    that are not NYU40's; CloudError for a PLY file that is damaged.
    """
    check_scene_request(split, scenes)
    root = folder_of("scannet", root, LAYOUT)
    names = keep_scenes(listed(root / f"scannetv2_{split}.txt", LAYOUT), scenes, seed)
    pairs = [_files(root, name, split) for name in names]  # all there? before the first is read
    clouds = ((name, read_scene(*pair)) for name, pair in zip(names, pairs, strict=True))
    return scene_set(root, clouds, CLASSES, classes, COLOURS)


def _files(root: Path, name: str, split: str) -> tuple[Path, Path]:
    """Return the paths of a scene's cloud and labels."""
    folder = root / "scans" / name
    if split == "test" and not folder.is_dir():
        folder = root / "scans_test" / name
    if not folder.is_dir():
        raise missing(folder, LAYOUT)
    cloud = folder / f"{name}_vh_clean_2.ply"
    labels = folder / f"{name}_vh_clean_2.labels.ply"
    check_halves(cloud, labels, WITHHELD if split == "test" else "fetch the scene again")
    return cloud, labels


def read_scene(cloud: Path, labels: Path) -> PointCloud:
    """Read one scene from its two files: xyz in metres, colours in [-1, 1], labels 0 to 19 or IGNORE."""
    columns = read_columns(cloud)
    lacking = [name for name in (*"xyz", *COLOURS) if name not in columns]
    if lacking:
        raise damaged(cloud, f"expected the properties x, y, z, red, green, blue, found no {', '.join(lacking)}")
    xyz = check_xyz(np.stack([columns[name] for name in "xyz"], axis=1), str(cloud))
    ids = read_columns(labels).get("label")
    if ids is None or ids.dtype.kind not in "iu":
        raise damaged(labels, "expected whole numbers in the property label, found none")
    check_lengths(cloud, len(xyz), labels, len(ids))
    rgb = np.stack([columns[name] for name in COLOURS], axis=1)
    return PointCloud(xyz, scaled_colours(rgb), look_up(labels, ids, _TABLE))
