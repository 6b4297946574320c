"""A picture of objects with a part per point: the truth beside the answer, and where it is wrong. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import Floats, check_xyz
from popcloud.errors import CloudError
from popcloud.show import ELEVATION, WRONG, check_lengths, new_canvas, save
from popcloud.show_scenes import RIGHT, UNKNOWN, Labels, centred, draw_points, labels_of

PANEL, TITLE, LEGEND, IN_ROW = 2.1, 0.3, 0.42, 3  # inches, and names in a row of the legend per panel
MOST_POINTS = 8192  # more would only cover each other
INK, MARGIN = 20_000, 1.18
COLOURS = (  # no red, which marks what is wrong
    "#3b78b5", "#f2a03d", "#3f9d6b", "#9457a5", "#d9c33c", "#58b9d6", "#a0643c", "#e58fb5",
)  # fmt: skip


class Item(NamedTuple):
    """One object to draw: its title, x, y, z (N, 3), answer (N,), truth (N,) or None; no part is -1."""

    name: str
    xyz: Floats
    answer: Labels
    truth: Labels | None


def parts_picture(
    clouds: Sequence[NDArray[Any]],
    answers: Sequence[Labels],
    parts: Sequence[str],
    path: Path | str,
    truth: Sequence[Labels] | None = None,
    names: Sequence[str] | None = None,
    columns: int | None = None,
    up: str = "z",
) -> None:
    """Write a sheet of objects, a colour per part, each with its own legend below it.

    clouds   each (N, 3)
    answers  each (N,), index into parts
    parts    the names of all parts; of "Category/part" the legend shows what follows the slash
    path     of the PNG; its folder must exist
    truth    each (N,), the right parts, negative where there is none: then every object has three panels side by side:
             the truth, the answer, and the points that are wrong
    names    of the objects, written above them (default: the category of the first point, if it has one)
    columns  objects in a row (default: 2 with the truth, else up to 4)
    up       the axis that points up: "z", or "y" as in ShapeNet
    Raises CloudError for clouds that can't be drawn or labels that don't fit, FileError for a path that can't be
    written, PopcloudError without matplotlib.
    """
    check_lengths(len(clouds), answers=answers, truth=truth, names=names)
    if columns is not None and columns < 1:
        raise CloudError(f"columns: expected at least 1, found {columns}")
    if up not in ("y", "z"):
        raise CloudError(f"up: expected 'y' or 'z', found {up!r}")
    items = []
    for i, xyz in enumerate(clouds):
        points = check_xyz(xyz, f"object {i + 1}")
        answer = labels_of(answers[i], len(points), len(parts), f"object {i + 1}, answers")
        true = None if truth is None else labels_of(truth[i], len(points), len(parts), f"object {i + 1}, truth")
        items.append(Item(names[i] if names else _name(parts, answer, true), _upright(points, up), answer, true))
    _draw_sheet(items, parts, columns or (4 if truth is None else 2), path)


def _name(parts: Sequence[str], answer: Labels, truth: Labels | None) -> str:
    """Return the category that an object's parts belong to, "" if they have none."""
    seen = answer if truth is None or truth.max() < 0 else truth
    return parts[seen.max()].rpartition("/")[0] if seen.max() >= 0 else ""


def _upright(xyz: Floats, up: str) -> Floats:
    """Return a cloud whose axis `up` is z, turned and not mirrored."""
    return xyz if up == "z" else np.roll(xyz, 1, axis=1)


def part_colours(parts: Sequence[str]) -> list[str]:
    """Return a colour #rrggbb per part: those of one category differ, up to eight."""
    seen: dict[str, int] = {}
    colours = []
    for name in parts:
        category = name.rpartition("/")[0]
        colours.append(COLOURS[seen.get(category, 0) % len(COLOURS)])
        seen[category] = seen.get(category, 0) + 1
    return colours


def _draw_sheet(items: Sequence[Item], parts: Sequence[str], columns: int, path: Path | str) -> None:
    """Draw all objects, row by row, and write the picture."""
    across, panels = min(len(items), columns), 1 if items[0].truth is None else 3
    down, height = -(-len(items) // across), PANEL + TITLE + LEGEND
    canvas = new_canvas(PANEL * across * panels, height * down)
    axes = canvas.figure.subplots(down, across * panels, squeeze=False).ravel().tolist()
    space = {"wspace": 0.0, "hspace": (TITLE + LEGEND) / PANEL}
    canvas.figure.subplots_adjust(
        left=0, right=1, top=1 - TITLE / (height * down), bottom=LEGEND / (height * down), **space
    )
    for panel in axes:
        panel.set_axis_off()
    colours = part_colours(parts)
    for i, item in enumerate(items):
        own = axes[i * panels : (i + 1) * panels]
        _draw_item(own, item, colours)
        _legend(own[len(own) // 2], item, parts, colours, IN_ROW * panels)
    save(canvas, path)


def _draw_item(panels: Sequence[Any], item: Item, colours: Sequence[str]) -> None:
    """Draw an object in one panel, or in three where the truth is known."""
    rows = np.arange(len(item.xyz))[:: -(-len(item.xyz) // MOST_POINTS)]
    body, answer = centred(item.xyz)[rows], item.answer[rows]
    paint = np.array([*colours, UNKNOWN])  # the last one is that of -1
    if item.truth is None:
        draw_points(panels[0], body, paint[answer], item.name, ELEVATION, INK, MARGIN)
        return
    known = item.truth >= 0
    wrong = known & (item.answer != item.truth)
    share = f"wrong: {wrong.sum() / max(known.sum(), 1):.1%}"
    title = f"{item.name}: truth" if item.name else "truth"
    marks = np.where(wrong, WRONG, np.where(known, RIGHT, UNKNOWN))[rows]
    for panel, shades, text in (
        (panels[0], paint[item.truth[rows]], title),
        (panels[1], paint[answer], "answer"),
        (panels[2], marks, share),
    ):
        draw_points(panel, body, shades, text, ELEVATION, INK, MARGIN)


def _legend(panel: Any, item: Item, parts: Sequence[str], colours: Sequence[str], in_row: int) -> None:
    """Write the names of the parts that an object shows below a panel."""
    from matplotlib.lines import Line2D

    shown = np.union1d(item.answer, item.answer if item.truth is None else item.truth)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colours[part], label=parts[part].rpartition("/")[2])
        for part in shown.tolist()
        if part >= 0
    ]
    rows = max(-(-len(handles) // in_row), 1)
    options = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.02), "frameon": False, "fontsize": 9, "borderpad": 0}
    space = {"handletextpad": 0.0, "columnspacing": 0.6, "labelspacing": 0.2}
    panel.legend(handles=handles, ncol=max(-(-len(handles) // rows), 1), **options, **space)
