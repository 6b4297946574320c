"""One submanifold convolution of 3^3 on a room of some 190,000 sites: binary, float and spconv's, on one thread.

The engine's figures are those of the convolution's own step in a run of a small program: from stored rows to stored
rows of floats, with the scale and bias of each channel. spconv's CPU build has its pairs found before, and no bias.
Answers are checked first: the binary layer's against the numpy reference bit for bit, on a smaller room, and the float
layer's against spconv's.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cases.scene_networks import coloured
from cases.sparse import EDGES, room
from cases.sparse_peers import Spconv, missing
from harness import alternate, apart, goal, report, unmeasured
from popcloud import native
from popcloud.geometry.voxels import voxelize
from popcloud.learn.memory import keep_freed_memory
from popcloud.packed.bits import pack_weights
from popcloud.packed.file import write
from popcloud.packed.program import Array, Grid, Kind, Op, Program, Rows, Step, Value
from popcloud.runtime import sites

WIDTHS = (16, 32, 64, 128)
OVER_SPCONV, OVER_FLOAT = 15, 5
SMALL = 0.2  # edge of the sites on which answers are checked against the reference, metres
LIBRARY, TURNS = "spconv float32", 7
LAYER = 1  # the step that is measured
TOLERANCE = 2e-5  # of the largest value, between float32's sums in two orders


def run() -> dict[str, Any]:
    """Return the report."""
    measured = {str(width): apart(__file__, str(width)) for width in WIDTHS}
    ms = {width: {key: time["median_ms"] for key, time in row["times"].items()} for width, row in measured.items()}
    goals = []
    for width, row in ms.items():
        goals.append(goal(f"{width} channels: times our float path", row["float"] / row["binary"], OVER_FLOAT))
    name = "64 channels: times spconv"
    why = missing("spconv")
    times = 0.0 if why else ms["64"][LIBRARY] / ms["64"]["binary"]
    goals.append(unmeasured(name, OVER_SPCONV, why) if why else goal(name, times, OVER_SPCONV))
    return report("sparse-conv", measured, goals)


def measure(channels: int, cells: str = "200k", turns: int = TURNS) -> dict[str, Any]:
    """Return the times of one width on the room of about so many sites."""
    programs = {kind.name.lower(): layer(channels, kind, EDGES[cells]) for kind in (Kind.FLOAT, Kind.BITS)}
    for kind in (Kind.FLOAT, Kind.BITS):
        check(layer(channels, kind, SMALL), exact=kind is Kind.BITS)
    engines = {name: engine_of(program) for name, program in programs.items()}
    cloud = coloured(room(EDGES[cells]), 1)
    clocks = {
        name: lambda engine=engine: engine.profile_scene(cloud.xyz, cloud.features, repeats=1)["steps"][LAYER]
        for name, engine in (("binary", engines["bits"]), ("float", engines["float"]))
    }
    opened = engines["float"].scene(cloud.xyz, cloud.features)
    if missing("spconv") is None:
        clocks[LIBRARY] = spconv_clock(programs["float"], opened, voxelize(cloud.xyz, EDGES[cells]).sites)
    with torch.inference_mode():
        times = alternate(clocks, turns)
    return {"sites": opened.sites[0], "times": {name: timing.record() for name, timing in times.items()}}


def layer(channels: int, kind: Kind, edge: float) -> Program:
    """Return a network of three steps, the middle one the layer; the first makes its input, the last reads it."""
    rng, terms, rows = np.random.default_rng(0), 27 * channels, Rows.SITES

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    first = {"weight": normal(27, channels), "scale": normal(1, channels), "bias": normal(1, channels)}
    if kind is Kind.BITS:
        op, first["thresholds"] = Op.BINARY_SPARSE_CONV, normal(1, channels)
        weight = pack_weights(rng.choice(np.array([-1, 1], np.int8), (channels, terms)))
    else:
        op, weight = Op.SPARSE_CONV, normal(terms, channels)
    scale = np.full((1, channels), terms**-0.5, np.float32)
    steps = (
        Step(Op.SPARSE_CONV, (0,), 1, blobs=first),
        Step(op, (1,), 2, blobs={"weight": weight, "scale": scale, "bias": normal(1, channels)}),
        Step(Op.LINEAR, (2,), 3, blobs={"weight": normal(channels, 2), "bias": normal(2)}),
    )
    shapes = (("sites", Kind.FLOAT, 1), ("input", kind, channels), ("output", Kind.FLOAT, channels))
    values = (*(Value(name, of, rows, width) for name, of, width in shapes), Value("answer", Kind.FLOAT, rows, 2))
    return Program(values, steps, 0, "none", ("no", "yes"), {}, Grid(edge, 1, 3), ("brightness",))


def engine_of(program: Program) -> Any:
    """Return an engine on one thread that stores what each step makes."""
    with tempfile.TemporaryDirectory() as folder:
        write(program, Path(folder) / "layer.popc")
        return native.engine().Engine(Path(folder) / "layer.popc", threads=1, fuse=False)


def check(program: Program, *, exact: bool) -> None:
    """Compare the engine with the reference on a small room: the bits, or float32's sums."""
    cloud = coloured(room(SMALL), 1)
    found, wanted = engine_of(program).answers(cloud.xyz, cloud.features), sites.run(program, cloud)
    off = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    assert off <= (0 if exact else TOLERANCE), f"the engine has another answer: off by {off:.1e} of the largest"


def spconv_clock(program: Program, opened: Any, rows: NDArray[np.int32]) -> Callable[[], float]:
    """Return a call that tells spconv's seconds for the layer on these sites, once it has the engine's answer."""
    blobs = program.steps[LAYER].blobs
    weight = torch.tensor(blobs["weight"]).unflatten(0, (27, -1))
    x = torch.randn(len(rows), weight.shape[1])
    conv = Spconv(rows).conv(weight, "native")

    def clock() -> float:
        began = time.perf_counter()
        conv.forward(x)
        return time.perf_counter() - began

    with torch.inference_mode():
        wanted = conv.forward(x).numpy() * blobs["scale"] + blobs["bias"]
    found = opened.step(LAYER, [x.numpy()])[0]
    off = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    assert off <= TOLERANCE, f"spconv has another answer: off by {off:.1e} of the largest"
    return clock


if __name__ == "__main__":
    torch.set_num_threads(1)
    keep_freed_memory()
    print(json.dumps(measure(int(sys.argv[1]))))
