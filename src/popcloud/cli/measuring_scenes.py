"""What bench and summary do with a model that answers for each point."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from popcloud.cli.common import show_json, size_of, text_table
from popcloud.cloud import PointCloud
from popcloud.packed.program import Grid, Program

if TYPE_CHECKING:
    from popcloud.cli.measuring import Timing
    from popcloud.runtime.session import Session

ROOMS = 4  # made-up rooms that stand side by side where no file is given
ROOM_EDGE = 0.05  # metres: rooms grow or shrink as if voxels had this edge, at which their surfaces are closed
PLANNED = (100_000, 1_000_000)  # sites of the scenes whose memory is told


@dataclass(frozen=True)
class Shares:
    """Where the time of a scene goes, on one thread: seconds of each part and step, sites of each level."""

    parts: Mapping[str, float]
    steps: Sequence[float]
    sites: Sequence[int]


def bench(args: argparse.Namespace, program: Program, sessions: Mapping[str, Session]) -> None:
    """Time a scene, from points to labels, and print where the time goes."""
    from popcloud.cli.measuring import interleave

    began = time.perf_counter()
    cloud, what = scene(args.cloud, program)
    read = time.perf_counter() - began
    timings = interleave({name: s.labels for name, s in sessions.items()}, [cloud], args.repeat)
    first = next(iter(sessions))
    session = sessions[first]
    found = shares(args.model, first, cloud, session.features, args.repeat)
    if args.cloud is not None:
        found = Shares({"read the file": read, **found.parts}, found.steps, found.sites)
    if args.json:
        show_json(_record(program, session, cloud, timings, found))
        return
    threads = f"{session.threads} thread{'s' * (session.threads > 1)}"
    print(f"{args.model}: {what}, {len(cloud):,} points, points to labels, {threads}")
    rows = [[n, *(f"{v:.2f}" for v in (t.median, t.first, t.third))] for n, t in timings.items()]
    print(text_table(["kernels", "median ms", "first quartile", "third quartile"], rows))
    print(f"\nwhere the time goes, {first}, one thread")
    print(text_table(["part", "share", "ms"], _lines(found.parts)))
    print(f"\nactive sites  {', '.join(f'{n:,}' for n in found.sites)}, level by level")
    print(f"peak memory   {size_of(session.peak or 0)} above points and labels")


def _lines(parts: Mapping[str, float]) -> list[list[str]]:
    whole = sum(parts.values()) or 1.0
    return [[name, f"{spent / whole:.1%}", f"{1e3 * spent:.2f}"] for name, spent in parts.items()]


def _record(
    program: Program, session: Session, cloud: PointCloud, timings: Mapping[str, Timing], found: Shares
) -> dict[str, Any]:
    whole = sum(found.parts.values()) or 1.0
    steps = [
        {"name": program.values[step.output].name, "op": step.op.name, "milliseconds": 1e3 * seconds}
        for step, seconds in zip(program.steps, found.steps, strict=True)
    ]
    return {
        "points": len(cloud),
        "sites": found.sites,
        "threads": session.threads,
        "milliseconds": {name: asdict(timing) for name, timing in timings.items()},
        "share": {name: spent / whole for name, spent in found.parts.items()},
        "steps": steps,
        "peak_bytes": session.peak,
    }


def shares(model: Path, kernels: str, cloud: PointCloud, features: Sequence[str], repeats: int) -> Shares:
    """Return where the time of a scene goes."""
    from popcloud import native
    from popcloud.geometry.inputs import own_features

    engine = native.engine().Engine(model, kernels=kernels, threads=1)
    own = own_features(cloud, features)
    found = engine.profile_scene(cloud.xyz, own if own.shape[1] else None, repeats=repeats)
    return Shares(found["parts"], found["steps"], found["sites"])


def scene(path: Path | None, program: Program) -> tuple[PointCloud, str]:
    """Return the scene to time and what it is: a file's, or made-up rooms with features by chance."""
    from popcloud.data.files import read_features
    from popcloud.geometry.inputs import COMPUTED

    own = [name for name in program.features if name not in COMPUTED]
    if path is not None:
        return read_features(path, own), str(path)
    assert isinstance(program.plan, Grid)
    return rooms(program.plan.edge / ROOM_EDGE, len(own)), f"{ROOMS} made-up rooms, scaled to the voxels"


def rooms(scale: float, features: int) -> PointCloud:
    """Return made-up rooms in a row, `scale` times as large as life, with so many features by chance."""
    from popcloud.data import SCENES

    made, at = [], 0.0
    for cloud in SCENES["rooms"](None, "test", seed=0, scenes=ROOMS).clouds:
        low, high = cloud.xyz.min(axis=0), cloud.xyz.max(axis=0)
        made.append(cloud.xyz - low + np.array([at, 0, 0], np.float32))
        at += float(high[0] - low[0]) + 1
    xyz = (np.concatenate(made) * np.float32(scale)).astype(np.float32)
    chance = np.random.default_rng(0).uniform(-1, 1, (len(xyz), features))
    return PointCloud(xyz, chance.astype(np.float32))


def about(program: Program, model: Path) -> dict[str, Any]:
    """Return what a summary says of a model on a grid: sizes in metres, and bytes where the engine is there."""
    from popcloud import native
    from popcloud.runtime import tiles

    plan = program.plan
    assert isinstance(plan, Grid)
    seen = {
        "voxel_edge": plan.edge,
        "levels": plan.levels,
        "features": program.features,
        "receptive_radius": plan.edge * tiles.receptive_radius(program),
        "exact_halo": plan.edge * tiles.exact_halo(program),
    }
    if not native.available():
        return seen | {"planned_bytes": None}
    planned = native.engine().Engine(model).planned
    return seen | {"planned_bytes": {str(n): planned(tiles.sites_of_surface(n, plan.levels)) for n in PLANNED}}


def show_about(found: Mapping[str, Any]) -> None:
    """Print what `about` gives."""
    print(f"\ngrid       voxels of {found['voxel_edge']:g} m, {found['levels']} levels")
    print(f"reads      {', '.join(found['features'])}")
    radius, halo = found["receptive_radius"], found["exact_halo"]
    print(f"sees       {radius:g} m along each axis at most; tiles with a halo of {halo:g} m are exact")
    if found["planned_bytes"] is not None:
        from popcloud.runtime.scenes import LISTS

        sizes = [f"{size_of(size)} for {int(sites):,} sites" for sites, size in found["planned_bytes"].items()]
        print(f"values     {', '.join(sizes)} of surfaces (a level has a quarter of the sites of the one below);")
        print(f"           neighbour lists come on top, some {LISTS} bytes a site")
