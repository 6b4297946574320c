"""SemanticKITTI (Behley et al., ICCV 2019): scans of a turning lidar on a car, 19 classes of the single-scan benchmark.

A scan is sequences/<nn>/velodyne/<scan>.bin, rows x, y, z, remission as float32, and labels/<scan>.label, a uint32 per
point whose lower 16 bits are the class and whose upper ones the instance. z is up, the unit is a metre, the sensor is
at the origin. Ids become classes as in `learning_map` of the published semantic-kitti.yaml, which is the table below;
if the folder has a file of that name, as in its own. Class 0, unlabeled, is IGNORE here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import IGNORE, PointCloud, SceneSet, check_xyz
from popcloud.data.common import check_scene_request, keep_scenes
from popcloud.data.scene_files import (
    check_halves,
    check_lengths,
    damaged,
    folder_of,
    id_table,
    look_up,
    missing,
    scene_set,
)
from popcloud.errors import DatasetError

Table = NDArray[np.int64]

IDS_OF = {  # every class with the ids that count as it: things that move count as the same thing at rest
    "car": (10, 252),
    "bicycle": (11,),
    "motorcycle": (15,),
    "truck": (18, 258),
    "other-vehicle": (20, 13, 16, 256, 257, 259),  # bus, on-rails, and moving ones
    "person": (30, 254),
    "bicyclist": (31, 253),
    "motorcyclist": (32, 255),
    "road": (40, 60),  # 60: lane-marking
    "parking": (44,),
    "sidewalk": (48,),
    "other-ground": (49,),
    "building": (50,),
    "fence": (51,),
    "vegetation": (70,),
    "trunk": (71,),
    "terrain": (72,),
    "pole": (80,),
    "traffic-sign": (81,),
}
NOT_COUNTED = (0, 1, 52, 99)  # unlabeled, outlier, other-structure, other-object
CLASSES = tuple(IDS_OF)
FEATURES = ("intensity",)
SEQUENCES = {  # the official split
    "train": (0, 1, 2, 3, 4, 5, 6, 7, 9, 10),
    "val": (8,),
    "test": tuple(range(11, 22)),
}
MAPPING = "semantic-kitti.yaml"
LAYOUT = "expected sequences/<nn>/velodyne/<scan>.bin and sequences/<nn>/labels/<scan>.label"
WITHHELD = "the benchmark keeps the labels of sequences 11 to 21 to itself: use the split 'val'"

_TABLE = id_table(
    dict.fromkeys(NOT_COUNTED, IGNORE) | {key: i for i, keys in enumerate(IDS_OF.values()) for key in keys}
)


def load(
    root: Path | None,
    split: str,
    *,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    scenes: int | None = None,
) -> SceneSet:
    """Read the scans of one split in order of sequence and number: 19,130 for train (some 60 GB), 4,071 for val.

    root     the folder that holds sequences/
    seed     for the choice of `scenes`; nothing else has chance in it
    classes  names from CLASSES, or of the folder's own mapping, default all; they become classes 0, 1, ... in this
             order, other points IGNORE
    scenes   at most so many scans, drawn by the seed; the others are not read
    Returns clouds named <nn>/<scan> with one feature, the remission as intensity in [-1, 1].
    Raises DatasetError for a sequence that is missing, a scan without labels or labels without their scan, for halves
    that don't fit each other and for ids that are not in the map; CloudError for coordinates that are not finite.
    """
    check_scene_request(split, scenes)
    root = folder_of("semantic_kitti", root, LAYOUT)
    every = [pair for number in SEQUENCES[split] for pair in _scans(root / "sequences" / f"{number:02d}", split)]
    names, table = mapping(root / MAPPING) if (root / MAPPING).is_file() else (CLASSES, _TABLE)
    clouds = (
        (f"{path.parents[1].name}/{path.stem}", read_scan(path, ids, table))
        for path, ids in keep_scenes(every, scenes, seed)
    )
    return scene_set(root, clouds, names, classes, FEATURES)


def mapping(path: Path) -> tuple[tuple[str, ...], Table]:
    """Read a mapping in the form of semantic-kitti.yaml: class names and the class of each id, 0 being IGNORE.

    Raises DatasetError if it is not in that form, and where PyYAML is not installed.
    """
    try:
        import yaml  # only a folder with a mapping of its own needs it
    except ImportError as error:
        raise DatasetError(f"{path}: needs PyYAML: pip install 'popcloud[learn]'") from error
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        classes = {int(key): int(value) for key, value in found["learning_map"].items()}
        names = tuple(str(found["labels"][found["learning_map_inv"][i]]) for i in range(1, max(classes.values()) + 1))
        return names, id_table({key: value - 1 if value > 0 else IGNORE for key, value in classes.items()})
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(
            path, f"expected labels, learning_map and learning_map_inv, found something else ({error})"
        ) from None


def _scans(sequence: Path, split: str) -> list[tuple[Path, Path]]:
    """Return the paths of each scan of a sequence and of its labels, in order."""
    if not sequence.is_dir():
        raise missing(sequence, LAYOUT)
    clouds = {path.stem: path for path in (sequence / "velodyne").glob("*.bin")}
    labels = {path.stem: path for path in (sequence / "labels").glob("*.label")}
    for name in sorted(clouds.keys() ^ labels.keys()):
        halves = sequence / "velodyne" / f"{name}.bin", sequence / "labels" / f"{name}.label"
        check_halves(*halves, WITHHELD if split == "test" else "fetch the sequence again")
    if not clouds:
        raise missing(sequence / "velodyne" / "000000.bin", LAYOUT)
    return [(clouds[name], labels[name]) for name in sorted(clouds)]


def read_scan(cloud: Path, labels: Path, table: Table = _TABLE) -> PointCloud:
    """Read one scan from its two files: xyz in metres, intensity in [-1, 1], labels as `table` has them or IGNORE."""
    for path, record in ((cloud, 16), (labels, 4)):
        size = path.stat().st_size
        if size == 0 or size % record:
            raise damaged(path, f"expected {record} bytes per point, found {size} bytes in all")
    rows = np.fromfile(cloud, dtype="<f4").reshape(-1, 4)
    ids = np.fromfile(labels, dtype="<u4") & 0xFFFF  # the upper half counts instances
    check_lengths(cloud, len(rows), labels, len(ids))
    xyz = check_xyz(rows[:, :3], str(cloud))
    if not np.isfinite(rows[:, 3]).all():
        raise damaged(cloud, "expected finite remissions, found others")
    intensity = 2 * rows[:, 3:].astype(np.float32) - 1  # remission is 0 to 1
    return PointCloud(xyz, intensity, look_up(labels, ids, table))
