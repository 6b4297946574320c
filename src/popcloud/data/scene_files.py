"""What the loaders of real scenes share: folders that may be half written, tables of label ids, colours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import IGNORE, Floats, PointCloud, SceneSet
from popcloud.data.common import keep_scene_classes
from popcloud.errors import DatasetError

COLOURS = ("red", "green", "blue")
OUTSIDE = -1  # in a table of ids: no id of the data set
MOST_SHOWN = 5  # ids or names in one message


def folder_of(name: str, root: Path | None, layout: str) -> Path:
    """Return the folder of the data set `name`; `layout` says in the message what it holds. Raises DatasetError."""
    if root is None:
        raise DatasetError(f"{name}: expected the data set's folder, found none; {layout}")
    if not Path(root).is_dir():
        raise DatasetError(f"{root}: no such folder; {layout}")
    return Path(root)


def missing(path: Path, layout: str) -> DatasetError:
    """Return the error that says a file or folder is not there."""
    return DatasetError(f"{path} is missing: the folder is half written, fetch it again; {layout}")


def damaged(path: Path, what: str) -> DatasetError:
    """Return the error that says a file can't be used."""
    return DatasetError(f"{path}: {what}; the file is damaged, fetch it again")


def check_halves(cloud: Path, labels: Path, way_out: str) -> None:
    """Raise DatasetError that names the half that is missing, where a scene has not both a cloud and its labels."""
    if not cloud.exists() and not labels.exists():
        raise DatasetError(f"{cloud} is missing, and so is {labels.name}; {way_out}")
    if not labels.exists():
        raise DatasetError(f"{cloud}: a cloud without labels, {labels} is missing; {way_out}")
    if not cloud.exists():
        raise DatasetError(f"{labels}: labels without their cloud, {cloud} is missing; {way_out}")


def check_lengths(cloud: Path, points: int, labels: Path, found: int) -> None:
    """Raise DatasetError unless there is one label per point."""
    if points != found:
        raise damaged(labels, f"expected {points} labels, one per point of {cloud.name}, found {found}")


def listed(path: Path, layout: str) -> list[str]:
    """Return the names in a text file, one a line. Raises DatasetError for a file that is missing or empty."""
    if not path.is_file():
        raise missing(path, layout)
    names = path.read_text("utf-8", errors="replace").split()
    if not names:
        raise damaged(path, "expected one name a line, found none")
    if len(set(names)) < len(names):
        raise damaged(path, "expected every name once, found repetitions")
    return names


def id_table(classes: Mapping[int, int]) -> NDArray[np.int64]:
    """Return the classes of the ids 0, 1, ... as an array: a class, IGNORE, or OUTSIDE for an id that is no key."""
    table = np.full(max(classes) + 1, OUTSIDE, dtype=np.int64)
    table[list(classes)] = list(classes.values())
    return table


def look_up(path: Path, ids: NDArray[np.integer], table: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the class of each of the ids (any shape), as `table` has it.

    Raises DatasetError that names the file and the ids it does not have.
    """
    wide = ids.astype(np.int64)
    inside = (wide >= 0) & (wide < len(table))
    labels = table[np.where(inside, wide, 0)]
    strange = np.unique(wide[~inside | (labels == OUTSIDE)])
    if len(strange):
        shown = ", ".join(str(one) for one in strange[:MOST_SHOWN]) + (", ..." if len(strange) > MOST_SHOWN else "")
        raise damaged(path, f"expected label ids of this data set, at most {len(table) - 1}, found {shown}")
    return labels


def scaled_colours(rgb: NDArray[np.number]) -> Floats:
    """Return colours 0 to 255, any shape, as float32 in [-1, 1] (SparseConvNet: / 127.5 - 1)."""
    return np.asarray(rgb, dtype=np.float32) / np.float32(127.5) - 1


def scene_set(
    root: Path,
    scenes: Iterable[tuple[str, PointCloud]],
    known: tuple[str, ...],
    wanted: Sequence[str] | None,
    features: tuple[str, ...],
) -> SceneSet:
    """Return the named scenes as a set that keeps the classes `wanted` of those `known`, see keep_scene_classes.

    Raises DatasetError where not one point has a label.
    """
    names, clouds = zip(*scenes, strict=True)
    data = keep_scene_classes(SceneSet(clouds, names, known, features), wanted)
    if not any(cloud.labels is not None and (cloud.labels != IGNORE).any() for cloud in data.clouds):
        raise DatasetError(f"{root}: no point of these {len(data)} scenes is one of {', '.join(data.classes)}")
    return data
