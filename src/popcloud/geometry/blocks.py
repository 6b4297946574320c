"""Rooms in blocks: square columns from floor to ceiling, nine features a point (Qi et al., PointNet, CVPR 2017, 5.2).

The same columns and features in both lives: `block_set` draws blocks of one size to learn from, `blocks_of` gives every
point of a room once, to answer for. As in PointNet's code for S3DIS, lengths are measured from the room's lowest x, y
and z, and a block's own x and y from the middle of a square whose corner is the lowest x and y of the block's points.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import IGNORE, BlockSet, Floats, PointCloud, SceneSet, check_xyz
from popcloud.errors import CloudError

Rows = NDArray[np.int64]

COLOURS = ("red", "green", "blue")
FEATURES = ("x", "y", "z", *COLOURS, "room_x", "room_y", "room_z")
SIZE = 1.0  # edge of a column, metres
POINTS = 4096  # drawn from a block to learn from
FEWEST = 100  # points of a block that is worth learning from
MOST_CELLS = 100_000  # along one axis; more is a cloud in another unit, or one stray point


class Block(NamedTuple):
    """Some points of a room: `rows` (M,) int64 of its cloud, rising; `features` (M, 9) float32, see FEATURES."""

    rows: Rows
    features: Floats


def blocks_of(xyz: object, colours: object, *, size: float = SIZE, most: int = 0, name: str = "cloud") -> list[Block]:
    """Cut a room into blocks that hold every point once.

    xyz      (N, 3), metres, z up
    colours  (N, 3): red, green, blue in [-1, 1], as SceneSet has them
    size     edge of a column, metres
    most     a column of more points is dealt out into blocks of at most so many, each with every k-th point, so that
             all of them see the whole column; 0: a column is a block
    name     says which cloud in the message
    Returns blocks in order of x, then y. x, y and z are metres: x and y from the block's middle, z from the lowest
    point of the room; colours in 0 to 1; the position in the room in 0 to 1, 0 along an axis without extent.
    Raises CloudError for points or colours that can't be used, and for a room of too many columns.
    """
    if most < 0:
        raise CloudError(f"most: expected 0 for no limit, or at least 1 point a block, found {most}")
    points = check_xyz(xyz, name)
    whole = _room_features(points, _checked_colours(colours, len(points), name))
    dealt = []
    for rows in columns(points, size, name=name):
        features = _centred(whole[rows], size)
        parts = -(-len(rows) // most) if most else 1
        dealt += [Block(rows[part::parts], np.ascontiguousarray(features[part::parts])) for part in range(parts)]
    return dealt


def block_set(
    scenes: SceneSet,
    *,
    points: int = POINTS,
    size: float = SIZE,
    stride: float | None = None,
    fewest: int = FEWEST,
    seed: int = 0,
) -> BlockSet:
    """Cut scenes with colours and labels into blocks to learn from, `points` each.

    points  drawn from each block by the seed: different ones where it has so many, else all of them, some repeatedly
    stride  from a column to the next, metres; `size` (default) or that by a whole number: then columns overlap
    fewest  columns of fewer points are left out
    seed    the draw depends on it and the scene's name alone, so on no other scene
    Returns blocks in the order of the scenes.
    Raises CloudError for scenes without colours or labels, and where no column has enough points.
    """
    if points < 1:
        raise CloudError(f"points: expected at least 1 per block, found {points}")
    picked = [scenes.features.index(colour) for colour in COLOURS if colour in scenes.features]
    if len(picked) < len(COLOURS):
        raise CloudError(f"blocks need the features {', '.join(COLOURS)}; found {', '.join(scenes.features) or 'none'}")
    blocks, labels, rooms = [], [], []
    for cloud, name in zip(scenes.clouds, scenes.names, strict=True):
        known = _known_labels(cloud, name, len(scenes.classes))
        for rows, features in _drawn(cloud, picked, name, (size, stride), max(fewest, 1), points, seed):
            blocks.append(features)
            labels.append(known[rows])
            rooms.append(name)
    if not blocks:
        raise CloudError(f"no column of {size:g} m in these {len(scenes)} scenes has {fewest} points; lower `fewest`")
    return BlockSet(np.stack(blocks), np.stack(labels), tuple(rooms), scenes.classes, FEATURES)


def _drawn(
    cloud: PointCloud,
    picked: list[int],
    name: str,
    grid: tuple[float, float | None],
    fewest: int,
    points: int,
    seed: int,
) -> Iterator[Block]:
    """Yield the columns of a room that have enough points, `points` of each."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    xyz, size = check_xyz(cloud.xyz, name), grid[0]
    colours = None if cloud.features is None else cloud.features[:, picked]
    whole = _room_features(xyz, _checked_colours(colours, len(xyz), name))
    for rows in columns(xyz, *grid, name=name):
        if len(rows) >= fewest:
            drawn = draw(len(rows), points, rng)
            yield Block(rows[drawn], _centred(whole[rows], size)[drawn])


