"""Made-up rooms, scanned in part from one or two places inside: scenes from a seed, without any file.

A room has walls, a floor, furniture and clutter that stands on the floor, on tables, seats and shelves. A scanner at
eye height sends rays at equal angles over a limited field of view and keeps the first thing each one meets. So what is
hidden is missing, far things have few points, and a thing seen from one place alone has one side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import PointCloud, SceneSet
from popcloud.data import furniture
from popcloud.data.common import SCENE_SPLITS, check_scene_request, choose_classes, keep_scene_classes
from popcloud.data.furniture import FURNITURE, Piece, Top, colour, cuboid
from popcloud.data.raycast import Doubles, Hits, Part, Triple, cast

CLASSES = ("floor", "wall", *FURNITURE)
FEATURES = ("red", "green", "blue")
SCENES = {"train": 100, "val": 20, "test": 40}

SIDE = (3.2, 5.2)  # a room's width and depth, metres
CEILING = (2.3, 2.8)
# How many of each kind a room is to have, from .. to; those that find no free place are left out.
COUNTS = {
    "sofa": (1, 2),
    "shelf": (1, 3),
    "table": (1, 3),
    "chair": (2, 5),
    "lamp": (1, 2),
    "bin": (2, 4),
    "box": (1, 4),
    "ball": (2, 3),
}
AT_WALL = {"sofa": 0.7, "shelf": 0.85, "table": 0.3}  # the chance to stand with the back to a wall
AT_TABLE = 0.6  # the chance that a chair stands at a table
TRIES = 25  # places tried per piece
WALL_PAINTS = ("white", "white", "white", "beige", "beige", "grey", "blue", "green")
FLOORS = ("oak", "oak", "pine", "walnut", "grey", "grey", "beige")

RAYS = 17_000  # per place, over the field of view
VIEW = (150.0, 240.0)  # its width in degrees, towards the middle of the room
ELEVATION = (-65.0, 15.0)  # its lower and upper end, degrees
EYE = (1.1, 1.8)  # height above the floor, metres
TWO_PLACES = 0.75  # the chance of a second place
FREE = 0.4  # a place to scan from is at least so far from everything, metres
NOISE, NOISE_GROWTH = 0.003, 0.0015  # standard deviation along the ray: metres, and metres per square metre of distance
GRAZING = 0.25  # below this cosine between ray and normal an echo comes back with a chance in proportion to it
LOST = 0.03  # the chance that any other echo does not come back
AMBIENT = 0.6  # what a surface that faces away from the light keeps of its colour
TINT, GRAIN = 0.06, 0.04  # standard deviations: of the light's colour, of the colour from point to point


def load(
    root: Path | None,
    split: str,
    *,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    scenes: int | None = None,
) -> SceneSet:
    """Make the split from the seed; the same arguments give the same bits, and no two splits share a scene.

    root     not read: the rooms come from a seed
    classes  names from CLASSES, default all; they become classes 0, 1, ... in this order, other points IGNORE
    scenes   how many (default: SCENES); the first ones are the same however many are asked for
    Returns scenes of some 10,000 to 35,000 points, metres, z up, floor at 0; colours in [-1, 1].
    Raises DatasetError for an unknown split or class, or fewer than one scene.
    """
    check_scene_request(split, scenes)
    choose_classes(classes, CLASSES)  # refused before the work and not after it
    numbers = range(SCENES[split] if scenes is None else scenes)
    stream = SCENE_SPLITS.index(split)
    clouds = tuple(make(np.random.default_rng([seed, stream, number])) for number in numbers)
    names = tuple(f"{split}_{number:04d}" for number in numbers)
    return keep_scene_classes(SceneSet(clouds, names, CLASSES, FEATURES), classes)


def make(rng: np.random.Generator) -> PointCloud:
    """Return one scanned room: labels index CLASSES, features are red, green and blue."""
    room = Room.empty(rng)
    room.furnish(rng)
    light = _direction(rng)
    tint = 1 + TINT * rng.standard_normal(3)
    views = [scan(room.parts, eye, rng) for eye in room.places(rng, 1 + int(rng.random() < TWO_PLACES))]
    xyz, part, normal = (np.concatenate(columns) for columns in zip(*views, strict=True))
    turned = _turn(xyz, rng.uniform(0, 2 * math.pi)).astype(np.float32)
    paints = np.array([part.colour for part in room.parts])
    labels = np.array([CLASSES.index(part.label) for part in room.parts], dtype=np.int64)
    return PointCloud(turned, shaded(paints[part] * tint, normal @ light, rng), labels[part])


# --- the room and what stands in it -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rectangle:
    """The ground a piece takes: its middle, half its edges, its turn in radians."""

    x: float
    y: float
    half_x: float
    half_y: float
    turn: float = 0.0

    def corners(self) -> Doubles:
        """Return (4, 2)."""
        signs, middle = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]), np.array([self.x, self.y])
        return np.asarray(_turn(signs * [self.half_x, self.half_y], self.turn) + middle)

    def meets(self, other: Rectangle) -> bool:
        """Return whether two rectangles overlap: no edge of either separates them."""
        reach = math.hypot(self.half_x, self.half_y) + math.hypot(other.half_x, other.half_y)
        if math.hypot(self.x - other.x, self.y - other.y) >= reach:
            return False
        for one, two in ((self, other), (other, self)):
            relative = np.abs(_turn(two.corners() - [one.x, one.y], -one.turn).mean(axis=0))
            half = np.ptp(_turn(two.corners(), -one.turn), axis=0) / 2
            if (relative >= half + np.array([one.half_x, one.half_y])).any():
                return False
        return True

    def distance(self, points: Doubles) -> Doubles:
        """Return how far points (N, 2) are from the rectangle; 0 inside."""
        beyond = np.abs(_turn(points - [self.x, self.y], -self.turn)) - [self.half_x, self.half_y]
        return np.asarray(np.linalg.norm(np.maximum(beyond, 0), axis=1))


@dataclass(frozen=True)
class Room:
    """Walls and floor of `width` (x) by `depth` (y) by `ceiling` metres about the origin, filled piece by piece."""

    width: float
    depth: float
    ceiling: float
    parts: list[Part]
    taken: list[Rectangle]
    tables: list[Rectangle]

    @classmethod
    def empty(cls, rng: np.random.Generator) -> Room:
        """Return a room with a rug, pictures on its walls and perhaps a pillar, but nothing else."""
        (width, depth), ceiling = rng.uniform(*SIDE, 2).tolist(), rng.uniform(*CEILING)
        x, y, paint = width / 2, depth / 2, colour(rng, WALL_PAINTS)
        accent = paint if rng.random() < 0.6 else colour(rng, WALL_PAINTS + furniture.FABRICS)
        thick = 0.1
        parts = [
            cuboid("floor", colour(rng, FLOORS), (-x - thick, -y - thick, -thick), (x + thick, y + thick, 0)),
            cuboid("wall", accent, (-x - thick, -y, 0), (-x, y, ceiling)),
            cuboid("wall", paint, (x, -y, 0), (x + thick, y, ceiling)),
            cuboid("wall", paint, (-x, -y - thick, 0), (x, -y, ceiling)),
            cuboid("wall", paint, (-x, y, 0), (x, y + thick, ceiling)),
        ]
        room = cls(width, depth, ceiling, parts, [], [])
        if rng.random() < 0.5:
            room._pillar(rng, paint)
        if rng.random() < 0.6:
            a, b = rng.uniform(0.5, 0.9), rng.uniform(0.6, 1.2)
            rug = cuboid("floor", colour(rng, furniture.FABRICS + FLOORS), (-a, -b, 0), (a, b, 0.012))
            parts.append(rug.moved(rng.uniform(0, math.pi), (*rng.uniform(-0.4, 0.4, 2).tolist(), 0.0)))
        for _ in range(rng.integers(1, 5)):
            room._picture(rng)
        return room

    def _pillar(self, rng: np.random.Generator, paint: Triple) -> None:
        """Add a pillar or the stub of a partition at a wall, from floor to ceiling."""
        a, b = rng.uniform(0.12, 0.2), rng.uniform(0.15, 0.6)
        wall, along = rng.integers(4), rng.uniform(-1, 1)
        turn, x, y = self._at_wall(int(wall), along, a, b)
        self.parts.append(cuboid("wall", paint, (-a, -b, 0), (a, b, self.ceiling)).moved(turn, (x, y, 0)))
        self.taken.append(Rectangle(x, y, a, b, turn))

    def _picture(self, rng: np.random.Generator) -> None:
        """Add a picture, a board or a curtain, which counts as wall."""
        a, b, z = rng.uniform(0.15, 0.6), rng.uniform(0.2, 0.6), rng.uniform(1.1, 1.7)
        turn, x, y = self._at_wall(int(rng.integers(4)), rng.uniform(-1, 1), a, 0.015)
        paint = colour(rng, furniture.BRIGHTS + furniture.WOODS)
        part = cuboid("wall", paint, (-a, -0.015, z - b), (a, 0.015, min(z + b, self.ceiling)))
        self.parts.append(part.moved(turn, (x, y, 0)))

    def _at_wall(self, wall: int, along: float, half_x: float, half_y: float) -> tuple[float, float, float]:
        """Return turn, x and y of a rectangle with its back to a wall, `along` it from -1 to 1."""
        length, across = (self.width, self.depth) if wall % 2 == 0 else (self.depth, self.width)
        turn = wall * math.pi / 2
        local = np.array([along * max(length / 2 - half_x, 0), across / 2 - half_y])
        x, y = _turn(local, turn).tolist()
        return turn, x, y

    def furnish(self, rng: np.random.Generator) -> None:
        """Put in furniture, large pieces first, and clutter on it."""
        for kind, (low, high) in COUNTS.items():
            for _ in range(rng.integers(low, high + 1)):
                self._place(kind, FURNITURE[kind](rng), rng)
        if rng.random() < 0.6:
            lamp = furniture.hanging_lamp(rng, self.ceiling)
            x, y = rng.uniform(-0.25, 0.25, 2) * [self.width, self.depth]
            self._put(lamp, Rectangle(x, y, lamp.half_x, lamp.half_y), rng)

    def _place(self, kind: str, piece: Piece, rng: np.random.Generator) -> None:
        """Put a piece where it is free; leave it out if no place is found."""
        for _ in range(TRIES):
            ground = self._drawn(kind, piece, rng)
            if self._holds(ground) and not any(ground.meets(other) for other in self.taken):
                self._put(piece, ground, rng)
                if kind == "table":
                    self.tables.append(ground)
                return

    def _drawn(self, kind: str, piece: Piece, rng: np.random.Generator) -> Rectangle:
        """Return a place for a piece, free or not: at a wall, at a table, or anywhere."""
        if rng.random() < AT_WALL.get(kind, 0.0):
            turn, x, y = self._at_wall(int(rng.integers(4)), rng.uniform(-1, 1), piece.half_x, piece.half_y)
        elif kind == "chair" and self.tables and rng.random() < AT_TABLE:
            turn, x, y = _at_table(self.tables[rng.integers(len(self.tables))], piece, rng)
        else:
            turn = rng.uniform(0, 2 * math.pi)
            x, y = (rng.uniform(-0.5, 0.5, 2) * [self.width, self.depth]).tolist()
        return Rectangle(x, y, piece.half_x, piece.half_y, turn)

    def _holds(self, ground: Rectangle) -> bool:
        reach = np.abs(ground.corners()).max(axis=0)
        return bool((reach <= [self.width / 2 + 1e-6, self.depth / 2 + 1e-6]).all())

    def _put(self, piece: Piece, ground: Rectangle, rng: np.random.Generator) -> None:
        self.taken.append(ground)
        parts = [*piece.parts, *(part for top in piece.tops for part in clutter(top, rng))]
        self.parts.extend(part.moved(ground.turn, (ground.x, ground.y, 0.0)) for part in parts)

    def places(self, rng: np.random.Generator, count: int) -> list[Doubles]:
        """Return `count` places (3,) to scan from, clear of furniture and, if there are two, far from each other."""
        tried = rng.uniform(-0.5, 0.5, (64, 2)) * [self.width - 2 * FREE, self.depth - 2 * FREE]
        clear = np.full(len(tried), np.inf)
        for ground in self.taken:
            clear = np.minimum(clear, ground.distance(tried))
        free = np.flatnonzero(clear >= min(FREE, clear.max() / 2))  # where all is crowded, half of the best will do
        chosen = [free[0]]
        if count == 2:
            chosen.append(free[np.linalg.norm(tried[free] - tried[free[0]], axis=1).argmax()])
        return [np.array([*tried[row], rng.uniform(*EYE)]) for row in chosen]


def _at_table(table: Rectangle, piece: Piece, rng: np.random.Generator) -> tuple[float, float, float]:
    """Return turn, x and y of a piece that looks at one side of a table."""
    side = int(rng.integers(4))
    along, across = (table.half_x, table.half_y) if side % 2 == 0 else (table.half_y, table.half_x)
    local = np.array([rng.uniform(-0.7, 0.7) * along, across + piece.half_y + rng.uniform(0.02, 0.25)])
    turn = table.turn + side * math.pi / 2
    dx, dy = _turn(local, turn).tolist()
    return turn + rng.normal(0, 0.25), table.x + dx, table.y + dy


def clutter(top: Top, rng: np.random.Generator) -> list[Part]:
    """Return things on a top: cells of its length are left empty or hold a box, a ball or a lamp."""
    cells = max(1, int(top.half_x / 0.2))
    parts: list[Part] = []
    for cell in range(cells):
        kind = rng.choice(["none", "box", "ball", "lamp"], p=[0.5, 0.26, 0.14, 0.1])
        half = min(top.half_x / cells, top.half_y)
        if kind == "none" or half < 0.05 or top.clearance < 0.12:
            continue
        if kind == "lamp" and top.clearance >= 0.5 and half >= 0.1:
            piece = furniture.table_lamp(rng)
        elif kind == "ball":
            piece = furniture.ball(rng, min(half, top.clearance / 2))
        else:
            piece = furniture.carton(rng, (half, half, 0.9 * top.clearance))
        x = top.x + (2 * cell + 1 - cells) * top.half_x / cells
        parts += [part.moved(rng.uniform(-0.6, 0.6), (x, top.y, top.z)) for part in piece.parts]
    return parts


# --- the scanner ------------------------------------------------------------------------------------------------------


def scan(parts: Sequence[Part], eye: Doubles, rng: np.random.Generator) -> tuple[Doubles, NDArray[np.int64], Doubles]:
    """Return what a scanner at `eye` (3,) sees: xyz (N, 3) with noise, the row of its part (N,), the normal (N, 3)."""
    directions = rays(math.atan2(-eye[1], -eye[0]) + rng.normal(0, 0.3), rng)
    hits = cast(parts, eye, directions)
    cosine = -(hits.normal * directions).sum(axis=1)
    returned = rng.random(len(directions)) < np.minimum(cosine / GRAZING, 1 - LOST)
    kept = np.isfinite(hits.distance) & returned
    seen = Hits(hits.distance[kept], hits.part[kept], hits.normal[kept])
    spread = NOISE + NOISE_GROWTH * seen.distance**2
    measured = seen.distance + spread * rng.standard_normal(len(seen.distance))
    return eye + measured[:, None] * directions[kept], seen.part, seen.normal


def rays(heading: float, rng: np.random.Generator) -> Doubles:
    """Return directions (R, 3) of length 1, RAYS or so: even over the solid angle of the field of view, jittered.

    The view's width is drawn; its middle is `heading`, in radians from the x axis.
    """
    width = math.radians(rng.uniform(*VIEW))
    low, high = (math.sin(math.radians(angle)) for angle in ELEVATION)
    rows = round(math.sqrt(RAYS * (high - low) / width))
    columns = round(RAYS / rows)
    # Equal steps of the height on the unit sphere are equal areas (Archimedes).
    row, column = np.divmod(np.arange(rows * columns), columns)
    z = low + (row + rng.random(len(row))) / rows * (high - low)
    azimuth = heading + ((column + rng.random(len(row))) / columns - 0.5) * width
    flat = np.sqrt(1 - z * z)
    return np.column_stack([flat * np.cos(azimuth), flat * np.sin(azimuth), z])


def shaded(paint: Doubles, facing: Doubles, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return colours (N, 3) float32 in [-1, 1]: paint in 0 to 1, darker where `facing` (N,) the light less, grainy."""
    light = AMBIENT + (1 - AMBIENT) * np.maximum(facing, 0)
    grain = GRAIN * rng.standard_normal((len(paint), 1)) + GRAIN / 2 * rng.standard_normal(paint.shape)
    return (2 * (paint * light[:, None] + grain).clip(0, 1) - 1).astype(np.float32)


def _direction(rng: np.random.Generator) -> Doubles:
    """Return a direction (3,) of length 1 towards a light above the room."""
    vector = rng.standard_normal(3) * [0.6, 0.6, 0] + [0, 0, 1]
    return np.asarray(vector / np.linalg.norm(vector))


def _turn(vectors: Doubles, angle: float) -> Doubles:
    """Return vectors (..., 2 or 3) turned about z."""
    c, s = math.cos(angle), math.sin(angle)
    turned = vectors.copy()
    turned[..., 0] = c * vectors[..., 0] - s * vectors[..., 1]
    turned[..., 1] = s * vectors[..., 0] + c * vectors[..., 1]
    return turned
