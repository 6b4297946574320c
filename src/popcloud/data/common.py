"""What every loader does the same way: checking the request, choosing classes, normalising a whole set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from popcloud.cloud import CloudSet, Floats
from popcloud.errors import DatasetError, unknown

SPLITS = ("train", "test")


def check_request(split: str, points: int, clouds: int | None) -> None:
    """Raise DatasetError for an unknown split, or fewer than one point or cloud."""
    if split not in SPLITS:
        raise DatasetError(unknown("split", split, SPLITS))
    if points < 1:
        raise DatasetError(f"points: expected at least 1 per cloud, found {points}")
    if clouds is not None and clouds < 1:
        raise DatasetError(f"clouds: expected at least 1, found {clouds}; leave it out for all")


def choose_classes(wanted: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """Return the class names asked for, in that order; all of them for None. Raises DatasetError."""
    if wanted is None:
        return tuple(known)
    if isinstance(wanted, str):
        raise DatasetError(f"classes: expected a list of names, found the text {wanted!r}")
    for name in wanted:
        if name not in known:
            raise DatasetError(unknown("class", name, known))
    if not wanted or len(set(wanted)) < len(wanted):
        raise DatasetError(f"classes: expected different names, at least one, found {list(wanted)}")
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
