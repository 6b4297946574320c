"""Changing scenes at random: a crop, fewer points, another view, a bent world, another light.

All chance comes from the generator that is passed in. Made from (seed, epoch, index of the scene), as in
`np.random.default_rng([seed, epoch, index])`, it gives the same scene in any worker and any order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import IGNORE, Floats, PointCloud
from popcloud.errors import CloudError, RecipeError

COLOURS = ("red", "green", "blue", "intensity")  # the feature columns that change with the light
MAX_NODES = 1 << 21  # of an elastic distortion's grid
BLUR = np.array([1, 2, 3, 2, 1], dtype=np.float32) / 9  # a box of 3 applied twice


@dataclass(frozen=True)
class AugmentScenes:
    """What may happen to a scene, in this order; the defaults change nothing.

    crop      keep a square in x and y with edges of so many metres, placed so that it holds a labelled point where
              there is one and leaves the scene's bounds no more than it must; 0 keeps all
    dropout   up to this share of the points goes, 0 to less than 1
    matrix    standard deviation of what is added to each entry of the identity: stretches and shears, >= 0
    mirror    turn x into -x every other time
    rotate_z  turn about z by up to so many degrees either way, 0 to 180; True is any turn
    scale     one factor per scene from (low, high), 0 < low <= high
    elastic   pairs (granularity, magnitude) in metres, both > 0, one distortion after the other, see `distorted`
    offset    move each axis by 0 to less than so many metres, >= 0, so that the voxel grid falls elsewhere; the finest
              edge shifts the sites, edge * 2^(levels - 1) the grids of all levels
    colour    standard deviation of one shift per scene of each column in COLOURS, >= 0; not clipped
    The host network of BSC-Net on ScanNet uses matrix=0.1, mirror=True, rotate_z=True, colour=0.1, any offset, and
    elastic=((0.12, 0.8), (0.4, 3.2)) where it is on (SparseConvNet, examples/ScanNet/data.py).
    Matrix, mirror, turn and scale leave the middle of the scene's bounds in place.
    Raises RecipeError for a value out of range.
    """

    crop: float = 0.0
    dropout: float = 0.0
    matrix: float = 0.0
    mirror: bool = False
    rotate_z: bool | float = False
    scale: tuple[float, float] = (1.0, 1.0)
    elastic: tuple[tuple[float, float], ...] = ()
    offset: float = 0.0
    colour: float = 0.0

    def __post_init__(self) -> None:
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] < np.inf:
            raise RecipeError(f"augment.scale: expected (low, high) with 0 < low <= high, found {self.scale}")
        for pair in self.elastic:
            if not isinstance(pair, Sequence) or len(pair) != 2 or not all(0 < value < np.inf for value in pair):
                raise RecipeError(f"augment.elastic: expected pairs (granularity, magnitude) > 0, found {pair}")
        if not 0 <= self.dropout < 1:
            raise RecipeError(f"augment.dropout: expected 0 to less than 1, found {self.dropout}")
        if not 0 <= self.degrees <= 180:
            raise RecipeError(f"augment.rotate_z: expected 0 to 180, found {self.rotate_z}")
        for name in ("crop", "matrix", "offset", "colour"):
            value = getattr(self, name)
            if not 0 <= value < np.inf:
                raise RecipeError(f"augment.{name}: expected a finite number >= 0, found {value}")

    @property
    def degrees(self) -> float:
        """Return the largest turn about z, in degrees."""
        return 180.0 if self.rotate_z is True else float(self.rotate_z)

    def apply(self, cloud: PointCloud, rng: np.random.Generator, features: Sequence[str] = ()) -> PointCloud:
        """Return a changed copy of a scene; the input stays as it is.

        features  the names of its feature columns, as SceneSet.features has them; those in COLOURS change colour
        A change that is switched off draws nothing from `rng`.
        Raises CloudError if an elastic distortion needs too fine a grid for so large a scene.
        """
        if self.crop > 0:
            cloud = taken(cloud, square(cloud, self.crop, rng))
        if self.dropout > 0:
            kept = rng.random(len(cloud)) >= rng.uniform(0, self.dropout)
            cloud = taken(cloud, kept if kept.any() else ~kept)  # a scene of no points can't be learnt from
        xyz = self._turned(cloud.xyz.copy(), rng)
        for granularity, magnitude in self.elastic:
            xyz = distorted(xyz, granularity, magnitude, rng)
        if self.offset > 0:
            xyz += rng.uniform(0, self.offset, 3).astype(np.float32)
        return PointCloud(xyz, self._recoloured(cloud.features, features, rng), cloud.labels)

    def _turned(self, xyz: Floats, rng: np.random.Generator) -> Floats:
        """Apply the linear changes: as one matrix, about the middle of the bounds."""
        change = np.eye(3)
        if self.matrix > 0:
            change += self.matrix * rng.standard_normal((3, 3))
        if self.mirror and rng.random() < 0.5:
            change[0] *= -1  # row vectors: the row of x
        if self.degrees > 0:
            change = change @ _about_z(math.radians(self.degrees) * rng.uniform(-1, 1))
        if self.scale != (1.0, 1.0):
            change *= rng.uniform(*self.scale)
        if np.array_equal(change, np.eye(3)):
            return xyz
        middle = (xyz.min(axis=0) + xyz.max(axis=0)) / 2
        return np.asarray((xyz - middle) @ change.astype(np.float32) + middle)

    def _recoloured(self, features: Floats | None, names: Sequence[str], rng: np.random.Generator) -> Floats | None:
        if features is None:
            return None
        changed = features.copy()
        if self.colour > 0:
            for column, name in enumerate(names):
                if name in COLOURS:
                    changed[:, column] += np.float32(self.colour * rng.standard_normal())
        return changed


def taken(cloud: PointCloud, kept: NDArray[np.bool_]) -> PointCloud:
    """Return the points of a cloud where `kept` (N,) is true."""
    features = None if cloud.features is None else cloud.features[kept]
    return PointCloud(cloud.xyz[kept], features, None if cloud.labels is None else cloud.labels[kept])


def square(cloud: PointCloud, edge: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which points (N,) lie in a square of `edge` metres about one of the labelled points, drawn at random.

    The square is moved back into the scene's bounds where it reaches beyond them; its point stays inside.
    """
    labelled = np.flatnonzero(cloud.labels != IGNORE) if cloud.labels is not None else np.empty(0, dtype=np.int64)
    row = labelled[rng.integers(len(labelled))] if len(labelled) else rng.integers(len(cloud))
    flat = cloud.xyz[:, :2]
    low, high = flat.min(axis=0), flat.max(axis=0)
    half = np.float32(edge / 2)
    # Where the scene is narrower than the square, all of it is kept: the lower bound wins.
    start = np.maximum(np.minimum(flat[row] - half, high - 2 * half), low)
    return np.asarray(((flat >= start) & (flat <= start + 2 * half)).all(axis=1))


