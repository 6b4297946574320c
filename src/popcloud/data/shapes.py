"""Made-up solids in random pose, scaled, noisy and seen in part: a data set from a seed, without any file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import CloudSet
from popcloud.data.common import check_request, choose_classes, normalize_all
from popcloud.data.mesh import Floats, Mesh, sample_surface
from popcloud.data.solids import SOLIDS
from popcloud.errors import DatasetError

CLASSES = tuple(SOLIDS)
CLOUDS = {"train": 2800, "test": 700}

TILT = 20.0  # degrees off the upright, at most
STRETCH = 0.12  # each axis is scaled by 1 +- this
FACING_AWAY = 0.6  # points on the far side go with a chance of up to this
CUT = 0.15  # up to this share of the points is hidden by a straight edge
JITTER = 0.01  # standard deviation of the noise, as a share of the body's size (1)
OUTLIERS = 0.01  # this share of the points, on average, lies anywhere in the unit ball
DRAWN = 2  # points drawn per point wanted, so that enough stay in view


def load(
    root: Path | None,
    split: str,
    *,
    points: int,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    clouds: int | None = None,
) -> CloudSet:
    """Make the split from the seed; the same arguments give the same bits, and the two splits share no cloud.

    root     not read: the solids come from a seed
    points   per cloud, >= 1
    classes  names from CLASSES, default all; they become classes 0, 1, ... in this order
    clouds   how many in all, spread evenly over the classes (default: 2,800 train, 700 test)
    Returns clouds in random order, in the unit sphere (see popcloud.cloud.normalize).
    Raises DatasetError for an unknown split or class, or counts below 1.
    """
    check_request(split, points, clouds)
    names = choose_classes(classes, CLASSES)
    total = clouds or CLOUDS[split]
    if total < len(names):
        raise DatasetError(f"shapes: {total} clouds can't show {len(names)} classes; ask for one of each at least")
    labels = np.arange(total, dtype=np.int64) % len(names)
    xyz = np.empty((total, points, 3), dtype=np.float32)
    stream = list(CLOUDS).index(split)
    for label, name in enumerate(names):
        # One stream per class: a class looks the same whichever others are asked for.
        rng = np.random.default_rng([seed, stream, CLASSES.index(name)])
        rows = labels == label
        xyz[rows] = make(name, int(rows.sum()), points, rng)
    order = np.random.default_rng([seed, stream, len(CLASSES)]).permutation(total)
    return CloudSet(xyz[order], labels[order], names)


def make(name: str, count: int, points: int, rng: np.random.Generator) -> Floats:
    """Return `count` clouds (count, points, 3) of the solid `name`, ready for a network."""
    body = SOLIDS[name](rng, count)
    size = np.linalg.norm(body.vertices, axis=2).max(axis=1)[:, None, None]
    posed = (body.vertices / size) @ poses(count, rng)
    drawn, normals = sample_surface(Mesh(posed.astype(np.float32), body.faces), DRAWN * points, rng)
    seen = in_view(drawn, normals, rng)
    return normalize_all(add_noise(first_seen(drawn, seen, points), rng))


def poses(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return (count, 3, 3) for `row vectors @ pose`: a stretch along x, y, z, a full turn about z, a limited tilt."""
    stretch = rng.uniform(1 - STRETCH, 1 + STRETCH, (count, 3))
    turn, toward = rng.uniform(0, 2 * np.pi, (2, count))
    tilt = rng.uniform(0, np.radians(TILT), count)
    rotation = about_z(turn) @ about_x(tilt) @ about_z(toward)
    return stretch[:, :, None] * rotation


def about_z(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotations (B, 3, 3) about z by angles (B,) in radians, for `row vectors @ rotation`."""
    c, s, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([c, s, zero, -s, c, zero, zero, zero, one], axis=-1).reshape(-1, 3, 3)


def about_x(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the same about x."""
    c, s, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([one, zero, zero, zero, c, s, zero, -s, c], axis=-1).reshape(-1, 3, 3)


def _directions(count: int, rng: np.random.Generator) -> Floats:
    """Return (count, 3, 1) float32, uniform over the sphere."""
    vectors = rng.standard_normal((count, 3, 1))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def in_view(xyz: Floats, normals: Floats, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which points (B, M) a camera in a random direction sees.

    Points on the far side go with a chance that is drawn per cloud, and a straight edge hides some of the rest.
    """
    count, drawn = xyz.shape[:2]
    away = (normals @ _directions(count, rng))[..., 0] < 0
    chance = rng.uniform(0, FACING_AWAY, (count, 1))
    seen = ~away | (rng.random((count, drawn), dtype=np.float32) >= chance)
    along = (xyz @ _directions(count, rng))[..., 0]
    rank = np.argsort(np.argsort(along, axis=1), axis=1)
    return np.asarray(seen & (rank >= rng.uniform(0, CUT, (count, 1)) * drawn))


def first_seen(xyz: Floats, seen: NDArray[np.bool_], points: int) -> Floats:
    """Return the first `points` seen points of each cloud; where there are fewer, they come again."""
    order = np.argsort(~seen, axis=1, kind="stable")
    available = np.maximum(seen.sum(axis=1, keepdims=True), 1)
    rows = np.take_along_axis(order, np.arange(points) % available, axis=1)
    return np.take_along_axis(xyz, rows[..., None], axis=1)


def add_noise(xyz: Floats, rng: np.random.Generator) -> Floats:
    """Return clouds (B, N, 3) of about unit size with jitter on every point and a few points anywhere."""
    noisy = xyz + np.float32(JITTER) * rng.standard_normal(xyz.shape, dtype=np.float32)
    stray = rng.random(xyz.shape[:2], dtype=np.float32) < OUTLIERS
    # Inside the unit ball and not beyond: one point far away would shrink the whole body when it is normalised.
    radius = np.cbrt(rng.random((int(stray.sum()), 1), dtype=np.float32))
    noisy[stray] = radius * _directions(len(radius), rng)[..., 0]
    return noisy
