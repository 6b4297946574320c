"""S3DIS (Armeni et al., CVPR 2016): 272 rooms of six indoor areas, 13 classes, as text.

A room is Area_<n>/<room>/<room>.txt, all its points, and Area_<n>/<room>/Annotations/<class>_<number>.txt, the same
points object by object; both have lines x y z red green blue. The cloud is put together from the objects, as in
PointNet's code; the room's own file says how many points there must be. z is up, the unit is a metre.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import PointCloud, SceneSet, check_xyz
from popcloud.data.common import check_scene_request, keep_scenes
from popcloud.data.scene_files import COLOURS, check_halves, damaged, folder_of, missing, scaled_colours, scene_set
from popcloud.errors import DatasetError, unknown

CLASSES = (
    "ceiling", "floor", "wall", "beam", "column", "window", "door", "table", "chair", "sofa", "bookcase", "board",
    "clutter",
)  # fmt: skip
COUNTED_AS = {"stairs": "clutter", "staris": "clutter"}  # a few rooms have them; PointNet's code began the custom
AREAS = tuple(f"Area_{number}" for number in range(1, 7))
SPLITS = ("train", "test")  # there is no official validation split
LAYOUT = "expected Area_{1..6}/<room>/<room>.txt and Area_{1..6}/<room>/Annotations/<class>_<number>.txt"

COPY = re.compile(r".* \(\d+\)")  # Area_5/office_36 as published holds `wall_3 (1).txt`, a copy
SHARE = 0.99  # of a room's points that must be in its objects: below that, objects are missing


def load(
    root: Path | None,
    split: str,
    *,
    test_area: str = "Area_5",
    seed: int = 0,
    classes: Sequence[str] | None = None,
    scenes: int | None = None,
) -> SceneSet:
    """Read the rooms of the area held out ("test") or of the five others ("train"), in order of area and name.

    root       the folder that holds Area_1 to Area_6 (Stanford3dDataset_v1.2_Aligned_Version)
    test_area  from AREAS; all six in turn are the 6-fold protocol
    seed       for the choice of `scenes`; nothing else has chance in it
    classes    names from CLASSES, default all; they become classes 0, 1, ... in this order, other points IGNORE
    scenes     at most so many rooms, drawn by the seed; the others are not read
    Returns clouds named Area_<n>/<room> with colours in [-1, 1], the points in order of the objects' names.
    Raises DatasetError for an area that is missing, a room without annotations or annotations without their room,
    objects of another class, and files that are damaged.
    """
    check_scene_request(split, scenes, SPLITS)
    if test_area not in AREAS:
        raise DatasetError(unknown("area", test_area, AREAS))
    root = folder_of("s3dis", root, LAYOUT)
    areas = [area for area in AREAS if (area == test_area) == (split == "test")]
    rooms = keep_scenes([room for area in areas for room in _rooms(root / area)], scenes, seed)
    clouds = ((f"{room.parent.name}/{room.name}", read_room(room)) for room in rooms)
    return scene_set(root, clouds, CLASSES, classes, COLOURS)


def _rooms(area: Path) -> list[Path]:
    """Return the folders of an area's rooms, all of them complete."""
    rooms = sorted(path for path in area.glob("[!.]*") if path.is_dir())
    if not rooms:
        raise missing(area if not area.is_dir() else area / "<room>", LAYOUT)
    for room in rooms:
        check_halves(_cloud_of(room), room / "Annotations", "fetch the room again")
    return rooms


def _cloud_of(room: Path) -> Path:
    """Return the path of a room's own file: <room>.txt, or the only one (Area_6/copyRoom_1 has copy_Room_1.txt)."""
    found = sorted(room.glob("[!.]*.txt"))
    return found[0] if len(found) == 1 else room / f"{room.name}.txt"


def read_room(room: Path) -> PointCloud:
    """Read one room from its folder: xyz in metres, colours in [-1, 1], labels 0 to 12."""
    paths = sorted(path for path in (room / "Annotations").glob("[!.]*.txt") if not COPY.fullmatch(path.stem))
    if not paths:
        raise missing(room / "Annotations" / "<class>_<number>.txt", LAYOUT)
    kinds = [_class_of(path) for path in paths]  # all known? before the first is read
    objects = [_read_object(path) for path in paths]
    rows = np.concatenate(objects)
    _check_share(room, len(rows))
    labels = np.repeat(np.array(kinds, dtype=np.int64), [len(one) for one in objects])
    return PointCloud(check_xyz(rows[:, :3], str(room)), scaled_colours(rows[:, 3:]), labels)


def _check_share(room: Path, annotated: int) -> None:
    """Raise DatasetError where the objects have far fewer or more points than the room."""
    cloud = _cloud_of(room)
    content = cloud.read_bytes()
    points = content.count(b"\n") + (content[-1:] not in (b"\n", b""))
    if not points * SHARE <= annotated <= points / SHARE:
        raise DatasetError(
            f"{room / 'Annotations'}: expected the {points} points of {cloud.name}, found {annotated}; "
            "the room is half written or holds more than it should, fetch it again"
        )


def _class_of(path: Path) -> int:
    """Return the class that an object's file name says."""
    name = path.stem.partition("_")[0]
    name = COUNTED_AS.get(name, name)
    if name not in CLASSES:
        raise DatasetError(f"{path}: expected <class>_<number>.txt; {unknown('class', name, CLASSES)}")
    return CLASSES.index(name)


def _read_object(path: Path) -> NDArray[np.float64]:
    """Return the lines (N, 6) of an object's file, x y z red green blue."""
    # Area_5/hallway_6/Annotations/ceiling_1.txt as published has a zero byte for a blank in line 180389.
    content = path.read_bytes().replace(b"\0", b" ")
    if not content.strip():
        raise damaged(path, "expected lines x y z red green blue, found none")
    try:
        rows = np.loadtxt(BytesIO(content), dtype=np.float64, ndmin=2)
    except ValueError as error:
        raise damaged(path, f"expected lines x y z red green blue ({' '.join(str(error).split())})") from error
    if rows.shape[1] != 6:
        raise damaged(path, f"expected lines x y z red green blue, found {rows.shape[1]} numbers a line")
    if not np.isfinite(rows).all():
        raise damaged(path, "expected finite numbers, found others")
    return rows
