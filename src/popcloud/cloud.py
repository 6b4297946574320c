"""Clouds and sets of clouds: the values handed from room to room, and how a cloud is made ready for a network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from popcloud.errors import CloudError

Floats = NDArray[np.float32]

NORMALIZATIONS = ("none", "unit_sphere")
IGNORE = -100  # the label of a point that has none: neither trained on nor counted


@dataclass(frozen=True)
class PointCloud:
    """One cloud.

    xyz       (N, 3) float32, metres
    features  (N, F) float32 or None: colour, intensity, normals
    labels    (N,) int64 or None: a class per point
    """

    xyz: Floats
    features: Floats | None = None
    labels: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.xyz)


@dataclass(frozen=True)
class CloudSet:
    """Many clouds of one size, each with one class.

    xyz      (B, N, 3) float32
    labels   (B,) int64, index into classes
    classes  the class names, in order
    """

    xyz: Floats
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of clouds."""
        return len(self.xyz)

    def subset(self, rows: NDArray[np.int64]) -> CloudSet:
        """Return the clouds at `rows` (M,), in that order."""
        return CloudSet(self.xyz[rows], self.labels[rows], self.classes)


@dataclass(frozen=True)
class SceneSet:
    """Scenes of different sizes with a class per point.

    clouds    each with labels: 0 .. len(classes) - 1, or IGNORE
    names     of the scenes: a file's or room's, unique
    classes   the class names, in order
    features  the names of the clouds' feature columns, () where they have none
    """

    clouds: tuple[PointCloud, ...]
    names: tuple[str, ...]
    classes: tuple[str, ...]
    features: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self.clouds)

    def subset(self, rows: Iterable[int]) -> SceneSet:
        """Return the scenes at `rows`, in that order."""
        kept = list(rows)
        clouds, names = tuple(self.clouds[i] for i in kept), tuple(self.names[i] for i in kept)
        return SceneSet(clouds, names, self.classes, self.features)


