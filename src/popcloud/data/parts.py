"""Made-up objects of nine categories with 28 parts, a little turned, seen in part: a data set from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import Floats, PartSet, PointCloud
from popcloud.data.common import PART_SPLITS, check_part_request, choose_categories, normalize_all
from popcloud.data.mesh import Mesh, sample_faces, union
from popcloud.data.part_objects import OBJECTS
from popcloud.data.shapes import DRAWN, STRETCH, about_x, about_z, first_seen, in_view
from popcloud.errors import DatasetError

CATEGORIES = tuple(OBJECTS)
PARTS = tuple(f"{category}/{part}" for category, (_, parts) in OBJECTS.items() for part in parts)
FEATURES = ("normal_x", "normal_y", "normal_z")
CLOUDS = {"train": 1800, "val": 225, "test": 450}
POINTS = 2048

TURN, TILT = 30.0, 15.0  # degrees at most, about the upright to either side and off it: objects stand as aligned ones
JITTER = 0.008  # standard deviation of the noise, as a share of an object's size (1)


def load(
    root: Path | None,
    split: str,
    *,
    points: int | None = None,
    seed: int = 0,
    categories: Sequence[str] | None = None,
    clouds: int | None = None,
) -> PartSet:
    """Make the split from the seed; the same arguments give the same bits, and no two splits share a cloud.

    root        not read: the objects come from a seed
    points      per cloud, default POINTS
    categories  names from CATEGORIES, default all; they become categories 0, 1, ... in this order, and their parts
                parts 0, 1, ...
    clouds      how many in all, spread evenly over the categories (default: CLOUDS)
    Returns clouds in random order, in the unit sphere, with their unit normals.
    Raises DatasetError for an unknown split or category, or counts below 1.
    """
    check_part_request(split, points, clouds)
    names = choose_categories(categories, CATEGORIES)
    total, size = clouds or CLOUDS[split], points or POINTS
    if total < len(names):
        raise DatasetError(f"parts: {total} clouds can't show {len(names)} categories; ask for one of each at least")
    parts = tuple(part for name in names for part in PARTS if part.startswith(f"{name}/"))
    stream, made = PART_SPLITS.index(split), []
    for row, name in enumerate(names):
        # One stream per category: its objects are the same whichever others are asked for.
        rng = np.random.default_rng([seed, stream, CATEGORIES.index(name)])
        made += make(name, len(range(row, total, len(names))), size, rng, parts.index(f"{name}/{OBJECTS[name][1][0]}"))
    category = np.concatenate([np.full(len(range(row, total, len(names))), row) for row in range(len(names))])
    order = np.random.default_rng([seed, stream, len(CATEGORIES)]).permutation(total)
    titles = tuple(f"{split}_{number:04d}" for number in range(total))
    return PartSet(tuple(made[i] for i in order), category[order].astype(np.int64), titles, names, parts, FEATURES)


def make(name: str, count: int, points: int, rng: np.random.Generator, first: int = 0) -> list[PointCloud]:
    """Return `count` clouds of the category `name`, ready for a network; its parts have the labels `first`, ..."""
    drawn = [_drawn(name, pose, DRAWN * points, rng) for pose in _poses(count, rng)]
    rows = np.stack(drawn)  # x, y, z, normal, part: they stay together
    seen = first_seen(rows, in_view(rows[..., :3], rows[..., 3:6], rng), points)
    noise = np.float32(JITTER) * rng.standard_normal((count, points, 3), dtype=np.float32)
    xyz = normalize_all(seen[..., :3] + noise)
    return [
        PointCloud(one, np.ascontiguousarray(row[:, 3:6]), row[:, 6].astype(np.int64) + first)
        for one, row in zip(xyz, seen, strict=True)
    ]


def _poses(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return (count, 3, 3) for `row vectors @ pose`: a stretch along x, y, z, a limited turn, a limited tilt."""
    stretch = rng.uniform(1 - STRETCH, 1 + STRETCH, (count, 3))
    turn, tilt = np.radians(TURN) * rng.uniform(-1, 1, count), np.radians(TILT) * rng.random(count)
    toward = rng.uniform(0, 2 * np.pi, count)
    return stretch[:, :, None] * (about_z(toward) @ about_x(tilt) @ about_z(turn - toward))


def _drawn(name: str, pose: NDArray[np.float64], count: int, rng: np.random.Generator) -> Floats:
    """Return points (count, 7) of a new object of size 1 in a pose: x, y, z, unit normal, part of the category."""
    maker, parts = OBJECTS[name]
    pieces = maker(rng)
    body = union(*(mesh for _, mesh in pieces))
    low, high = body.vertices.min(axis=1, keepdims=True), body.vertices.max(axis=1, keepdims=True)
    centred = body.vertices - (low + high) / 2
    posed = (centred / np.linalg.norm(centred, axis=2).max()) @ pose
    xyz, normals, faces = sample_faces(Mesh(posed.astype(np.float32), body.faces), count, rng)
    part = np.repeat([parts.index(piece) for piece, _ in pieces], [len(mesh.faces) for _, mesh in pieces])[faces]
    return np.concatenate([xyz[0], normals[0], part[0, :, None].astype(np.float32)], axis=1)
