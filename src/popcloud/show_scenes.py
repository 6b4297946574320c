"""A picture of scenes with a class per point: the truth, the answer, and where it is wrong. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import Floats, check_xyz, resample
from popcloud.errors import CloudError
from popcloud.show import AZIMUTH, NEUTRAL, WRONG, check_lengths, new_canvas, project, save

Labels = NDArray[np.int64]

PANEL, TITLE, LEGEND_ROW, IN_ROW = 3.6, 0.3, 0.26, 8  # inches, and names in a row of the legend
MOST_POINTS = 40_000  # more would only cover each other
ELEVATION = 52.0  # degrees: high enough to look into a room
COVERS = ("ceiling", "roof")  # classes that hide what is below them
WALLS = ("wall", "window", "door", "curtain", "board", "picture", "beam")  # and those that hide what is behind them
NEAR, FOOT = 0.2, 0.06  # how far inside its outline a scene is cut open, what is left of that; shares of its radius
SIDES = np.radians(AZIMUTH + np.arange(-70, 71))  # where the sides look that are in the way, 0 along x

CALM = {  # large surfaces in colours that leave the loud ones to things
    "floor": "#d8c7a3", "wall": "#b4c0cc", "ceiling": "#e3e3e3", "ground": "#c2a878", "road": "#8d8f98",
    "vegetation": "#5aa469", "building": "#c8553d",
}  # fmt: skip
LOUD = (
    "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17a2b8", "#e377c2", "#8c564b", "#bcbd22", "#0b3d91",
    "#f4c20d", "#7f1d5a", "#00b894", "#fa8072", "#5d6d7e", "#a3e048",
)  # fmt: skip
UNKNOWN, RIGHT = "#efefef", "#c9ced4"


def scenes_picture(
    clouds: Sequence[NDArray[Any]],
    answers: Sequence[Labels],
    classes: Sequence[str],
    path: Path | str,
    truth: Sequence[Labels] | None = None,
    names: Sequence[str] | None = None,
    columns: int | None = None,
) -> None:
    """Write a sheet of scenes seen from above, opened at the side, a colour per class.

    clouds   each (N, 3), z up
    answers  each (N,), index into classes
    path     of the PNG; its folder must exist
    truth    each (N,), the right classes, negative where there is none: then every scene has three panels side by side:
             the truth, the answer, and the points that are wrong
    names    of the scenes, written above them
    columns  scenes in a row (default: 1 with the truth, else up to 3)
    Raises CloudError for clouds that can't be drawn or labels that don't fit, FileError for a path that can't be
    written, PopcloudError without matplotlib.
    """
    check_lengths(len(clouds), answers=answers, truth=truth, names=names)
    if columns is not None and columns < 1:
        raise CloudError(f"columns: expected at least 1, found {columns}")
    scenes = []
    for i, xyz in enumerate(clouds):
        points, name = check_xyz(xyz, f"scene {i + 1}"), names[i] if names else f"scene {i + 1}"
        answer = labels_of(answers[i], len(points), len(classes), f"{name}, answers")
        true = None if truth is None else labels_of(truth[i], len(points), len(classes), f"{name}, truth")
        scenes.append((name, points, answer, true))
    across = min(len(scenes), columns or (3 if truth is None else 1))
    parts = 1 if truth is None else 3
    colours = palette(classes)
    shown = sorted(
        {int(c) for _, _, answer, true in scenes for c in np.union1d(answer, answer if true is None else true)}
    )
    canvas, axes = _sheet(across * parts, -(-len(scenes) // across), [c for c in shown if c >= 0], classes, colours)
    for i, scene in enumerate(scenes):
        _draw_scene(axes[i * parts : (i + 1) * parts], *scene, classes, colours)
    save(canvas, path)


def labels_of(labels: Labels, points: int, classes: int, name: str) -> Labels:
    """Return labels (N,) that fit a cloud, negative ones as -1. Raises CloudError that begins with `name`."""
    found = np.asarray(labels)
    if found.shape != (points,) or found.dtype.kind not in "iu":
        raise CloudError(f"{name}: expected {points} whole numbers, one per point, found {found.dtype} {found.shape}")
    if found.max() >= classes:
        raise CloudError(f"{name}: expected classes below {classes}, found {found.max()}")
    return np.maximum(found.astype(np.int64), -1)


def palette(classes: Sequence[str]) -> list[str]:
    """Return a colour #rrggbb per class: calm ones for known large surfaces, loud ones for all else."""
    loud = iter(LOUD * (len(classes) // len(LOUD) + 1))
    return [CALM.get(name) or next(loud) for name in classes]


def _sheet(
    across: int, down: int, shown: Sequence[int], classes: Sequence[str], colours: Sequence[str]
) -> tuple[Any, list[Any]]:
    """Return a canvas with a legend of the classes shown, and its panels, row by row."""
    most = min(IN_ROW, max(1, int(across * PANEL / 1.3)))
    rows = max(1, -(-len(shown) // most))
    foot, height = 0.1 + LEGEND_ROW * rows, (PANEL + TITLE) * down
    canvas = new_canvas(PANEL * across, height + foot)
    from matplotlib.patches import Patch

    axes = canvas.figure.subplots(down, across, squeeze=False).ravel().tolist()
    top, bottom = 1 - TITLE / (height + foot), foot / (height + foot)
    canvas.figure.subplots_adjust(left=0, right=1, bottom=bottom, top=top, wspace=0.0, hspace=TITLE / PANEL)
    for panel in axes:
        panel.set_axis_off()
    handles = [Patch(color=colours[c], label=classes[c]) for c in shown]
    columns = max(1, -(-len(shown) // rows))
    canvas.figure.legend(handles=handles, loc="lower center", ncol=columns, frameon=False, fontsize=11)
    return canvas, axes


def _draw_scene(
    panels: Sequence[Any],
    name: str,
    xyz: Floats,
    answer: Labels,
    truth: Labels | None,
    classes: Sequence[str],
    colours: Sequence[str],
) -> None:
    """Draw a scene in one panel, or in three where the truth is known."""
    seen = answer if truth is None else np.where(truth < 0, answer, truth)
    body = centred(xyz)
    rows = resample(np.flatnonzero(~in_the_way(body, seen, classes)).astype(np.int64), MOST_POINTS)
    rows = np.unique(rows)
    paint = np.array([*colours, UNKNOWN])  # the last one is that of -1
    if truth is None:
        draw_points(panels[0], body[rows], paint[answer[rows]], name)
        return
    known = truth >= 0
    wrong = known & (answer != truth)
    share = f"{wrong.sum() / max(known.sum(), 1):.1%}"
    draw_points(panels[0], body[rows], paint[truth[rows]], f"{name}: truth")
    draw_points(panels[1], body[rows], paint[answer[rows]], "answer")
    marks = np.where(wrong, WRONG, np.where(known, RIGHT, UNKNOWN))
    draw_points(panels[2], body[rows], marks[rows], f"wrong: {share} of the points")


def centred(xyz: Floats) -> NDArray[np.float64]:
    """Return points (N, 3) about the origin, of radius 1; a few stray ones may lie farther out."""
    low, high = np.percentile(xyz, [1, 99], axis=0)
    body = xyz - (low + high) / 2
    return np.asarray(body / max(float(np.percentile(np.linalg.norm(body, axis=1), 99)), 1e-9))


def in_the_way(body: NDArray[np.float64], labels: Labels, classes: Sequence[str]) -> NDArray[np.bool_]:
    """Return which points (N,) hide the inside: all of COVERS, and of WALLS those at the sides towards the camera.

    Of such a wall the foot is left, so that one sees where it stands. A side is a tangent of the outline in x and y.
    """
    covers = [c for c, name in enumerate(classes) if name in COVERS]
    walls = [c for c, name in enumerate(classes) if name in WALLS]
    out = np.stack([np.cos(SIDES), np.sin(SIDES)])
    reach = body[:, :2] @ out
    outline = np.quantile(reach[:: max(1, len(reach) // 4096)], 0.995, axis=0)
    near = (outline - reach < NEAR).any(axis=1)
    tall = body[:, 2] > np.percentile(body[:, 2], 1) + FOOT
    hiding: NDArray[np.bool_] = np.isin(labels, covers) | (np.isin(labels, walls) & near & tall)
    return hiding


def draw_points(
    panel: Any,
    body: NDArray[np.float64],
    colours: NDArray[np.str_],
    title: str,
    elevation: float = ELEVATION,
    ink: float = 75_000,
    margin: float = 1.06,
) -> None:
    """Draw points (N, 3) in their `colours` (N,), far ones first, so that near ones cover them, and paler.

    elevation  of the camera in degrees
    ink        the area of all points together, in square points
    margin     the panel's edge as a multiple of what the points fill
    """
    from matplotlib.colors import to_rgb

    flat, distance = project(body, elevation)
    near = ((distance.max() - distance) / max(float(np.ptp(distance)), 1e-9))[:, None]
    names, which = np.unique(colours, return_inverse=True)
    fog = 0.25 * (1 - near)
    shades = np.array([to_rgb(str(name)) for name in names])[which] * (1 - fog) + 0.97 * fog
    size = float(np.clip(ink / len(body), 1.5, 16))
    order = np.argsort(-distance)
    panel.scatter(*flat[order].T, s=size * (0.7 + 0.6 * near[order, 0]), c=shades[order], linewidths=0)
    low, high = np.percentile(flat, [0.5, 99.5], axis=0)
    middle, half = (low + high) / 2, max(float((high - low).max()) / 2 * margin, 1e-6)
    panel.set(aspect="equal", xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
    panel.set_title(title, color=NEUTRAL, fontsize=11, fontweight="bold", pad=4)
