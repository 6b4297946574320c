"""Made-up furniture and clutter: for each class a way to draw a piece of random kind, size and colour.

A piece stands on z = 0 around the z axis, with its front towards -y. Sizes are in metres and overlap between classes:
some tables are as low as chairs, some lamps are balls on a pole, stools and bins are both short round bodies. Colours
come from one palette; a class prefers some of them but owns none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from popcloud.data.raycast import Part, Triple

PALETTE: dict[str, Triple] = {
    "white": (0.92, 0.91, 0.88),
    "beige": (0.80, 0.72, 0.58),
    "grey": (0.52, 0.53, 0.54),
    "black": (0.14, 0.14, 0.15),
    "pine": (0.82, 0.64, 0.42),
    "oak": (0.62, 0.44, 0.26),
    "walnut": (0.36, 0.23, 0.14),
    "red": (0.70, 0.16, 0.14),
    "green": (0.22, 0.48, 0.26),
    "blue": (0.18, 0.32, 0.62),
    "yellow": (0.88, 0.72, 0.20),
}
# What a class may be made of; a name that comes twice comes twice as often.
WOODS = ("pine", "oak", "oak", "walnut", "walnut", "white", "black", "grey")
FABRICS = ("grey", "blue", "blue", "red", "green", "beige", "black")
METALS = ("grey", "black", "white")
SHADES = ("white", "white", "beige", "beige", "yellow", "yellow", "green", "red", "blue")
BRIGHTS = ("red", "green", "blue", "yellow", "yellow", "white")
CARTON = ("pine", "pine", "pine", "beige", "white", "red", "blue", "green", "oak")
COLOUR_SPREAD = 0.05  # standard deviation between two things of one material


@dataclass(frozen=True)
class Top:
    """A place that things can stand on: a rectangle about (x, y), half as large as given, and the room above it."""

    x: float
    y: float
    half_x: float
    half_y: float
    z: float
    clearance: float = 0.6


@dataclass(frozen=True)
class Piece:
    """A piece of furniture: its parts, half its footprint along x and y, and where things can stand on it."""

    parts: tuple[Part, ...]
    half_x: float
    half_y: float
    tops: tuple[Top, ...] = ()


def colour(rng: np.random.Generator, names: tuple[str, ...]) -> Triple:
    """Return a colour of one of the materials `names`, a little off."""
    base = np.asarray(PALETTE[names[rng.integers(len(names))]])
    red, green, blue = (base + COLOUR_SPREAD * rng.standard_normal(3)).clip(0, 1).tolist()
    return red, green, blue


def cuboid(label: str, paint: Triple, low: Triple, high: Triple) -> Part:
    """Return the box between two corners."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    return Part(
        "box",
        ((x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2),
        ((x1 - x0) / 2, (y1 - y0) / 2, (z1 - z0) / 2),
        label,
        paint,
    )


def upright(label: str, paint: Triple, radii: tuple[float, float], low: float, high: float, **options: object) -> Part:
    """Return a round body about the z axis, with its bottom and top radius, between two heights."""
    caps = (bool(options.get("bottom", True)), bool(options.get("top", True)))
    return Part("round", (0.0, 0.0, (low + high) / 2), (*radii, (high - low) / 2), label, paint, caps=caps)


def legs(label: str, paint: Triple, half_x: float, half_y: float, height: float, thick: float) -> list[Part]:
    """Return four legs at the corners of a rectangle."""
    return [
        cuboid(label, paint, (x - thick, y - thick, 0), (x + thick, y + thick, height))
        for x in (thick - half_x, half_x - thick)
        for y in (thick - half_y, half_y - thick)
    ]


def table(rng: np.random.Generator) -> Piece:
    """A board on four legs, on two panels, or round on a column; a third are low."""
    height = rng.uniform(0.35, 0.5) if rng.random() < 0.35 else rng.uniform(0.66, 0.8)
    x, y, thick = rng.uniform(0.4, 0.85), rng.uniform(0.28, 0.5), rng.uniform(0.02, 0.05)
    board, frame = colour(rng, WOODS), colour(rng, WOODS)
    kind = rng.choice(["legs", "panels", "column"])
    under = height - thick
    if kind == "column":
        x = y = rng.uniform(0.3, 0.6)
        parts = [
            upright("table", board, (x, x), under, height),
            upright("table", frame, (0.05, 0.05), 0, under),
            upright("table", frame, (0.25, 0.2), 0, 0.04),
        ]
        half = 0.65 * x
        return Piece(tuple(parts), x, y, (Top(0, 0, half, half, height),))
    parts = [cuboid("table", board, (-x, -y, under), (x, y, height))]
    if kind == "legs":
        parts += legs("table", frame, x, y, under, rng.uniform(0.02, 0.04))
    else:
        parts += [
            cuboid("table", frame, (side - 0.02, -y, 0), (side + 0.02, y, under)) for side in (0.02 - x, x - 0.02)
        ]
    return Piece(tuple(parts), x, y, (Top(0, 0, 0.9 * x, 0.9 * y, height),))


