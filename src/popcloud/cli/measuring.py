"""popcloud bench, popcloud summary."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from popcloud.cli import measuring_objects, measuring_scenes
from popcloud.cli.common import THREADS_HELP, Commands, add_json, command, count, show_json, text_table
from popcloud.cloud import prepare
from popcloud.errors import RecipeError
from popcloud.packed.program import Grid, Op, Program, Sampling
from popcloud.summary import SEARCHES

if TYPE_CHECKING:
    from popcloud.cloud import Floats, PointCloud
    from popcloud.runtime.session import Session

CLOUD_RUNS, SCENE_RUNS = 50, 5
SITES = 100_000  # of the scene that a summary is of
CLOUDS = 8  # the engine shares equal rows and stops early, so its time depends on the cloud: several are timed
OBJECTS = 3  # or blocks, whose answers for each point take longer

BENCH = """\
Times whole runs (cloud in, answer out) on made-up shapes: median and quartiles in milliseconds per cloud, for
each instruction set of this machine, in turns, so that a machine that changes its speed favours none. Then the
share of the time that each kind of layer takes, on one thread. Needs numpy only.
A model for parts is timed on made-up objects, one for rooms on blocks of a made-up room: rows in, answers out.
A model for scenes is timed from points to labels, on a file's cloud or on made-up rooms that are scaled to its
voxels; then the share of each part: columns, voxels, kernel maps, convolutions and what follows them."""

SUMMARY = """\
Per step: 1-bit and 32-bit parameters, multiply-adds of signs and of floats for one cloud, bytes in the file.
The bytes add up to the size of the file. Below: what the file says about itself. Needs numpy only.
Of a model on points the searches for neighbours are counted as if they took all distances.
Of a model for scenes the multiply-adds are those of a typical scene of surfaces: 12 of 27 neighbours are
active, and a level has a quarter of the sites of the one below. How far it sees and what memory it
takes is told, too."""

KINDS = {  # what a layer's steps are called in the table
    Op.LINEAR: "float product",
    Op.TRANSFORM: "float product",
    Op.BINARIZE: "sign and pack",
    Op.BINARY_LINEAR: "binary product",
    Op.BINARY_LINEAR_BITS: "binary product",
    Op.BINARY_MAX: "binary product and pool",
    Op.BINARY_MAX_BITS: "binary product and pool",
    Op.BINARY_MEAN: "binary product and pool",
    Op.BINARY_MEAN_BITS: "binary product and pool",
    Op.BINARY_GROUPS: "binary product",
    Op.BINARY_SUM: "binary product",
    Op.LINEAR_GROUPS: "float product",
    Op.PRODUCT: "float product",
    Op.POOL_MAX: "pool",
    Op.POOL_MEAN: "pool",
    **dict.fromkeys(SEARCHES, "neighbour search"),
    **dict.fromkeys((Op.GATHER, Op.SUBTRACT, Op.MULTIPLY, Op.CONCAT, Op.SLICE, Op.RESHAPE), "gather and join"),
}


def add(commands: Commands) -> None:
    """Add the commands of this file."""
    p = command(
        commands,
        "bench",
        bench,
        "measure the milliseconds per cloud and where they go",
        BENCH,
        "  popcloud bench shapes.popc\n  popcloud bench shapes.popc --threads 1 --repeat 200 --json",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="the packed model")
    p.add_argument("--points", type=count, metavar="N", help="points of a cloud (default: the model's, else 1024)")
    p.add_argument("--cloud", type=Path, metavar="FILE", help="of scenes: the cloud to time (default: made-up rooms)")
    p.add_argument("--threads", type=count, metavar="N", help=THREADS_HELP)
    p.add_argument(
        "--repeat", type=count, metavar="N", help="runs per cloud (default: 50; of models that answer for each point 5)"
    )
    p.add_argument("--kernels", metavar="NAME", help="one instruction set only (default: all of this machine's)")
    add_json(p)
    p = command(
        commands,
        "summary",
        summary,
        "list the steps of a model: parameters, multiply-adds, bytes",
        SUMMARY,
        "  popcloud summary shapes.popc\n  popcloud summary shapes.popc --points 2048 --json",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="the packed model")
    p.add_argument(
        "--points", type=count, metavar="N", help="points of a cloud, for a model that keeps all (default: 1024)"
    )
    p.add_argument("--sites", type=count, metavar="N", help="of scenes: finest active sites (default: 100,000)")
    add_json(p)


@dataclass(frozen=True)
class Timing:
    """Milliseconds: median and quartiles over the repeats."""

    median: float
    first: float
    third: float


def bench(args: argparse.Namespace) -> None:
    """Time the engine."""
    from popcloud.packed.file import read
    from popcloud.runtime.session import Session

    names = _kernels(args.kernels)
    sessions = {name: Session(args.model, kernels=name, threads=args.threads) for name in names}
    program, threads = read(args.model), sessions[names[0]].threads
    args.repeat = args.repeat or (SCENE_RUNS if sessions[names[0]].per_point else CLOUD_RUNS)
    if isinstance(program.plan, Grid):
        _refuse(args, "points", "the points of a scene are its file's")
        return measuring_scenes.bench(args, program, sessions)
    _refuse(args, "cloud", "whole clouds are timed on made-up shapes")
    clouds = _clouds(args.points or program.points or measuring_objects.POINTS, sessions[names[0]])
    timings = interleave({name: _call(session) for name, session in sessions.items()}, clouds, args.repeat)
    ready = prepare(clouds[0], program.points, program.normalize) if program.plan is None else clouds[0]
    shares = step_shares(args.model, names[0], ready)
    points = len(ready)
    if args.json:
        kinds = {name: share for name, share, _ in by_kind(program, shares)}
        per_step = [
            {"name": program.values[step.output].name, "op": step.op.name, "milliseconds": 1e3 * seconds}
            for step, seconds in zip(program.steps, shares, strict=True)
        ]
        measured = {name: asdict(timing) for name, timing in timings.items()}
        show_json({"points": points, "threads": threads, "milliseconds": measured, "share": kinds, "steps": per_step})
        return
    what = measuring_objects.unit(program)
    print(f"{args.model}: one {what} of {points:,} points, {threads} thread{'s' * (threads > 1)}")
    rows = [[n, *(f"{v:.3f}" for v in (t.median, t.first, t.third))] for n, t in timings.items()]
    print(text_table(["kernels", "median ms", "first quartile", "third quartile"], rows))
    print(f"\nwhere the time goes, {names[0]}, one thread")
    lines = [[kind, f"{share:.1%}", f"{milliseconds:.4f}"] for kind, share, milliseconds in by_kind(program, shares)]
    print(text_table(["layers", "share", "ms"], lines))


def _refuse(args: argparse.Namespace, name: str, why: str) -> None:
    """Raise RecipeError for an argument that this kind of model has no use for."""
    if getattr(args, name) is not None:
        raise RecipeError(f"--{name}: {why}; leave it out")


def _kernels(name: str | None) -> list[str]:
    from popcloud import native
    from popcloud.runtime.session import REFERENCE

    if name == REFERENCE:
        raise RecipeError("--kernels: the reference says what steps mean and is slow on purpose; leave it out")
    return [name] if name is not None else list(native.engine().available())


def _clouds(points: int, session: Session) -> list[Floats]:
    """Return made-up clouds (N, 3), or of a model on points the rows (N, F) that its network reads."""
    if session.objects is not None:
        return measuring_objects.ready_clouds(session.objects, points, OBJECTS if session.per_point else CLOUDS)
    from popcloud.data import DATASETS
    from popcloud.data.shapes import CLASSES

    made = DATASETS["shapes"](None, "test", points=points, classes=CLASSES[:CLOUDS], clouds=CLOUDS)
    return list(made.xyz)


def _call(session: Session) -> Callable[[Floats], object]:
    """Return what is timed of one of these clouds."""
    objects = session.objects
    return session.run if objects is None else lambda rows: objects.answer([rows])


def interleave(
    calls: Mapping[str, Callable[[Any], object]], clouds: Sequence[Floats | PointCloud], repeat: int
) -> dict[str, Timing]:
    """Time calls on each cloud in turns, A B A B ..., after one round that does not count."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeat + 1):
        for cloud in clouds:
            for name, call in calls.items():
                began = time.perf_counter()
                call(cloud)
                if turn:
                    spent[name].append(1e3 * (time.perf_counter() - began))
    return {name: Timing(*(float(v) for v in np.percentile(ms, [50, 25, 75]))) for name, ms in spent.items()}


