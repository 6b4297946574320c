"""S3DIS in ready-made blocks: indoor3d_sem_seg_hdf5_data, as PointNet's code made and published them.

23,585 blocks of 1 m by 1 m with 4,096 points and nine features each, cut every half metre; popcloud.geometry.blocks
cuts the like from raw rooms. A folder holds all_files.txt, the ply_data_all_<n>.h5 that it lists with `data`
(M, 4096, 9) and `label` (M, 4096), and room_filelist.txt with the room of every block, a line each.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import IGNORE, BlockSet, Floats
from popcloud.data.common import check_scene_request, choose_classes, keep_scenes
from popcloud.data.hdf5 import read_arrays
from popcloud.data.s3dis import AREAS, CLASSES, SPLITS
from popcloud.data.scene_files import COLOURS, damaged, folder_of, listed, missing
from popcloud.errors import DatasetError, unknown

FEATURES = ("x", "y", "z", *COLOURS, "room_x", "room_y", "room_z")  # as popcloud.geometry.blocks has them
LAYOUT = "expected all_files.txt, room_filelist.txt and ply_data_all_<n>.h5 (indoor3d_sem_seg_hdf5_data)"
ROOM = re.compile(r"(Area_\d)_(\w+)")


def load(
    root: Path | None,
    split: str,
    *,
    test_area: str = "Area_5",
    seed: int = 0,
    classes: Sequence[str] | None = None,
    blocks: int | None = None,
) -> BlockSet:
    """Read the blocks of the area held out ("test") or of the five others ("train"), in the files' order.

    test_area  from popcloud.data.s3dis.AREAS; all six in turn are the 6-fold protocol
    seed       for the choice of `blocks`; nothing else has chance in it
    classes    class names, default all; they become classes 0, 1, ... in this order, other points IGNORE
    blocks     at most so many, drawn by the seed
    Returns blocks of rooms named Area_<n>/<room>.
    Raises DatasetError for files that are missing, damaged, or do not fit each other, and without h5py.
    """
    check_scene_request(split, None, SPLITS)
    if blocks is not None and blocks < 1:
        raise DatasetError(f"blocks: expected at least 1, found {blocks}; leave it out for all")
    if test_area not in AREAS:
        raise DatasetError(unknown("area", test_area, AREAS))
    names = choose_classes(classes, CLASSES)
    root = folder_of("s3dis_blocks", root, LAYOUT)
    rooms = _rooms(root / "room_filelist.txt")
    held_out = [room.startswith(f"{test_area}/") for room in rooms]
    wanted = keep_scenes([row for row, out in enumerate(held_out) if out == (split == "test")], blocks, seed)
    if not wanted:
        raise DatasetError(f"{root}: split {split!r} with {test_area} held out has no block; choose another area")
    data, labels = _read(root, np.array(wanted, dtype=np.int64), len(rooms))
    renumber = np.full(len(CLASSES), IGNORE, dtype=np.int64)
    renumber[[CLASSES.index(name) for name in names]] = np.arange(len(names))
    return BlockSet(data, renumber[labels], tuple(rooms[row] for row in wanted), names, FEATURES)


def _rooms(path: Path) -> list[str]:
    """Return the room of each block as Area_<n>/<room>, from lines like Area_1_conferenceRoom_1."""
    if not path.is_file():
        raise missing(path, LAYOUT)
    rooms = []
    for line in path.read_text("utf-8", errors="replace").split():
        found = ROOM.fullmatch(line)
        if not found or found[1] not in AREAS:
            raise damaged(path, f"expected lines Area_<n>_<room>, found {line!r}")
        rooms.append(f"{found[1]}/{found[2]}")
    if not rooms:
        raise damaged(path, "expected a room's name a line, found none")
    return rooms


def _read(root: Path, wanted: NDArray[np.int64], total: int) -> tuple[Floats, NDArray[np.int64]]:
    """Return the features and labels of the blocks `wanted`, which rise, of the `total` in all files."""
    parts, start = [], 0
    for line in listed(root / "all_files.txt", LAYOUT):
        path = root / Path(line).name  # the official list has a folder before each name
        if not path.is_file():
            raise missing(path, LAYOUT)
        data, labels = read_arrays(path, "data", "label")
        if data.ndim != 3 or data.shape[2] != len(FEATURES) or labels.shape != data.shape[:2]:
            raise damaged(path, f"expected data (M, N, 9) and label (M, N), found {data.shape} and {labels.shape}")
        rows = wanted[(wanted >= start) & (wanted < start + len(data))] - start
        parts.append((path, data[rows].astype(np.float32), labels[rows]))
        start += len(data)
    if start != total:
        raise damaged(root / "room_filelist.txt", f"expected a line for each of the {start} blocks, found {total}")
    for path, data, labels in parts:
        _check(path, data, labels, parts[0][1].shape[1])
    return np.concatenate([part[1] for part in parts]), np.concatenate([part[2] for part in parts]).astype(np.int64)


def _check(path: Path, data: Floats, labels: NDArray[np.integer], points: int) -> None:
    """Raise DatasetError for blocks of another size than the first file's, labels out of range, or odd numbers."""
    if data.shape[1] != points:
        raise damaged(path, f"expected {points} points a block as in the first file, found {data.shape[1]}")
    if not np.isfinite(data).all():
        raise damaged(path, "expected finite numbers, found others")
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < len(CLASSES):
        raise damaged(path, f"expected labels 0 to {len(CLASSES) - 1}, found {labels.min()} to {labels.max()}")