@dataclass(frozen=True)
class PartSet:
    """Objects of several categories, each point with the part it belongs to.

    clouds      each with labels, index into parts; all of a cloud's are parts of its category
    category    (B,) int64, index into categories
    names       of the clouds, unique
    categories  the category names, in order
    parts       the names of all parts, "Category/part", those of one category side by side
    features    the names of the clouds' feature columns, () where they have none
    """

    clouds: tuple[PointCloud, ...]
    category: NDArray[np.int64]
    names: tuple[str, ...]
    categories: tuple[str, ...]
    parts: tuple[str, ...]
    features: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of clouds."""
        return len(self.clouds)

    def parts_of(self, category: int) -> tuple[int, ...]:
        """Return the parts of a category, index into parts, in order."""
        own = self.categories[category] + "/"
        return tuple(part for part, name in enumerate(self.parts) if name.startswith(own))

    def subset(self, rows: Iterable[int]) -> PartSet:
        """Return the clouds at `rows`, in that order."""
        kept = list(rows)
        clouds, names = tuple(self.clouds[i] for i in kept), tuple(self.names[i] for i in kept)
        return PartSet(clouds, self.category[kept], names, self.categories, self.parts, self.features)


@dataclass(frozen=True)
class BlockSet:
    """Blocks of rooms, all of one size, with a class per point; see popcloud.geometry.blocks.

    blocks    (B, N, F) float32, the first three columns x, y, z
    labels    (B, N) int64: 0 .. len(classes) - 1, or IGNORE
    rooms     the name of the room that each block is cut from
    classes   the class names, in order
    features  the names of the F columns
    """

    blocks: Floats
    labels: NDArray[np.int64]
    rooms: tuple[str, ...]
    classes: tuple[str, ...]
    features: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self.blocks)

    def subset(self, rows: NDArray[np.int64]) -> BlockSet:
        """Return the blocks at `rows` (M,), in that order."""
        rooms = tuple(self.rooms[i] for i in rows.tolist())
        return BlockSet(self.blocks[rows], self.labels[rows], rooms, self.classes, self.features)


def check_xyz(xyz: object, name: str = "cloud") -> Floats:
    """Return `xyz` as (N, 3) float32, C order.

    Raises CloudError if it is empty, not finite or of another width; `name` says which cloud in the message.
    """
    points = _numbers(xyz, name, "(N, 3)")
    if points.ndim != 2 or points.shape[1] != 3:
        raise CloudError(f"{name}: expected shape (N, 3), found {points.shape}; pass x, y, z alone, one row a point")
    return _finite(points, name)


def check_rows(rows: object, name: str = "cloud") -> Floats:
    """Return `rows` as (N, F) float32, C order: x, y, z and perhaps more features of each point.

    Raises CloudError if it is empty, not finite or has fewer columns; `name` says which cloud in the message.
    """
    points = _numbers(rows, name, "(N, F)")
    if points.ndim != 2 or points.shape[1] < 3:
        raise CloudError(
            f"{name}: expected shape (N, 3) or wider, found {points.shape}; pass one row a point, xyz first"
        )
    return _finite(points, name)


def _numbers(rows: object, name: str, shape: str) -> Floats:
    try:
        with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite and is reported by _finite
            return np.ascontiguousarray(rows, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise CloudError(f"{name}: expected numbers of shape {shape}, found something else ({error})") from error


def _finite(points: Floats, name: str) -> Floats:
    if len(points) == 0:
        raise CloudError(f"{name}: expected at least one point, found none")
    if not np.isfinite(points).all():
        bad = int((~np.isfinite(points)).any(axis=1).sum())
        raise CloudError(f"{name}: {bad} of {len(points)} points are not finite; remove them first")
    return points


def resample(xyz: Floats, count: int) -> Floats:
    """Return exactly `count` points: every (N / count)-th one of a larger cloud, repetition of a smaller one.

    xyz (N, 3) or wider, N >= 1; point i of the answer is row i * N // count if N >= count, else row i % N.
    There is no chance in it: the same cloud gives the same points in training's evaluation and at run time.
    """
    rows = np.arange(count, dtype=np.int64)
    rows = rows * len(xyz) // count if len(xyz) >= count else rows % len(xyz)
    return xyz[rows]


def normalize(xyz: Floats, how: str) -> Floats:
    """Move and scale a cloud (N, 3) as a network expects it.

    how  "none", or "unit_sphere": centroid to the origin, farthest point to distance 1.
    Sums run in float64 in row order; the answer is float32. One point alone goes to the origin.
    """
    if how == "none":
        return xyz
    if how != "unit_sphere":
        raise CloudError(f"unknown normalisation {how!r}; valid: {', '.join(NORMALIZATIONS)}")
    wide = xyz.astype(np.float64)
    wide -= np.add.accumulate(wide, axis=0)[-1] / len(wide)
    radius = np.sqrt((wide[:, 0] * wide[:, 0] + wide[:, 1] * wide[:, 1] + wide[:, 2] * wide[:, 2]).max())
    return (wide / radius if radius > 0 else wide).astype(np.float32)


def prepare(xyz: object, count: int, how: str, name: str = "cloud") -> Floats:
    """Check, resample to `count` points (0: keep all) and normalise: what every network's input goes through."""
    points = check_xyz(xyz, name)
    return normalize(resample(points, count) if count else points, how)


def prepare_rows(rows: object, count: int, how: str, name: str = "cloud") -> Floats:
    """Check rows (N, F), resample them whole and normalise x, y, z: what the input of a network on points goes through.

    how  as `normalize`, or "blocks": they are a block of a room already, and stay as they are
    """
    points = check_rows(rows, name)
    points = resample(points, count) if count else points
    if how in ("none", "blocks"):
        return points
    return np.column_stack([normalize(points[:, :3], how), points[:, 3:]])