def distorted(xyz: Floats, granularity: float, magnitude: float, rng: np.random.Generator) -> Floats:
    """Return points (N, 3) moved by a smooth random field (Simard et al. 2003, as SparseConvNet does it in 3-D).

    Standard normal shifts at the nodes of a grid, blurred by a box of 3 nodes twice along each axis, times `magnitude`
    metres, linear in between. As in SparseConvNet's code the nodes lie 2 * `granularity` metres apart, and the blur
    leaves shifts with a standard deviation of 0.11 `magnitude`. Unlike there the field does not fade at the borders,
    and the grid covers the scene's bounds instead of twice that.
    Raises CloudError for a grid of more than MAX_NODES nodes.
    """
    low = xyz.min(axis=0)
    spacing = np.float32(2 * granularity)
    at = (xyz - low) / spacing
    nodes = at.max(axis=0).astype(np.float64) // 1 + 2
    if nodes.prod() > MAX_NODES:
        metres = " x ".join(f"{extent:.1f}" for extent in np.ptp(xyz, axis=0))
        raise CloudError(
            f"elastic: granularity {granularity:g} m in a scene of {metres} m needs {nodes.prod():.0f} nodes, "
            f"at most {MAX_NODES} are allowed; crop the scene or take a coarser granularity"
        )
    field = np.float32(magnitude) * _blurred(rng.standard_normal((*(nodes.astype(int) + 4), 3), dtype=np.float32))
    return xyz + _between(field, at)


def _blurred(noise: Floats) -> Floats:
    """Return noise (X + 4, Y + 4, Z + 4, 3) blurred along its first three axes, where the blur is whole."""
    for axis in range(3):
        length = noise.shape[axis] - len(BLUR) + 1
        along = np.moveaxis(noise, axis, 0)
        blurred = BLUR[0] * along[:length]
        for i, weight in enumerate(BLUR[1:], start=1):
            blurred += weight * along[i : i + length]
        noise = np.moveaxis(blurred, 0, axis)
    return noise


def _between(field: Floats, at: Floats) -> Floats:
    """Return the values (N, 3) of a field (X, Y, Z, 3) at places (N, 3) between its nodes, linear along each axis."""
    node = at.astype(np.int64)
    share = at - node.astype(np.float32)
    value = np.zeros_like(at)
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(corner, share, 1 - share).prod(axis=1, keepdims=True)
        x, y, z = (node + corner).T
        value += weight * field[x, y, z]
    return value


def _about_z(angle: float) -> NDArray[np.float64]:
    """Return (3, 3) for `row vectors @ rotation`."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
