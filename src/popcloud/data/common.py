"""What every loader does the same way: checking the request, choosing classes, normalising a whole set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import IGNORE, CloudSet, Floats, PointCloud, SceneSet
from popcloud.errors import DatasetError, unknown

SPLITS = ("train", "test")
SCENE_SPLITS = PART_SPLITS = ("train", "val", "test")
Named = TypeVar("Named")  # a scene's name or path


def check_request(split: str, points: int, clouds: int | None) -> None:
    """Raise DatasetError for an unknown split, or fewer than one point or cloud."""
    if split not in SPLITS:
        raise DatasetError(unknown("split", split, SPLITS))
    if points < 1:
        raise DatasetError(f"points: expected at least 1 per cloud, found {points}")
    if clouds is not None and clouds < 1:
        raise DatasetError(f"clouds: expected at least 1, found {clouds}; leave it out for all")


def check_part_request(split: str, points: int | None, clouds: int | None) -> None:
    """Raise DatasetError for an unknown split, or fewer than one point or cloud; None is what the loader chooses."""
    if split not in PART_SPLITS:
        raise DatasetError(unknown("split", split, PART_SPLITS))
    if points is not None and points < 1:
        raise DatasetError(f"points: expected at least 1 per cloud, found {points}; leave it out for the loader's own")
    if clouds is not None and clouds < 1:
        raise DatasetError(f"clouds: expected at least 1, found {clouds}; leave it out for all")


def choose_classes(wanted: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """Return the class names asked for, in that order; all of them for None. Raises DatasetError."""
    return _chosen(wanted, known, "class", "classes")


def choose_categories(wanted: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """Return the names of categories asked for, in that order; all of them for None. Raises DatasetError."""
    return _chosen(wanted, known, "category", "categories")


def _chosen(wanted: Sequence[str] | None, known: Sequence[str], one: str, many: str) -> tuple[str, ...]:
    if wanted is None:
        return tuple(known)
    if isinstance(wanted, str):
        raise DatasetError(f"{many}: expected a list of names, found the text {wanted!r}")
    for name in wanted:
        if name not in known:
            raise DatasetError(unknown(one, name, known))
    if not wanted or len(set(wanted)) < len(wanted):
        raise DatasetError(f"{many}: expected different names, at least one, found {list(wanted)}")
    return tuple(wanted)


def keep_classes(data: CloudSet, wanted: Sequence[str] | None) -> CloudSet:
    """Return the clouds of the classes asked for, labels renumbered to that order."""
    names = choose_classes(wanted, data.classes)
    renumber = np.full(len(data.classes), -1, dtype=np.int64)
    for label, name in enumerate(names):
        renumber[data.classes.index(name)] = label
    labels = renumber[data.labels]
    kept = np.flatnonzero(labels >= 0)
    return CloudSet(data.xyz[kept], labels[kept], names)


def keep_clouds(data: CloudSet, clouds: int | None, seed: int) -> CloudSet:
    """Return `clouds` of them, drawn by the seed, in their order in the set; all for None or when there are fewer."""
    if clouds is None or clouds >= len(data):
        return data
    drawn = np.random.default_rng(seed).choice(len(data), clouds, replace=False)
    return data.subset(np.sort(drawn).astype(np.int64))


def normalize_all(xyz: Floats) -> Floats:
    """Return clouds (B, N, 3) in the unit sphere: popcloud.cloud.normalize of each, bit for bit."""
    answer = np.empty(xyz.shape, dtype=np.float32)
    for start in range(0, len(xyz), 256):  # in slices: float64 copies of a whole set would double its memory
        wide = xyz[start : start + 256].astype(np.float64)
        wide -= np.add.accumulate(wide, axis=1)[:, -1:] / wide.shape[1]
        squares = wide * wide
        radius = np.sqrt((squares[..., 0] + squares[..., 1] + squares[..., 2]).max(axis=1))[:, None, None]
        answer[start : start + 256] = wide / np.where(radius > 0, radius, 1)
    return answer


def check_scene_request(split: str, scenes: int | None, splits: Sequence[str] = SCENE_SPLITS) -> None:
    """Raise DatasetError for a split that is none of the set's `splits`, or fewer than one scene."""
    if split not in splits:
        raise DatasetError(unknown("split", split, splits))
    if scenes is not None and scenes < 1:
        raise DatasetError(f"scenes: expected at least 1, found {scenes}; leave it out for all")


def keep_scene_classes(data: SceneSet, wanted: Sequence[str] | None) -> SceneSet:
    """Return all the scenes, labels renumbered to the classes asked for; points of the others become IGNORE."""
    names = choose_classes(wanted, data.classes)
    renumber = np.full(len(data.classes) + 1, IGNORE, dtype=np.int64)  # the last entry is for IGNORE itself
    for label, name in enumerate(names):
        renumber[data.classes.index(name)] = label
    clouds = tuple(PointCloud(cloud.xyz, cloud.features, _renumbered(cloud, renumber)) for cloud in data.clouds)
    return SceneSet(clouds, data.names, names, data.features)


def _renumbered(cloud: PointCloud, renumber: NDArray[np.int64]) -> NDArray[np.int64] | None:
    if cloud.labels is None:
        return None
    return np.asarray(renumber[np.where(cloud.labels == IGNORE, len(renumber) - 1, cloud.labels)])


def keep_scenes(names: Sequence[Named], scenes: int | None, seed: int) -> list[Named]:
    """Return `scenes` of the names or paths, drawn by the seed, in their order; all for None or when there are fewer.

    A loader asks this before it reads, so that scenes that are not wanted are not read.
    """
    if scenes is None or scenes >= len(names):
        return list(names)
    drawn = np.random.default_rng(seed).choice(len(names), scenes, replace=False)
    return [names[row] for row in np.sort(drawn)]