def draw(available: int, points: int, rng: np.random.Generator) -> Rows:
    """Return `points` of the numbers 0 .. available - 1: different ones if there are so many, else all and repeats."""
    if available >= points:
        return rng.choice(available, points, replace=False).astype(np.int64)
    return np.concatenate([np.arange(available), rng.integers(0, available, points - available)])


def columns(xyz: Floats, size: float = SIZE, stride: float | None = None, *, name: str = "cloud") -> list[Rows]:
    """Return the points of every column that has any, as rising rows of the cloud (N, 3), in order of x, then y.

    Columns begin at the lowest x and y and every `stride` metres, and hold what is less than `size` beyond; the last
    ones take the far edge in. With stride = size, the default, each point is in one column.
    Raises CloudError for a size that is no length, a stride that does not divide it, and a cloud that is too wide.
    """
    step = size if stride is None else stride
    reach = _whole(size, step)
    shifted = xyz[:, :2] - xyz[:, :2].min(axis=0)
    extent = shifted.max(axis=0)
    if not (extent / np.float32(step) < MOST_CELLS).all():
        wide = " by ".join(f"{length:.4g}" for length in extent)
        raise CloudError(f"{name}: {wide} m are too wide for columns of {size:g} m; remove stray points, or use metres")
    cells = np.maximum(np.ceil(extent / np.float32(step)), 1).astype(np.int64)
    at = np.minimum(np.floor(shifted / np.float32(step)).astype(np.int64), cells - 1)
    keys = at[:, 0] * cells[1] + at[:, 1]
    order = np.argsort(keys, kind="stable")  # the rows of a cell rise
    kept, starts = np.unique(keys[order], return_index=True)
    cut = zip(kept.tolist(), np.split(order, starts[1:]), strict=True)
    groups = {divmod(key, int(cells[1])): rows for key, rows in cut}
    if reach == 1:
        return list(groups.values())
    return _overlapping(groups, reach, np.maximum(cells - reach, 0))


def _whole(size: float, step: float) -> int:
    """Return how many steps make a column. Raises CloudError unless they are a whole number."""
    if not (np.isfinite([size, step]).all() and size > 0 and step > 0):
        raise CloudError(f"expected a size and a stride in metres, above 0, found {size} and {step}")
    reach = round(size / step)
    if reach < 1 or abs(size / step - reach) > 1e-6 * reach:
        raise CloudError(f"stride: expected the size {size:g} m, or its half, third, ..., found {step:g} m")
    return reach


def _overlapping(groups: dict[tuple[int, int], Rows], reach: int, last: Rows) -> list[Rows]:
    """Return the columns of reach x reach cells; the first one may begin at cell 0, the last one at cell `last`."""
    steps = range(reach)
    begins = {(x - i, y - j) for x, y in groups for i in steps for j in steps}
    found = []
    for x, y in sorted(begins):
        if 0 <= x <= last[0] and 0 <= y <= last[1]:
            own = [groups[x + i, y + j] for i in steps for j in steps if (x + i, y + j) in groups]
            found.append(np.sort(np.concatenate(own)))
    return found


def _room_features(xyz: Floats, colours: Floats) -> Floats:
    """Return the nine features of all points, x and y measured from the room's corner yet; float32 throughout."""
    shifted = xyz - xyz.min(axis=0)
    extent = shifted.max(axis=0)
    position = shifted / np.where(extent > 0, extent, np.float32(1))
    return np.concatenate([shifted, (colours + np.float32(1)) * np.float32(0.5), position], axis=1)


def _centred(features: Floats, size: float) -> Floats:
    """Return the features of a column with x and y from its middle."""
    middle = features[:, :2].min(axis=0) + np.float32(size / 2)
    return np.concatenate([features[:, :2] - middle, features[:, 2:]], axis=1)


def _checked_colours(colours: object, count: int, name: str) -> Floats:
    if colours is None:
        raise CloudError(f"{name}: blocks need a colour per point, found none; pass red, green, blue in [-1, 1]")
    found = np.asarray(colours, dtype=np.float32)
    if found.shape != (count, 3):
        raise CloudError(f"{name}: expected colours of shape ({count}, 3), found {found.shape}")
    if not (np.abs(found) <= 1 + 1e-5).all():
        raise CloudError(f"{name}: expected colours in [-1, 1], found others; divide 0 to 255 by 127.5 and take 1 off")
    return found


def _known_labels(cloud: PointCloud, name: str, classes: int) -> Rows:
    if cloud.labels is None:
        raise CloudError(f"{name}: expected a class per point to learn from, found none")
    if cloud.labels.shape != (len(cloud),):
        raise CloudError(f"{name}: expected {len(cloud)} labels, one per point, found {cloud.labels.shape}")
    strange = cloud.labels[(cloud.labels != IGNORE) & ((cloud.labels < 0) | (cloud.labels >= classes))]
    if len(strange):
        raise CloudError(f"{name}: expected labels 0 to {classes - 1} or {IGNORE}, found {strange[0]}")
    return cloud.labels
