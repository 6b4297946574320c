"""Made-up objects with parts: for each category a way to draw one of random kind and proportions.

Each maker takes a generator and gives the object as pairs of a part's name and a Mesh of one body, upright along z, of
about unit size. Sizes vary widely and most categories come in several kinds: a lamp may stand or hang, a table may
rest on legs, panels or one foot. Parts touch and reach into each other, so that a border is not a gap between points.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from popcloud.data.mesh import Mesh, box, extrude, revolve, sweep

Floats = NDArray[np.floating]
Pieces = list[tuple[str, Mesh]]

QUARTER = np.pi / 2


# --- one body at a time -----------------------------------------------------------------------------------------------


def cuboid(x: tuple[float, float], y: tuple[float, float], z: tuple[float, float]) -> Mesh:
    """Return the box over three spans."""
    low, high = np.array([[x[0], y[0], z[0]]]), np.array([[x[1], y[1], z[1]]])
    return box(low, high)


def turned(*rows: tuple[float, float], segments: int = 24) -> Mesh:
    """Return the body of revolution about z with a profile of rows (radius, height), upwards on the outside."""
    return revolve(np.array([rows], dtype=np.float64), segments)


def column(radius: float, low: float, high: float, top: float | None = None) -> Mesh:
    """Return a cylinder about z, or a cone where its `top` has another radius."""
    end = radius if top is None else top
    return turned((0, low), (radius, low), (end, high), (0, high))


def ball(radii: tuple[float, float, float]) -> Mesh:
    """Return an ellipsoid about the origin."""
    angle = np.radians(np.linspace(-90, 90, 13))
    unit = revolve(np.stack([np.cos(angle).clip(0), np.sin(angle)], axis=1)[None])
    return Mesh(unit.vertices * np.array(radii), unit.faces)


def plate(outline: list[tuple[float, float]], low: float, high: float) -> Mesh:
    """Return an outline in x and y, counter-clockwise and star-shaped from its first corner, raised along z."""
    return extrude(np.array([outline]), np.array([low]), np.array([high]))


def wire(curve: Floats, radius: float) -> Mesh:
    """Return a round wire along a curve (P, 3) that nowhere runs straight up."""
    return sweep(curve[None], np.array([radius]))


def shifted(mesh: Mesh, x: float = 0, y: float = 0, z: float = 0) -> Mesh:
    """Return a mesh moved along the axes."""
    return Mesh(mesh.vertices + np.array([x, y, z]), mesh.faces)


def tipped(mesh: Mesh, axis: int, angle: float) -> Mesh:
    """Return a mesh turned about an axis, 0 to 2, through the origin by so many radians."""
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.eye(3)
    one, two = (axis + 1) % 3, (axis + 2) % 3
    rotation[[one, one, two, two], [one, two, one, two]] = c, s, -s, c
    return Mesh(mesh.vertices @ rotation, mesh.faces)


def mirrored(name: str, mesh: Mesh) -> Pieces:
    """Return a piece and its mirror image on the other side of y = 0."""
    flipped = mesh.vertices * np.array([1, -1, 1])
    return [(name, mesh), (name, Mesh(flipped, mesh.faces[:, ::-1]))]


def either(rng: np.random.Generator, chance: float) -> bool:
    """Return true with a chance."""
    return bool(rng.random() < chance)


def span(rng: np.random.Generator, *limits: tuple[float, float]) -> list[float]:
    """Return a number from each pair of limits."""
    return [float(rng.uniform(*limit)) for limit in limits]


# --- the categories ---------------------------------------------------------------------------------------------------


def aeroplane(rng: np.random.Generator) -> Pieces:
    """A body along x with swept or straight wings, a tail, and engines under the wings, at the back, or a propeller."""
    length, thick, reach, chord = span(rng, (0.8, 1.1), (0.08, 0.16), (0.6, 1.05), (0.2, 0.36))
    sweep_back, low = span(rng, (0.0, 0.45), (-0.6, 0.7))
    nose = tipped(ball((thick, thick, length)), 1, QUARTER)
    pieces = [("body", nose)]
    root, tip = 0.15 + chord / 2, 0.15 + chord / 2 - sweep_back
    narrow = chord * rng.uniform(0.35, 0.9)
    outline = [(root, 0), (tip, reach), (tip - narrow, reach), (root - chord, 0)]
    flat = 0.02 + 0.1 * thick
    wing = shifted(plate(outline, -flat, flat), z=low * thick)
    pieces += mirrored("wing", wing)
    pieces += _tail(rng, length, thick)
    return pieces + _engines(rng, (root + tip) / 2, reach, length, thick, low * thick)


def _tail(rng: np.random.Generator, length: float, thick: float) -> Pieces:
    """A fin at the end of the body, with small wings at its foot or on its top."""
    height, deep, wide = span(rng, (0.2, 0.4), (0.14, 0.26), (0.2, 0.42))
    end, at = -0.95 * length, (height if either(rng, 0.35) else 0.3 * thick)
    fin = plate([(end + deep + 0.08, 0), (end + deep * 0.5, height), (end, height), (end, 0)], -0.015, 0.015)
    small = plate([(end + deep, 0), (end + deep * 0.5, wide), (end, wide), (end, 0)], -0.015, 0.015)
    return [("tail", tipped(fin, 0, QUARTER)), *mirrored("tail", shifted(small, z=at))]


def _engines(rng: np.random.Generator, middle: float, reach: float, length: float, thick: float, low: float) -> Pieces:
    radius, long = span(rng, (0.045, 0.085), (0.14, 0.26))
    engine = tipped(column(radius, -long / 2, long / 2, radius * 0.75), 1, QUARTER)
    kind = rng.choice(["wings", "wings", "back", "propeller"])
    if kind == "propeller":
        blades = [shifted(cuboid((-0.01, 0.01), (-0.025, 0.025), (-0.28, 0.28)), x=length)]
        blades.append(tipped(blades[0], 0, QUARTER))
        return [("engine", blade) for blade in blades]
    if kind == "back":
        return mirrored("engine", shifted(engine, -0.6 * length, thick + radius, 0.3 * thick))
    places = (0.35, 0.65) if either(rng, 0.35) else (0.42,)
    return [
        piece for part in places for piece in mirrored("engine", shifted(engine, middle, part * reach, low - radius))
    ]


def cap(rng: np.random.Generator) -> Pieces:
    """A dome of half a ball, open below, with a peak to the front; some are flat, some have a button."""
    wide, high, wall = span(rng, (0.55, 0.72), (0.4, 0.75), (0.02, 0.04))
    angle = np.radians(np.linspace(0, 90, 8))
    outer = [(wide * np.cos(a), high * np.sin(a)) for a in angle]
    inner = [((wide - wall) * np.cos(a), (high - wall) * np.sin(a)) for a in angle[::-1]]
    pieces = [("crown", turned(*outer, *inner, outer[0]))]
    reach, spread, drop = span(rng, (0.3, 0.65), (35, 75), (0.0, 0.45))
    side = np.radians(np.linspace(-spread, spread, 13))
    ring = [(wide * 0.97 * np.cos(a), wide * 0.97 * np.sin(a)) for a in side[::-1]]
    rim = [(wide * np.cos(a) + reach * np.cos(a / spread * 70), wide * np.sin(a)) for a in side]
    pieces.append(("peak", shifted(tipped(shifted(plate(rim + ring, -0.015, 0.015), -wide), 1, drop), wide)))
    if either(rng, 0.5):
        pieces.append(("crown", shifted(ball((0.05, 0.05, 0.03)), z=high)))
    return pieces


def chair(rng: np.random.Generator) -> Pieces:
    """A seat on four legs or a column, with a back of a panel or bars, half of them with arms."""
    wide, deep, seat, thick = span(rng, (0.32, 0.48), (0.3, 0.45), (0.35, 0.55), (0.03, 0.1))
    tall, lean = span(rng, (0.4, 0.75), (0.0, 0.3))
    pieces = [("seat", cuboid((-deep, deep), (-wide, wide), (seat - thick, seat)))]
    if either(rng, 0.6):
        back = [cuboid((-0.03, 0.03), (-wide, wide), (0, tall))]
    else:
        bars = np.linspace(-wide + 0.03, wide - 0.03, int(rng.integers(2, 6)))
        back = [cuboid((-0.025, 0.025), (y - 0.025, y + 0.025), (0, tall)) for y in bars.tolist()]
        back.append(cuboid((-0.03, 0.03), (-wide, wide), (tall - rng.uniform(0.08, 0.2), tall)))
    pieces += [("back", shifted(tipped(one, 1, -lean), 0.03 - deep, z=seat - 0.01)) for one in back]
    if either(rng, 0.7):
        pieces += [("leg", one) for one in _legs(rng, deep, wide, seat - thick)]
    else:
        pieces.append(("leg", column(0.05, 0.05, seat - thick)))
        pieces.append(("leg", column(0.75 * wide, 0, 0.06, 0.1)))
    if either(rng, 0.5):
        high, start = rng.uniform(0.15, 0.3), wide - 0.06
        rest = cuboid((-deep, 0.7 * deep), (start, wide), (seat + high - 0.04, seat + high))
        post = cuboid((0.6 * deep - 0.04, 0.6 * deep), (start, wide), (seat, seat + high))
        pieces += mirrored("arm", rest) + mirrored("arm", post)
    return pieces


def _legs(rng: np.random.Generator, deep: float, wide: float, height: float) -> list[Mesh]:
    """Four legs at the corners of a rectangle, square or round."""
    thick, square = rng.uniform(0.02, 0.05), either(rng, 0.5)
    places = [(x * (deep - thick), y * (wide - thick)) for x in (-1, 1) for y in (-1, 1)]
    if square:
        return [cuboid((x - thick, x + thick), (y - thick, y + thick), (0, height)) for x, y in places]
    return [shifted(column(0.7 * thick, 0, height, thick), x, y) for x, y in places]


def guitar(rng: np.random.Generator) -> Pieces:
    """A body of two round bouts, a neck that begins on it, and a head, bent back or straight."""
    lower, upper, thick, neck = span(rng, (0.32, 0.45), (0.2, 0.32), (0.05, 0.12), (0.55, 0.85))
    width, bend = span(rng, (0.03, 0.055), (0.0, 0.4))
    gap = 0.75 * (lower + upper)
    pieces = [("body", shifted(column(lower, -thick, thick))), ("body", shifted(column(upper, -thick, thick), gap))]
    start, end = gap + 0.4 * upper, gap + upper + neck
    pieces.append(("neck", cuboid((start, end), (-width, width), (thick - 0.01, thick + 0.04))))
    long, broad = span(rng, (0.14, 0.26), (1.2, 2.2))
    head = plate([(0, -width), (long, -broad * width), (long, broad * width), (0, width)], -0.02, 0.02)
    pieces.append(("head", shifted(tipped(head, 1, bend), end, z=thick + 0.015)))
    return [(name, shifted(mesh, -0.5)) for name, mesh in pieces]


def knife(rng: np.random.Generator) -> Pieces:
    """A flat blade with a point and a handle, of wood, round, or with a guard; lengths of both overlap."""
    blade, handle, height = span(rng, (0.6, 1.3), (0.4, 0.8), (0.07, 0.2))
    thin, back = span(rng, (0.008, 0.02), (-0.3, 1.0))
    outline = [(0.0, -height), (0.7 * blade, -height), (blade, back * height), (0.6 * blade, height), (0.0, height)]
    pieces = [("blade", tipped(plate(outline, -thin, thin), 0, QUARTER))]
    grip = height * rng.uniform(0.6, 1.1)
    if either(rng, 0.5):
        side = rng.uniform(0.025, 0.06)
        pieces.append(("handle", cuboid((-handle, 0.02), (-side, side), (-grip, grip))))
    else:
        pieces.append(("handle", tipped(column(0.8 * grip, -handle, 0.02, 0.6 * grip), 1, QUARTER)))
    if either(rng, 0.35):
        pieces.append(("handle", cuboid((-0.02, 0.03), (-0.06, 0.06), (-1.5 * height, 1.5 * height))))
    return pieces


def lamp(rng: np.random.Generator) -> Pieces:
    """A shade on a pole on a foot, short or tall, or a shade on a cord under a canopy at the ceiling."""
    tall, radius = span(rng, (0.5, 1.4), (0.015, 0.045))
    bottom, high = span(rng, (0.22, 0.5), (0.2, 0.5))
    top = bottom * rng.uniform(0.35, 1.0)
    shade = turned((bottom, 0), (top, high), (top - 0.02, high), (bottom - 0.02, 0), (bottom, 0))
    if either(rng, 0.25):
        shade = ball((bottom * 0.8,) * 3)
    foot, thick = span(rng, (0.14, 0.34), (0.03, 0.12))
    base = column(foot, 0, thick, foot * rng.uniform(0.3, 1.0))
    if either(rng, 0.2):
        base = cuboid((-foot, foot), (-foot, foot), (0, thick))
    pieces = [("base", base), ("pole", column(radius, thick - 0.01, tall)), ("shade", shifted(shade, z=tall - 0.1))]
    if either(rng, 0.3):  # it hangs: the foot is at the ceiling and the pole a cord; the shade opens downwards still
        body = [shade, column(0.6 * radius, 0.5 * high, tall), shifted(tipped(base, 0, np.pi), z=tall + thick)]
        pieces = list(zip(("shade", "pole", "base"), body, strict=True))
    return pieces


def mug(rng: np.random.Generator) -> Pieces:
    """A cup, straight or wider at one end, with a round or square handle of any size."""
    foot, high, wall = span(rng, (0.3, 0.5), (0.5, 1.1), (0.03, 0.06))
    rim = foot * rng.uniform(0.85, 1.35)
    cup = turned((0, 0), (foot, 0), (rim, high), (rim - wall, high), (foot - wall, wall), (0, wall))
    thick, reach = span(rng, (0.03, 0.06), (0.14, 0.34))
    half, middle = high * rng.uniform(0.2, 0.38), high * rng.uniform(0.45, 0.6)
    angle = np.linspace(-95, 95, 14) * np.pi / 180
    power = rng.uniform(0.45, 1.0)  # 1 is round, less is squarer
    x, z = (np.sign(f) * np.abs(f) ** power for f in (np.cos(angle), np.sin(angle)))
    at = foot + (rim - foot) * middle / high - 0.01
    # A wire must nowhere run straight up: it leaves the plane y = 0 by a little.
    curve = np.stack([at + reach * x, 0.01 * np.sin(3 * angle), middle + half * z], axis=1)
    return [("cup", cup), ("handle", wire(curve, thick))]


def rocket(rng: np.random.Generator) -> Pieces:
    """A body with a pointed or round nose, three or four fins at its foot, and half of them with boosters."""
    radius, high, tip, flare = span(rng, (0.1, 0.24), (0.7, 1.3), (0.25, 0.6), (0.8, 1.25))
    pieces = [("body", column(radius * flare, 0, high, radius))]
    angle = np.radians(np.linspace(0, 90, 7))
    blunt = rng.uniform(0.6, 1.6)
    rows = [(radius * np.cos(a) ** blunt, high + tip * np.sin(a)) for a in angle[:-1]]
    pieces.append(("nose", turned((0, high), *rows, (0, high + tip))))
    reach, long, count = *span(rng, (0.15, 0.36), (0.2, 0.5)), int(rng.integers(3, 5))
    inner = 0.9 * radius * min(flare, 1)
    fin = plate(
        [(inner, -0.1), (radius + reach, -0.1 - 0.1 * rng.random()), (radius + reach, 0.1), (inner, long)],
        -0.015,
        0.015,
    )
    pieces += [("fin", tipped(tipped(fin, 0, QUARTER), 2, 2 * np.pi * k / count)) for k in range(count)]
    if either(rng, 0.4):
        side = column(0.45 * radius, 0, high * rng.uniform(0.4, 0.7), 0.3 * radius)
        pieces += mirrored("booster", shifted(side, y=1.35 * radius))
    return pieces


def table(rng: np.random.Generator) -> Pieces:
    """A board, square or round, on four legs, two panels or one foot; some with a drawer or a shelf below."""
    deep, wide, high, thick = span(rng, (0.35, 0.7), (0.45, 1.0), (0.3, 0.9), (0.03, 0.1))
    under = high - thick
    kind = rng.choice(["legs", "legs", "panels", "foot"])
    if kind == "foot":
        pieces = [("top", column(wide * 0.8, under, high) if either(rng, 0.7) else _board(deep, wide, under, high))]
        pieces.append(("leg", column(rng.uniform(0.03, 0.1), 0, under)))
        pieces.append(("leg", column(0.5 * deep, 0, 0.06, 0.3 * deep)))
        return pieces
    pieces = [("top", _board(deep, wide, under, high))]
    if kind == "legs":
        pieces += [("leg", one) for one in _legs(rng, deep, wide, under)]
    else:
        panel = cuboid((-deep, deep), (wide - 0.06, wide - rng.uniform(0, 0.03)), (0, under))
        pieces += mirrored("leg", panel)
    if either(rng, 0.3):
        low = under - rng.uniform(0.1, 0.2)
        pieces.append(("drawer", cuboid((-0.85 * deep, 0.85 * deep), (-0.5 * wide, 0.5 * wide), (low, under))))
    if either(rng, 0.3):
        at = rng.uniform(0.1, 0.4) * under
        pieces.append(("shelf", _board(0.9 * deep, wide - 0.06, at, at + 0.03)))
    return pieces


def _board(deep: float, wide: float, low: float, high: float) -> Mesh:
    return cuboid((-deep, deep), (-wide, wide), (low, high))


# For each category its maker and its parts, in the order of the labels.
OBJECTS: dict[str, tuple[Callable[[np.random.Generator], Pieces], tuple[str, ...]]] = {
    "aeroplane": (aeroplane, ("body", "wing", "tail", "engine")),
    "cap": (cap, ("crown", "peak")),
    "chair": (chair, ("back", "seat", "leg", "arm")),
    "guitar": (guitar, ("head", "neck", "body")),
    "knife": (knife, ("blade", "handle")),
    "lamp": (lamp, ("base", "pole", "shade")),
    "mug": (mug, ("cup", "handle")),
    "rocket": (rocket, ("body", "nose", "fin", "booster")),
    "table": (table, ("top", "leg", "drawer", "shelf")),
}