def step_shares(model: Path, kernels: str, rows: Floats) -> list[float]:
    """Return the seconds of each step on one thread; `rows` of a cloud as the network reads them."""
    from popcloud import native

    engine = native.engine().Engine(model, kernels=kernels, threads=1)
    return list(engine.profile(rows))


def by_kind(program: Program, seconds: Sequence[float]) -> list[tuple[str, float, float]]:
    """Return (kind of layer, share of the time, milliseconds), the largest first."""
    spent: dict[str, float] = {}
    for step, took in zip(program.steps, seconds, strict=True):
        kind = KINDS.get(step.op, "other")
        spent[kind] = spent.get(kind, 0.0) + took
    whole = sum(spent.values()) or 1.0
    return sorted(((kind, t / whole, 1e3 * t) for kind, t in spent.items()), key=lambda row: -row[1])


def summary(args: argparse.Namespace) -> None:
    """Print the summary of a model file."""
    from popcloud.packed.file import read
    from popcloud.summary import operations, summarize, table

    program = read(args.model)
    scenes = isinstance(program.plan, Grid)
    _refuse(args, *("points", "choose --sites of a scene") if scenes else ("sites", "the model takes whole clouds"))
    size = (args.sites or SITES) if scenes else program.points or args.points or measuring_objects.POINTS
    rows = summarize(program, size, args.model.stat().st_size)
    more = _about(program, args.model, size)
    if args.json:
        told: dict[str, Any] = {"normalize": program.normalize, "classes": program.classes}
        lines = [asdict(row) for row in rows]
        sums = {"steps": lines[:-1], "total": lines[-1], "ops": operations(rows[-1])}
        show_json(more | told | sums | {"meta": program.meta})
        return
    print(table(rows, size if scenes else None))
    if scenes:
        measuring_scenes.show_about(more)
    elif isinstance(program.plan, Sampling):
        measuring_objects.show_about(program, more, size)
    else:
        takes = f"{program.points:,} points" if program.points else "all points"
        print(f"\ntakes      {takes}, normalised: {program.normalize}")
    print(f"classes    {len(program.classes)}: {', '.join(program.classes)}")
    for key, text in program.meta.items():
        print(f"{key:<10} {' '.join(text.split())}")


def _about(program: Program, model: Path, size: int) -> dict[str, Any]:
    """Return what is told of this kind of model beside its steps; `size` in sites, of a model of scenes."""
    if isinstance(program.plan, Grid):
        return measuring_scenes.about(program, model) | {"sites": size}
    return measuring_objects.about(program) if isinstance(program.plan, Sampling) else {"points": program.points}
