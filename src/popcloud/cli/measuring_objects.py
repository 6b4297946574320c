"""What bench and summary do with a model on points: whole clouds, objects with parts, blocks of rooms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from popcloud.cloud import Floats, PointCloud
from popcloud.geometry import blocks
from popcloud.packed.program import CATEGORY, Program, Rows, Sampling
from popcloud.runtime.objects import Objects

POINTS = 1024  # of a cloud, for a model that keeps all


def unit(program: Program) -> str:
    """Return what the network reads at once."""
    if program.normalize == "blocks":
        return "block"
    return "object" if program.values[program.steps[-1].output].rows is Rows.POINT else "cloud"


def ready_clouds(found: Objects, points: int, clouds: int) -> list[Floats]:
    """Return made-up clouds, (points, F) each as the network reads them.

    Objects take the model's categories in turns; features that objects have beside x, y, z are by chance.
    """
    if found.normalize == "blocks":
        return _blocks(points, clouds)
    told = found.categories
    return [
        found.ready(cloud, told[i % len(told)] if told else None)
        for i, cloud in enumerate(_featured(found, points, clouds))
    ]


def _featured(found: Objects, points: int, clouds: int) -> list[PointCloud]:
    """Return objects with parts, or shapes, with as many features as the network reads."""
    from popcloud.data import DATASETS, PARTS, parts, shapes

    if found.per_point:
        each = max(clouds, len(parts.CATEGORIES))  # the data set has one of each at least
        made = [cloud.xyz for cloud in PARTS["parts"](None, "test", points=points, clouds=each).clouds[:clouds]]
    else:
        made = list(DATASETS["shapes"](None, "test", points=points, classes=shapes.CLASSES[:clouds], clouds=clouds).xyz)
    chance = np.random.default_rng(0)
    return [PointCloud(xyz, chance.uniform(-1, 1, (len(xyz), len(found.own))).astype(np.float32)) for xyz in made]


def _blocks(points: int, clouds: int) -> list[Floats]:
    """Return blocks of a made-up room, the same points repeatedly where it has fewer."""
    from popcloud.data import SCENES

    found = blocks.block_set(SCENES["rooms"](None, "test", scenes=1), points=points)
    return [np.ascontiguousarray(rows) for rows in found.blocks[:clouds]]


def about(program: Program) -> dict[str, Any]:
    """Return what a summary says of a model on points."""
    assert isinstance(program.plan, Sampling)
    return {
        "points": program.points,
        "features": [name for name in program.features if not name.startswith(CATEGORY)],
        "categories": [name.removeprefix(CATEGORY) for name in program.features if name.startswith(CATEGORY)],
        "ratios": program.plan.ratios,
        "per_point": program.values[program.steps[-1].output].rows is Rows.POINT,
    }


def show_about(program: Program, found: Mapping[str, Any], points: int) -> None:
    """Print what `about` gives; `points` of a cloud, for the levels."""
    assert isinstance(program.plan, Sampling)
    print(f"\ntakes      {_takes(program)}")
    print(f"reads      {', '.join(found['features'])}")
    if found["categories"]:
        print(f"told       the category of an object: {', '.join(found['categories'])}")
    if found["ratios"]:
        levels = [f"{program.plan.count(points, level + 1):,}" for level in range(len(found["ratios"]))]
        shares = ", ".join(f"{ratio:g}" for ratio in found["ratios"])
        print(f"samples    {', '.join(levels)} of {points:,} points: shares {shares}, each of those before")
    print(f"counted    for one {unit(program)} of {points:,} points")
    print(f"answers    {'a class per point' if found['per_point'] else 'one class per cloud'}")


def _takes(program: Program) -> str:
    """Return what is made of a cloud before the first step."""
    if program.normalize == "blocks":
        most = f" and blocks of {program.points:,} points at most" if program.points else ""
        return f"rooms, cut into columns of {blocks.SIZE:g} m{most}"
    points = f"{program.points:,} points" if program.points else "all points"
    if program.points and unit(program) == "object":
        points = f"all points, {program.points:,} at a time at most"
    return f"{points}, normalised: {program.normalize}"
