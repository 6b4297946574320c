"""Scenes too large for one run: cut into tiles, each run with a halo of sites around it.

A site is a cube of the fixed grid, so a tile whose borders are multiples of 2^(levels - 1) sites has the same sites and
the same parents as the whole scene. An answer depends on what lies within the network's receptive field; a halo that
covers it makes the answers of a tile's core those of the whole scene, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import Floats
from popcloud.errors import CloudError, RecipeError
from popcloud.geometry.inputs import Columns
from popcloud.geometry.voxels import FARTHEST, Ints, voxelize
from popcloud.packed.program import CONVOLUTIONS, NEIGHBOURS, Array, Grid, Program, Sampling, Step

Longs = NDArray[np.int64]
Answer = Callable[[Floats, Floats], Array]
"""(points (M, 3), all their columns (M, F)) -> a row per point: scores, or a label."""

Progress = Callable[[int, int], None]
"""(tiles that are done, all tiles)."""

AT_ONCE = 1 << 20  # points whose sites are worked out together, so that float64 copies stay small
AXIS_BITS = 21  # of a site's key: 20 that a cloud may span, and one for what is rounded down to a whole cube
AXES = np.array([1 << 2 * AXIS_BITS, 1 << AXIS_BITS, 1], np.int64)


# --- how far an answer sees -------------------------------------------------------------------------------------------


def receptive_radius(program: Program) -> int:
    """Return how many sites of level 0 away, along an axis, a point can lie and still change an answer.

    Exact for the wiring, with the shifts that the file holds; weights of 0 are not looked at. The place of a site
    within its parents matters, and the worst place counts.
    """
    low, high, own = _field(program)
    return int(max((own - low).max(), (high - own).max()))


def exact_halo(program: Program) -> int:
    """Return the halo, in sites of level 0, that makes tiles exact: how far a core sees beyond its borders.

    It may be less than the radius, as borders do not cut through parents.
    """
    low, high, own = _field(program)
    return int(max((own[0] - low[0]).max(), (high[-1] - own[-1]).max()))


def cube_of(plan: Grid | Sampling | None) -> int:
    """Return how many sites of level 0 a site of the coarsest level is wide. Raises RecipeError without a grid."""
    if not isinstance(plan, Grid):
        raise RecipeError("expected a model with a voxel grid, found one for whole clouds; those are not tiled")
    return 1 << (plan.levels - 1)


def _field(program: Program) -> tuple[Longs, Longs, Longs]:
    """Return the first and the last site of level 0 that the answers of one cube of sites see, and these sites.

    All are (cube, 3), an axis at a time: what is seen is a union of boxes, and a union of boxes seen through a box is
    one again, so that its ends along an axis follow from that axis alone. Whether a neighbour is there at all depends
    on its own children, which lie within what it sees.
    """
    cube = cube_of(program.plan)
    own = np.repeat(np.arange(cube)[:, None], 3, axis=1)
    ends: dict[int, tuple[Longs, Longs]] = {0: (own, own)}
    for step in program.steps:
        seen = [_seen(program, step, place, ends[step.inputs[place]]) for place in range(len(step.inputs))]
        low = np.minimum.reduce([first for first, _ in seen])
        high = np.maximum.reduce([last for _, last in seen])
        ends |= dict.fromkeys(step.outputs, (low, high))
    return (*ends[program.steps[-1].output], own)


def _seen(program: Program, step: Step, place: int, ends: tuple[Longs, Longs]) -> tuple[Longs, Longs]:
    """Return the ends of what a step's rows see of level 0 through the input at `place`, whose own ends are given."""
    x, y = program.values[step.inputs[place]], program.values[step.output]
    cube = cube_of(program.plan)
    rows = np.repeat(np.arange(cube >> y.level)[:, None], 3, axis=1)
    if x.level < y.level:
        first, last = 2 * rows, 2 * rows + 1
    elif x.level > y.level:
        first = last = rows >> 1
    else:
        before, behind = _offsets(step) if place == 0 and step.op in CONVOLUTIONS else (0, 0)
        first, last = rows + before, rows + behind
    return _at(ends[0], first, cube), _at(ends[1], last, cube)


def _offsets(step: Step) -> tuple[Longs, Longs]:
    """Return the least and the greatest offset (3,) of a convolution that stays on its level."""
    shifts = step.blobs.get("shifts", np.zeros((1, 3), np.int8)).astype(np.int64)
    reach = round(NEIGHBOURS ** (1 / 3)) // 2
    return shifts.min(axis=0) - reach, shifts.max(axis=0) + reach


def _at(ends: Longs, sites: Longs, cube: int) -> Longs:
    """Return the ends at any sites (R, 3) from those of the first cube: they repeat from cube to cube."""
    cubes, within = np.divmod(sites, len(ends))
    seen: Longs = np.take_along_axis(ends, within, axis=0) + cubes * cube
    return seen


