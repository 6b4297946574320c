"""IGN LiDAR HD (France): classified airborne lidar, in tiles of one npz each; ground, vegetation, building.

Files are called <split>_<part>_<easting>_<northing>.npz with split train or val and part dense or sparse, and hold
  xyz_cm     (N, 3) integer centimetres from `origin`        origin  (3,) float64 Lambert-93 metres, the tile's corner
  label      (N,) LAS class (ASPRS LAS 1.4, table 17)        intensity  (N,) of the echo, in units of its sensor
  ret        (N,) return number * 16 + number of returns of its pulse
Data: IGN LiDAR HD, Licence Ouverte / Etalab 2.0. The split is this project's own.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import IGNORE, Floats, PointCloud, SceneSet
from popcloud.data.common import check_scene_request, choose_classes, keep_scene_classes, keep_scenes
from popcloud.errors import DatasetError, unknown

CLASSES = ("ground", "vegetation", "building")
FEATURES = ("intensity", "returns", "remaining")
SPLITS = ("train", "val")
PARTS = ("dense", "sparse")
OF_LAS = {2: 0, 3: 1, 4: 1, 5: 1, 6: 2}  # LAS class to ours; what is not here is IGNORE

LAYOUT = "expected <split>_<part>_<easting>_<northing>.npz such as train_dense_77050_627755.npz"
COLUMNS = ("xyz_cm", "origin", "label", "intensity", "ret")
BRIGHT = 99  # the percentile of a tile's intensities that counts as full: it hardly differs from tile to tile
MOST_RETURNS = 5  # a pulse of more counts as one of so many


def load(
    root: Path | None,
    split: str,
    *,
    part: str = "dense",
    seed: int = 0,
    classes: Sequence[str] | None = None,
    scenes: int | None = None,
) -> SceneSet:
    """Read the tiles of one split, whole, in order of name.

    root     the folder of the npz files
    split    "train" or "val"
    part     "dense" (some 30 points per square metre, tiles of 50 m) or "sparse" (0.25, tiles of 1 km)
    seed     for the choice of `scenes`; nothing else has chance in it
    classes  names from CLASSES, default all; they become classes 0, 1, ... in this order, other points IGNORE
    scenes   at most so many tiles, drawn by the seed
    Returns clouds in metres from their tile's corner, with the features of `features_of`.
    Raises DatasetError for a folder that is missing or lacks the split, and for files that are damaged.
    """
    check_scene_request(split, scenes, SPLITS)
    if part not in PARTS:
        raise DatasetError(unknown("part of ign_lidarhd", part, PARTS))
    choose_classes(classes, CLASSES)  # refused before the work and not after it
    if root is None:
        raise DatasetError(f"ign_lidarhd: expected the data set's folder, found none; {LAYOUT}")
    paths = sorted(Path(root).glob(f"{split}_{part}_*.npz"))
    if not paths:
        state = "holds no such tile" if Path(root).is_dir() else "no such folder"
        raise DatasetError(f"{root}: {state}, wanted {split}_{part}_*.npz; {LAYOUT}")
    paths = keep_scenes(paths, scenes, seed)
    names = tuple(path.stem.removeprefix(f"{split}_") for path in paths)
    tiles = SceneSet(tuple(read_tile(path) for path in paths), names, CLASSES, FEATURES)
    return keep_scene_classes(tiles, classes)


def read_tile(path: Path) -> PointCloud:
    """Read one tile: xyz in metres from its corner, features as `features_of`, labels 0 to 2 or IGNORE.

    Raises DatasetError for a file that is no such tile.
    """
    try:
        # A stream of our own: np.load forgets to close a file that it can't read.
        with path.open("rb") as stream, np.load(stream) as file:
            missing = [name for name in COLUMNS if name not in file]
            if missing:
                raise _damaged(path, f"expected the arrays {', '.join(COLUMNS)}, found no {', '.join(missing)}")
            columns = {name: file[name] for name in COLUMNS}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, f"not a readable npz file ({error})") from error
    _check(path, columns)
    # Divided in float64: a float32 that stands for 999.99 m is exact to 0.03 mm, the float32 of Lambert-93 to 0.5 m.
    xyz = (columns["xyz_cm"] / 100.0).astype(np.float32)
    table = np.full(256, IGNORE, dtype=np.int64)
    table[list(OF_LAS)] = list(OF_LAS.values())
    return PointCloud(xyz, features_of(columns["intensity"], columns["ret"]), table[columns["label"]])


def _check(path: Path, columns: dict[str, NDArray[np.integer]]) -> None:
    points = len(columns["label"]) if columns["label"].ndim else 0
    shapes = {"xyz_cm": (points, 3), "label": (points,), "intensity": (points,), "ret": (points,)}
    for name, shape in shapes.items():
        found = columns[name]
        if not points or found.shape != shape or not np.issubdtype(found.dtype, np.integer):
            raise _damaged(path, f"{name}: expected integers of shape {shape}, found {found.dtype} of {found.shape}")
    if columns["label"].min() < 0 or columns["label"].max() > 255:
        raise _damaged(path, "label: expected LAS classes 0 to 255, found others")


def features_of(intensity: NDArray[np.integer], ret: NDArray[np.integer]) -> Floats:
    """Return the features (N, 3) float32 of FEATURES, all in [-1, 1]; none of them knows the height.

    intensity  -1 is dark, 1 as bright as the tile's 99th percentile or brighter: sensors and flights have gains of
               their own, but that percentile stays within 10 % in all tiles of one kind, while the median doubles
    returns    how many echoes the pulse had: -1 one, 1 five or more
    remaining  how many of them came after this one: -1 none, 1 four or more
    So a roof or a street is (., -1, -1), the top of a tree (., > -1, > -1), the ground below it (., > -1, -1).
    """
    full = max(float(np.percentile(intensity, BRIGHT)), 1.0)
    bright = 2 * np.minimum(intensity / full, 1) - 1
    number, returns = ret.astype(np.int64) >> 4, np.maximum(ret.astype(np.int64) & 15, 1)  # 0 of 0 is one of one
    most = MOST_RETURNS - 1
    many = 2 * np.minimum(returns - 1, most) / most - 1
    remaining = 2 * np.clip(returns - np.maximum(number, 1), 0, most) / most - 1
    return np.stack([bright, many, remaining], axis=1).astype(np.float32)


def _damaged(path: Path, what: str) -> DatasetError:
    return DatasetError(f"{path}: {what}; the file is damaged, fetch it again")
