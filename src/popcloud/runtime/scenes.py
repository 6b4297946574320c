"""Running a model that answers for each point: a scene in one go, or in tiles where it would need too much memory."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from popcloud.cloud import Floats, PointCloud, check_xyz
from popcloud.errors import CloudError, RecipeError
from popcloud.geometry.inputs import Columns, own_features
from popcloud.geometry.voxels import FARTHEST, MAX_SITES
from popcloud.packed.file import read
from popcloud.packed.program import Array, Grid, Program
from popcloud.runtime import sites, tiles
from popcloud.runtime.tiles import Longs, Progress, Seams, Tiling

MANY = 1 << 20  # sites of the scene from which the memory per site is taken
LISTS = 256  # bytes of neighbour lists and children per site of level 0, about: some 200 in towns and rooms with shifts

Call = Callable[[Floats, Floats | None, bool], Array]
"""(points (N, 3), features (N, F), whether those are all columns or only the cloud's own) -> a row per point."""


@dataclass(frozen=True)
class Reading:
    """How a program is carried out: answers (N, classes), labels (N,), and, where they are known, bytes.

    planned  of the values of a scene, from its sites per level
    peak     that the last scene held above its points and answers
    """

    scores: Call
    labels: Call
    planned: Callable[[list[int]], int] | None = None
    peak: Callable[[], int] | None = None


@dataclass(frozen=True)
class How:
    """How a scene is run.

    tile      longest side of a tile's core in metres; None: in tiles only where the scene has too many sites
    halo      around each core, in metres; None: what exact answers need
    progress  told before the first tile and after each
    """

    tile: float | None = None
    halo: float | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        """Raise RecipeError for lengths that are none."""
        for name, length, least in (("tile", self.tile, "above 0"), ("halo", self.halo, "of 0 or more")):
            if length is not None and not (0 <= length < math.inf and (length or name == "halo")):
                raise RecipeError(f"{name} of {length:g} m: expected a number of metres {least}")


class Scenes:
    """A loaded model on a grid.

    path      its file, which is read again where tiles need to know how far an answer sees
    plan      its grid
    features  what it reads of each point
    reading   who runs it
    memory    bytes that a scene may take without tiles, about, above its points and answers
    """

    def __init__(
        self, path: str | os.PathLike[str], plan: Grid, features: tuple[str, ...], reading: Reading, memory: int
    ):
        self.path, self.plan, self.features, self.reading = path, plan, features, reading
        self.most = MAX_SITES if reading.planned is None else most_sites(reading.planned, plan.levels, memory)
        self.peak: int | None = None

    @cached_property
    def program(self) -> Program:
        """Return the program of the file."""
        return read(self.path)

    @cached_property
    def exact_halo(self) -> int:
        """Return the halo of exact answers in sites."""
        return tiles.exact_halo(self.program)

    @property
    def cube(self) -> int:
        """Return how many sites of level 0 a site of the coarsest level is wide."""
        return tiles.cube_of(self.plan)

    def scores(self, cloud: ArrayLike | PointCloud, how: How) -> Floats:
        """Return the answers (N, classes). Raises CloudError as sites.ready and tiles.cut."""
        found: Floats = self._run(self.reading.scores, cloud, how)
        return found

    def labels(self, cloud: ArrayLike | PointCloud, how: How) -> Longs:
        """Return the class of each point (N,), the first of equal ones; errors as `scores`."""
        found: Longs = self._run(self.reading.labels, cloud, how)
        return found

    def seams(self, cloud: ArrayLike | PointCloud, labels: Longs, how: How) -> Seams | None:
        """Return what a narrow halo did to labels that `labels` gave, None where no seam is; see tiles.seams."""
        ready = _checked(cloud)
        if np.shape(labels) != (len(ready),):
            raise RecipeError(f"labels: expected shape ({len(ready)},), one a point, found {np.shape(labels)}")
        tiling = self.tiling(ready.xyz, how)
        if tiling is None:
            return None
        columns = Columns(ready, self.features)
        answer, limits = self._whole(self.reading.labels), {"exact": self.exact_halo, "most": self.most}
        return tiles.seams(answer, ready.xyz, columns, labels, tiling, **limits)

    def tiling(self, xyz: Floats, how: How) -> Tiling | None:
        """Return how a cloud (N, 3) is cut, None where it is run in one go."""
        if how.tile is None and len(xyz) <= self.most:
            return None
        halo = self.exact_halo if how.halo is None else math.ceil(min(how.halo / self.plan.edge, FARTHEST))
        tiling = tiles.cut(xyz, self.plan, halo, self.most, how.tile, self.exact_halo)
        return tiling if how.tile is not None or len(tiling.tiles) > 1 else None

    def fitting_halo(self, xyz: Floats, tile: float | None = None) -> float | None:
        """Return the widest halo in metres with which tiles of a cloud (N, 3) fit memory, None for the exact one.

        It is tried out, by halves. Raises CloudError if none fits, and if the cloud does not fit the grid.
        """
        failure: CloudError | None = None
        halves = [self.exact_halo >> k for k in range(1, self.exact_halo.bit_length())]
        for halo in (None, *(self.plan.edge * half for half in halves if half >= self.cube), 0.0):
            try:
                self.tiling(xyz, How(tile, halo))
                return halo
            except CloudError as error:
                failure = error
        assert failure is not None
        raise failure

    def _run(self, call: Call, cloud: ArrayLike | PointCloud, how: How) -> Array:
        ready = _checked(cloud)
        own = own_features(ready, self.features)
        tiling = self.tiling(ready.xyz, how)
        self.peak = None
        if tiling is None:
            found = call(ready.xyz, own if own.shape[1] else None, False)
            self._note_peak()
            return found
        return tiles.run(self._whole(call), ready.xyz, Columns(ready, self.features), tiling, how.progress)

    def _whole(self, call: Call) -> tiles.Answer:
        """Return a call for points with all their columns."""

        def answer(xyz: Floats, columns: Floats) -> Array:
            found = call(xyz, columns, True)
            self._note_peak()
            return found

        return answer

    def _note_peak(self) -> None:
        if self.reading.peak is not None:
            self.peak = max(self.peak or 0, self.reading.peak())


def _checked(cloud: ArrayLike | PointCloud) -> PointCloud:
    """Return a cloud with points that are finite and float32. Raises CloudError."""
    if isinstance(cloud, PointCloud):
        return PointCloud(check_xyz(cloud.xyz), cloud.features)
    return PointCloud(check_xyz(cloud))


def most_sites(planned: Callable[[list[int]], int], levels: int, memory: int) -> int:
    """Return how many sites a scene of surfaces may have for its values and lists to take so many bytes, about."""
    per_site = LISTS + planned(tiles.sites_of_surface(MANY, levels)) / MANY
    return int(max(1, min(memory / per_site, MAX_SITES)))


def by_engine(engine: Any) -> Reading:
    """Return the engine's reading of a model that it has loaded."""
    return Reading(
        lambda xyz, features, ready: engine.answers(xyz, features, ready=ready),
        lambda xyz, features, ready: engine.labels(xyz, features, ready=ready),
        engine.planned,
        lambda: int(engine.peak),
    )


def by_reference(program: Program) -> Reading:
    """Return the numpy reading of a program."""

    def scores(xyz: Floats, features: Floats | None, ready: bool) -> Floats:
        if not ready or features is None:
            return sites.run(program, PointCloud(xyz, features))
        return sites.of_sites(program, *sites.of_columns(program, xyz, features))

    def labels(xyz: Floats, features: Floats | None, ready: bool) -> Longs:
        return np.asarray(scores(xyz, features, ready).argmax(axis=1), np.int64)

    return Reading(scores, labels)