def chair(rng: np.random.Generator) -> Piece:
    """A seat on legs or a column, most with a back, some with arms, some round."""
    height, half, thick = rng.uniform(0.38, 0.52), rng.uniform(0.18, 0.26), rng.uniform(0.03, 0.08)
    seat, frame = colour(rng, WOODS + FABRICS), colour(rng, WOODS)
    on_column, has_back = rng.random() < 0.3, rng.random() < 0.8
    under = height - thick
    if on_column:
        parts = [upright("chair", frame, (0.035, 0.035), 0.05, under), upright("chair", frame, (half, 0.06), 0, 0.07)]
    else:
        parts = legs("chair", frame, half, half, under, rng.uniform(0.015, 0.03))
    if not has_back and rng.random() < 0.6:
        parts.append(upright("chair", seat, (half, half), under, height))
    else:
        parts.append(cuboid("chair", seat, (-half, -half, under), (half, half, height)))
    if has_back:
        top, low = height + rng.uniform(0.3, 0.55), height + rng.uniform(0, 0.2)
        parts.append(cuboid("chair", seat, (-half, half - 0.04, low), (half, half, top)))
        posts = (-half + 0.02, half - 0.02)
        parts += [cuboid("chair", frame, (x - 0.02, half - 0.03, height), (x + 0.02, half - 0.01, top)) for x in posts]
    if has_back and rng.random() < 0.25:
        arm = height + rng.uniform(0.15, 0.25)
        for x in (-half, half):
            parts.append(cuboid("chair", frame, (x - 0.02, -half, arm - 0.03), (x + 0.02, half, arm)))
            parts.append(cuboid("chair", frame, (x - 0.02, -half, height), (x + 0.02, 0.04 - half, arm)))
    return Piece(tuple(parts), half + 0.02, half + 0.02, (Top(0, 0, 0.6 * half, 0.6 * half, height, 0.4),))


def sofa(rng: np.random.Generator) -> Piece:
    """A deep seat with a back and arms, for one to three people."""
    x, y = rng.uniform(0.42, 1.0), rng.uniform(0.38, 0.48)
    seat, back, arm = rng.uniform(0.36, 0.46), rng.uniform(0.65, 0.95), rng.uniform(0.5, 0.65)
    wide, deep = rng.uniform(0.1, 0.2), rng.uniform(0.12, 0.22)
    cover = colour(rng, FABRICS)
    cushion = cover if rng.random() < 0.5 else colour(rng, FABRICS)
    parts = [
        cuboid("sofa", cover, (wide - x, -y, 0.05), (x - wide, y - deep, seat - 0.12)),
        cuboid("sofa", cushion, (wide - x, -y - 0.02, seat - 0.12), (x - wide, y - deep, seat)),
        cuboid("sofa", cover, (-x, y - deep, 0.05), (x, y, back)),
    ]
    if rng.random() < 0.85:
        parts += [cuboid("sofa", cover, (low, -y, 0.05), (low + wide, y - deep, arm)) for low in (-x, x - wide)]
    return Piece(tuple(parts), x, y + 0.02, (Top(0, -deep / 2, x - wide - 0.05, 0.6 * y, seat, 0.5),))


