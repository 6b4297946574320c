"""A picture of clouds and what a network answered, as a PNG. Needs matplotlib (the extra [show])."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import check_xyz, resample
from popcloud.errors import CloudError, FileError, PopcloudError

RIGHT, WRONG, NEUTRAL = "#1a7f37", "#c8322b", "#24292f"
PANEL = 2.4  # inches
MOST_POINTS = 8192  # more would only cover each other
AZIMUTH, ELEVATION, DISTANCE = -55.0, 24.0, 3.4  # degrees, degrees, radii of the cloud


def picture(
    clouds: Sequence[NDArray[Any]],
    titles: Sequence[str],
    path: Path | str,
    truth: Sequence[str] | None = None,
    probabilities: Sequence[float] | None = None,
    columns: int | None = None,
) -> None:
    """Write a contact sheet: one panel per cloud, its answer above it.

    clouds         each (N, 3), z up; drawn in perspective, coloured by height, paler with distance
    titles         what the network answered, one per cloud
    path           of the PNG; its folder must exist
    truth          the right answers: then a title is green where it is right, else red with the right one below
    probabilities  0 to 1, written behind the titles
    columns        panels in a row, default: as many as rows or some more, so that few panels stay empty
    Raises CloudError for clouds that can't be drawn or lists of other lengths, FileError for a path that can't be
    written, PopcloudError without matplotlib.
    """
    check_lengths(len(clouds), titles=titles, truth=truth, probabilities=probabilities)
    if columns is not None and columns < 1:
        raise CloudError(f"columns: expected at least 1, found {columns}")
    checked = [check_xyz(xyz, f"cloud {i + 1}") for i, xyz in enumerate(clouds)]
    across = min(len(checked), columns or _columns(len(checked)))
    down = -(-len(checked) // across)
    canvas, axes = _sheet(across, down)
    for i, xyz in enumerate(checked):
        _draw(axes[i], resample(xyz, min(len(xyz), MOST_POINTS)))
        true = None if truth is None else truth[i]
        _title(axes[i], titles[i], true, None if probabilities is None else probabilities[i])
    save(canvas, path)


def save(canvas: Any, path: Path | str) -> None:
    """Write a canvas as a PNG. Raises FileError for a path that can't be written."""
    try:
        canvas.print_png(str(path))
    except OSError as error:
        raise FileError(f"{path}: can't be written ({error.strerror}); choose another path") from error


def check_lengths(count: int, **lists: Sequence[Any] | None) -> None:
    """Raise CloudError for no cloud at all, or a list that has not one thing per cloud."""
    if count == 0:
        raise CloudError("a picture needs at least one cloud, found none")
    for name, values in lists.items():
        if values is not None and len(values) != count:
            raise CloudError(f"{name}: expected one per cloud ({count}), found {len(values)}")


def _columns(count: int) -> int:
    """Return the number of columns that leaves the fewest panels empty, of those that make the sheet wide, not tall."""
    choices = range(int(np.ceil(np.sqrt(count))), int(np.ceil(np.sqrt(2 * count))) + 1)
    return min(choices, key=lambda columns: (-count % columns, columns))


def _sheet(across: int, down: int) -> tuple[Any, list[Any]]:
    """Return a canvas and its panels, row by row."""
    canvas = new_canvas(PANEL * across, (PANEL + 0.35) * down)
    axes = canvas.figure.subplots(down, across, squeeze=False).ravel().tolist()
    space = {"wspace": 0.03, "hspace": 0.22}
    canvas.figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=1 - 0.45 / (PANEL * down), **space)
    for panel in axes:
        panel.set_axis_off()
    return canvas, axes


def new_canvas(width: float, height: float) -> Any:
    """Return a canvas of so many inches with a figure of its own: pyplot's global state stays untouched.

    Raises PopcloudError without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PopcloudError("a picture needs matplotlib: pip install 'popcloud[show]'") from error
    return FigureCanvasAgg(Figure(figsize=(width, height), dpi=140, facecolor="white"))


def _title(panel: Any, title: str, truth: str | None, probability: float | None) -> None:
    """Write the answer above a panel, green or red where the truth is known."""
    text = title if probability is None else f"{title}  {probability:.0%}"
    colour = NEUTRAL if truth is None else RIGHT if truth == title else WRONG
    panel.set_title(text, color=colour, fontsize=11, fontweight="bold", pad=5 if truth is None else 17)
    if truth is not None and truth != title:
        panel.text(
            0.5, 1.02, f"truth: {truth}", transform=panel.transAxes, ha="center", va="bottom", fontsize=9, color=NEUTRAL
        )


def project(xyz: NDArray[Any], elevation: float = ELEVATION) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return where points (N, 3) of about unit size appear, (N, 2), right and up, and how far off they are, (N,)."""
    turn, lift = np.radians(AZIMUTH), np.radians(elevation)
    toward = np.array([np.cos(lift) * np.cos(turn), np.cos(lift) * np.sin(turn), np.sin(lift)])
    right = np.array([-np.sin(turn), np.cos(turn), 0.0])
    distance = DISTANCE - xyz @ toward
    flat = np.stack([xyz @ right, xyz @ np.cross(toward, right)], axis=1)
    return flat * (DISTANCE / distance)[:, None], distance


def _draw(panel: Any, xyz: NDArray[Any]) -> None:
    """Draw one cloud over its shadow, far points first, so that near ones cover them."""
    # Percentiles: a few stray points must not make the body small; they may lie outside the panel.
    low, high = np.percentile(xyz, [1, 99], axis=0)
    body = xyz - (low + high) / 2
    body /= max(float(np.percentile(np.linalg.norm(body, axis=1), 99)), 1e-9)
    floor = body.copy()
    floor[:, 2] = np.percentile(body[:, 2], 1) - 0.08
    shadow, _ = project(floor)
    flat, distance = project(body)
    order = np.argsort(-distance)
    size = float(np.clip(4000 / len(body), 2, 16))
    near = (distance.max() - distance) / max(float(np.ptp(distance)), 1e-9)
    panel.scatter(*shadow.T, s=size * 1.5, color="#000000", alpha=0.04, linewidths=0)
    colours = _shade(body[:, 2].clip(floor[0, 2], -floor[0, 2]), near)
    panel.scatter(*flat[order].T, s=(size * (0.55 + 0.75 * near))[order], c=colours[order], linewidths=0)
    panel.set(xlim=(-1.12, 1.12), ylim=(-1.24, 1.06), aspect="equal")


def _shade(height: NDArray[Any], near: NDArray[Any]) -> NDArray[Any]:
    """Return (N, 3) colours: from violet at the foot to yellow at the top, washed out with distance."""
    from matplotlib import colormaps

    share = (height - height.min()) / max(float(np.ptp(height)), 1e-9)
    colours = np.asarray(colormaps["viridis"](0.05 + 0.85 * share))[:, :3]
    fog = 0.5 * (1 - near)[:, None]
    return np.asarray(colours * (1 - fog) + 0.93 * fog)