# --- where to cut -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tile:
    """A box of sites, its core: from `low` (3,) to before `high` (3,)."""

    low: Longs
    high: Longs

    def holds(self, sites: Ints, halo: int = 0) -> NDArray[np.bool_]:
        """Return which of the sites (N, 3) lie in the core, or in the core and its halo."""
        inside = np.ones(len(sites), np.bool_)
        for axis, column in enumerate(sites.T):
            inside &= (column >= self.low[axis] - halo) & (column < self.high[axis] + halo)
        return inside


@dataclass(frozen=True)
class Tiling:
    """A scene cut into tiles.

    sites  (N, 3) int32, each point's
    halo   in sites of level 0
    cube   sites of level 0 along the edge of the coarsest site
    tiles  their cores hold each point once
    """

    sites: Ints
    halo: int
    cube: int
    tiles: tuple[Tile, ...]


def cut(
    xyz: Floats, plan: Grid | None, halo: int, most: int, longest: float | None = None, exact: int | None = None
) -> Tiling:
    """Cut a cloud (N, 3) in two along its longest axis, and so on, until each core with its halo has few enough sites.

    halo     in sites of level 0
    most     sites in a core and its halo
    longest  side of a core in metres at most; rounded to whole cubes of 2^(levels - 1) sites, one at least
    exact    the halo of exact answers, for the error's text
    Raises CloudError if no cut makes a tile small enough, or if the cloud does not fit the grid (voxels.voxelize);
    RecipeError without a grid, and for sizes below 0.
    """
    cube = cube_of(plan)
    assert plan is not None
    if not (halo >= 0 and (longest is None or longest > 0)):
        raise RecipeError(f"tile of {longest} m, halo of {halo} sites: expected a side above 0, a halo of 0 or more")
    _check(xyz, plan.edge)
    sites = _sites(xyz, plan.edge)
    side = None if longest is None else max(1, int(min(longest / (plan.edge * cube), FARTHEST)))
    cutter = _Cutter(*_cubes(sites, cube), -(-halo // cube), most, side)
    try:
        tiles = tuple(Tile(low * cube, (high + 1) * cube) for low, high in cutter.boxes())
    except CloudError as error:
        needed = ", as exact answers need" if halo == exact else ""
        raise CloudError(f"tiles with a halo of {halo * plan.edge:g} m{needed}: {error}") from None
    return Tiling(sites, halo, cube, tiles)


def _check(xyz: Floats, edge: float) -> None:
    """Raise CloudError as voxels.voxelize if the cloud's outermost points do not fit a grid."""
    voxelize(xyz[[find(column) for column in xyz.T for find in (np.argmin, np.argmax)]], edge)


def _sites(xyz: Floats, edge: float) -> Ints:
    """Return the site of each point, (N, 3) int32, as voxels.voxelize has it."""
    sites = np.empty((len(xyz), 3), np.int32)
    for first in range(0, len(xyz), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        sites[part] = np.floor(xyz[part].astype(np.float64) / edge)
    return sites


def _cubes(sites: Ints, cube: int) -> tuple[Longs, Longs]:
    """Return the cubes (C, 3) that hold sites, in cubes from zero, and how many different sites each holds (C,)."""
    base = sites.min(axis=0).astype(np.int64) // cube
    pieces = (sites[first : first + AT_ONCE] for first in range(0, len(sites), AT_ONCE))
    keys, _ = _runs(np.concatenate([_runs((piece - base * cube) @ AXES)[0] for piece in pieces]))
    found, counts = _runs(keys & ~((cube - 1) * AXES.sum()))
    return found[:, None] // AXES % (1 << AXIS_BITS) // cube + base, counts


def _runs(keys: Longs) -> tuple[Longs, Longs]:
    """Return the different keys in order, and how many there are of each: np.unique, but 50 times as fast."""
    keys = np.sort(keys)
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[first], np.diff(first, append=len(keys))


@dataclass(frozen=True)
class _Cutter:
    """Cubes (C, 3), the sites that each holds (C,), the halo in cubes, and the limits of a tile."""

    cubes: Longs
    counts: Longs
    halo: int
    most: int
    side: int | None

    def boxes(self) -> Iterator[tuple[Longs, Longs]]:
        """Yield the first and the last cube of each tile."""
        waiting = [np.arange(len(self.cubes))]
        while waiting:
            core = waiting.pop()
            low, high = self.cubes[core].min(axis=0), self.cubes[core].max(axis=0)
            sites, wide = self.load(low, high), high - low + 1
            if sites <= self.most and (self.side is None or wide.max() <= self.side):
                yield low, high
            elif wide.max() == 1:
                raise CloudError(
                    f"the smallest one has up to {sites} sites, at most {self.most} are allowed; allow more memory "
                    "(Session), or choose a smaller halo, which gives up exact answers near the seams"
                )
            else:
                waiting += self.halves(core, int(wide.argmax()))

    def load(self, low: Longs, high: Longs) -> int:
        """Return how many sites a box of cubes has with its halo."""
        inside = ((self.cubes >= low - self.halo) & (self.cubes <= high + self.halo)).all(axis=1)
        return int(self.counts[inside].sum())

    def halves(self, core: Longs, axis: int) -> list[Longs]:
        """Return the cubes behind and before a cut that leaves about half of the sites on each side."""
        place = self.cubes[core, axis] - self.cubes[core, axis].min()
        before = np.cumsum(np.bincount(place, self.counts[core]))
        cut = 1 + int(np.abs(2 * before[:-1] - before[-1]).argmin())
        return [core[place >= cut], core[place < cut]]


# --- running them -----------------------------------------------------------------------------------------------------


def run(
    answer: Answer, xyz: Floats, columns: Columns | Floats, tiling: Tiling, progress: Progress | None = None
) -> Array:
    """Return the answers of all points, each from the tile in whose core it lies.

    xyz       (N, 3), the cloud that the tiling is of
    columns   of all points, (N, F) or rows of it on demand: what the network reads, where the height over the ground,
              for one, depends on the whole cloud
    progress  told before the first tile and after each
    """
    answers: Array | None = None
    _tell(progress, 0, tiling)
    for done, each in enumerate(tiling.tiles, start=1):
        rows, core = _rows(tiling, each, tiling.halo)
        found = answer(xyz[rows], columns[rows])
        if answers is None:
            answers = np.empty((len(xyz), *found.shape[1:]), found.dtype)
        answers[rows[core]] = found[core]
        _tell(progress, done, tiling)
    assert answers is not None  # a cloud has a point at least
    return answers


def _tell(progress: Progress | None, done: int, tiling: Tiling) -> None:
    if progress is not None:
        progress(done, len(tiling.tiles))


def _rows(tiling: Tiling, one: Tile, halo: int) -> tuple[Longs, NDArray[np.bool_]]:
    """Return the points of a tile with its halo, in the cloud's order, and which of them are its core's."""
    rows = np.flatnonzero(one.holds(tiling.sites, halo))
    return rows, one.holds(tiling.sites[rows])


@dataclass(frozen=True)
class Seams:
    """What a halo costs that is narrower than exact answers need, found on one tile.

    points     how many of its points lie within a site of the coarsest level of a seam
    differing  how many of these get another label than with the halo `wide`
    halo       in sites of level 0
    wide       the one of exact answers, or the widest that held few enough sites
    """

    points: int
    differing: int
    halo: int
    wide: int

    @property
    def share(self) -> float:
        """Return the share of labels at seams that differ."""
        return self.differing / max(self.points, 1)


def seams(
    answer: Answer, xyz: Floats, columns: Columns | Floats, labels: Longs, tiling: Tiling, *, exact: int, most: int
) -> Seams | None:
    """Return how many labels at the seams of one tile differ from those of a wider halo; None if there is no seam.

    answer  gives labels
    labels  (N,): what `run` gave
    exact   the halo of exact answers, see `exact_halo`
    most    sites that a core and its wider halo may have
    The tile is the one with the most points at seams. Nothing is run, and 0 of them differ, if the halo is exact.
    """
    near = [_at_seams(tiling, each) for each in tiling.tiles]
    tile_number = int(np.argmax([len(rows) for rows in near]))
    rows, each = near[tile_number], tiling.tiles[tile_number]
    if not len(rows):
        return None
    wide = _widest(tiling, each, exact, most)
    if wide <= tiling.halo:
        return Seams(len(rows), 0, tiling.halo, tiling.halo)
    around, _ = _rows(tiling, each, wide)
    found = answer(xyz[around], columns[around])[np.searchsorted(around, rows)]
    return Seams(len(rows), int((found != labels[rows]).sum()), tiling.halo, wide)


def _at_seams(tiling: Tiling, one: Tile) -> Longs:
    """Return the points of a core that lie within a cube of a border beyond which the cloud goes on."""
    rows = np.flatnonzero(one.holds(tiling.sites))
    sites, first, last = tiling.sites[rows], tiling.sites.min(axis=0), tiling.sites.max(axis=0)
    low = np.where(one.low > first, one.low, first - tiling.cube)
    high = np.where(one.high <= last, one.high, last + 2 * tiling.cube)
    return rows[((sites < low + tiling.cube) | (sites >= high - tiling.cube)).any(axis=1)]


def _widest(tiling: Tiling, one: Tile, exact: int, most: int) -> int:
    """Return the widest halo of a tile up to the exact one, in steps of a cube, that holds few enough sites."""
    cubes, counts = _cubes(tiling.sites, tiling.cube)
    low, high = one.low // tiling.cube, one.high // tiling.cube - 1
    halos: list[int] = [exact, *range(exact // tiling.cube * tiling.cube, tiling.halo, -tiling.cube)]
    for halo in halos:
        if _Cutter(cubes, counts, -(-halo // tiling.cube), most, None).load(low, high) <= most:
            return halo
    return tiling.halo


def sites_of_surface(sites: int, levels: int) -> list[int]:
    """Return the sites per level of a scene of surfaces: a level has a quarter of those of the level below it."""
    return [max(1, -(-sites // (1 << 2 * level))) for level in range(levels)]