def shelf(rng: np.random.Generator) -> Piece:
    """Boards between two sides, some with a back, from a low sideboard to a bookcase."""
    x, y, height = rng.uniform(0.3, 0.8), rng.uniform(0.13, 0.22), rng.uniform(0.7, 2.1)
    thick, spacing = rng.uniform(0.015, 0.03), rng.uniform(0.28, 0.45)
    paint = colour(rng, WOODS)
    parts = [
        cuboid("shelf", paint, (side - thick, -y, 0), (side + thick, y, height)) for side in (thick - x, x - thick)
    ]
    if rng.random() < 0.6:
        parts.append(cuboid("shelf", paint, (-x, y - 0.015, 0.05), (x, y, height)))
    count = max(2, round(height / spacing))
    levels = np.linspace(rng.uniform(0.03, 0.12), height - thick, count + 1).tolist()
    parts += [cuboid("shelf", paint, (-x, -y, z - thick), (x, y, z + thick)) for z in levels]
    if height < 1.2 and rng.random() < 0.5:  # a sideboard: doors hide its lower boards
        parts.append(cuboid("shelf", colour(rng, WOODS), (-x, -y - 0.015, 0.06), (x, -y, levels[-2])))
    gaps = [above - below for below, above in pairwise(levels)]
    tops = [
        Top(0, 0, x - 0.06, 0.8 * y, z + thick, gap - 2 * thick) for z, gap in zip(levels, [*gaps, 0.5], strict=True)
    ]
    return Piece(tuple(parts), x, y + 0.015, tuple(tops))


def _shade(rng: np.random.Generator, low: float, radius: float) -> Part:
    """Return a lamp's shade from height `low` up: a cone, a tube or a ball."""
    paint = colour(rng, SHADES)
    if rng.random() < 0.3:
        return Part("ellipsoid", (0, 0, low + radius), (radius, radius, radius), "lamp", paint)
    top = radius * rng.uniform(0.35, 1.0)
    return upright("lamp", paint, (radius, top), low, low + radius * rng.uniform(0.9, 1.6), bottom=False, top=False)


def floor_lamp(rng: np.random.Generator) -> Piece:
    """A shade on a tall pole with a foot."""
    height, radius, foot = rng.uniform(1.1, 1.6), rng.uniform(0.13, 0.25), rng.uniform(0.12, 0.2)
    metal = colour(rng, METALS)
    parts = [
        upright("lamp", metal, (foot, foot), 0, 0.03),
        upright("lamp", metal, (0.02, 0.02), 0, height + 0.05),
        _shade(rng, height, radius),
    ]
    half = max(radius, foot)
    return Piece(tuple(parts), half, half)


def table_lamp(rng: np.random.Generator) -> Piece:
    """A shade on a short, thick foot."""
    height, radius = rng.uniform(0.15, 0.35), rng.uniform(0.09, 0.17)
    foot = rng.uniform(0.04, 0.09)
    parts = [upright("lamp", colour(rng, METALS + BRIGHTS), (foot, foot / 2), 0, height), _shade(rng, height, radius)]
    return Piece(tuple(parts), radius, radius)


def hanging_lamp(rng: np.random.Generator, ceiling: float) -> Piece:
    """A shade on a cord from the ceiling."""
    height, radius = rng.uniform(1.45, 1.9), rng.uniform(0.14, 0.28)
    cord = upright("lamp", colour(rng, METALS), (0.01, 0.01), height + radius, ceiling)
    return Piece((cord, _shade(rng, height, radius)), radius, radius)


def ball(rng: np.random.Generator, limit: float = 0.32) -> Piece:
    """A ball, its radius at most `limit`."""
    radius = min(rng.uniform(0.08, 0.32), limit)
    part = Part("ellipsoid", (0, 0, radius), (radius, radius, radius), "ball", colour(rng, BRIGHTS))
    return Piece((part,), radius, radius)


def carton(rng: np.random.Generator, limit: Triple = (0.35, 0.35, 0.6)) -> Piece:
    """A box, half its edges along x and y and its height at most `limit`."""
    x, y, height = np.minimum(rng.uniform((0.05, 0.05, 0.08), (0.35, 0.35, 0.6)), limit).tolist()
    part = cuboid("box", colour(rng, CARTON), (-x, -y, 0), (x, y, height))
    return Piece((part,), x, y, (Top(0, 0, 0.7 * x, 0.7 * y, height, 0.5),))


def bin_(rng: np.random.Generator) -> Piece:
    """A bucket: round, open at the top, often wider there."""
    bottom, height = rng.uniform(0.1, 0.22), rng.uniform(0.22, 0.55)
    top = bottom * rng.uniform(0.95, 1.35)
    part = upright("bin", colour(rng, METALS + BRIGHTS), (bottom, top), 0, height, top=False)
    return Piece((part,), top, top)


FURNITURE: dict[str, Callable[[np.random.Generator], Piece]] = {
    "table": table,
    "chair": chair,
    "sofa": sofa,
    "shelf": shelf,
    "lamp": floor_lamp,
    "ball": ball,
    "box": carton,
    "bin": bin_,
}
