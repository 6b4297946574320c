"""Sparse convolution in float32, trained and run forward, beside ocnn and spconv's CPU build; and steps of UNET-S.

The same sites, weights and threads for all; neighbours are found before the timing and used again, and the time that
takes is reported for itself. Answers and gradients are compared first. The sites are those of a room, all of its
surfaces seen. ocnn computes in two ways: the faster one in a single try of each is the peer. All keep freed memory as
our training does (popcloud.learn.memory), and every number of threads has a process of its own. With more than one
thread spconv 2.3.8 answers wrong, and another thing each time: its scatter_add (csrc/sparse/gather.py) shares two
pointers among the threads. It is timed all the same, and the report says whether its answer was right.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cases.sparse_peers import Conv, Ocnn, Sites, find_neighbours, missing
from harness import Timing, goal, interleave, report, unmeasured
from popcloud import native
from popcloud.geometry.plan import GridPlan
from popcloud.geometry.pyramid import Pyramid
from popcloud.learn.backbones import build_scene
from popcloud.learn.maps import TensorPyramid
from popcloud.learn.memory import keep_freed_memory
from popcloud.learn.shifted import confidence, start_search
from popcloud.learn.sparse_layers import set_weights_binary

THREADS = (1, 2)
SIDE = 4.0  # of the room, metres
EDGES = {"40k": 0.042, "200k": 0.0186}
LAYERS = (("40k", 32), ("40k", 64), ("200k", 32))  # sites, channels in and out
LEAST, SECONDS = 3, 1.5  # turns of each call, and how long a comparison is to take at least
TOLERANCE = 2e-5  # of the largest value
TRAINED, FORWARD = "times faster than ocnn (forward + backward)", "times faster than spconv (forward)"
STEPS = ("real", "baseline, all binary", "net, searching shifts")
CLASSES, FEATURES = 20, 4


def room(edge: float, seed: int = 0) -> NDArray[np.float32]:
    """Return points on a floor, two walls and a box on the floor, turned against the grid; no coordinate negative.

    They are so many that hardly a site of this edge is missed.
    """
    rng = np.random.default_rng(seed)
    count = round(40 * (SIDE / edge) ** 2)
    xyz = rng.uniform(0, SIDE, (count, 3))
    xyz[np.arange(count), np.arange(count) % 3] = 0
    box = np.arange(count) % 4 == 0
    xyz[box] = SIDE / 2 + xyz[box] / 4
    for (one, two), angle in (((0, 1), 0.5), ((1, 2), 0.3)):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        xyz[:, [one, two]] @= turn.T
    return (xyz - xyz.min(axis=0)).astype(np.float32)


def pyramid(cells: str, levels: int, size: int = 3) -> Pyramid:
    """Return the room's pyramid with about so many sites."""
    return GridPlan(EDGES[cells], levels, size).build(room(EDGES[cells]))


def passes(conv: Conv, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, dx and dw."""
    assert conv.weight is not None
    leaf = x.detach().requires_grad_()
    conv.weight.grad = None
    y = conv.forward(leaf)
    y.backward(grad)
    assert leaf.grad is not None
    assert conv.weight.grad is not None
    return y.detach(), leaf.grad, conv.weight.grad


def differs(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> str:
    """Return which of y, dx, dw differ by more than float32's sums in another order do, and by how much."""
    pairs = zip(("y", "dx", "dw"), found, wanted, strict=False)
    differences = {name: float((one - two).abs().max() / two.abs().max()) for name, one, two in pairs}
    return ", ".join(
        f"{name} by {share:.1e} of its largest" for name, share in differences.items() if share > TOLERANCE
    )


def quickest_mode(channels: int = 32) -> str | None:
    """Return the way in which ocnn is fastest forward and backward on the smaller cloud; None without ocnn."""
    if missing("ocnn"):
        return None
    sites = pyramid("40k", 1).levels[0].sites
    library, (x, grad) = Ocnn(sites), torch.randn(2, len(sites), channels).unbind()
    spent = {}
    for mode in library.modes:
        conv = library.conv(torch.randn(27, channels, channels), mode)
        passes(conv, x, grad)
        began = time.perf_counter()
        passes(conv, x, grad)
        spent[mode] = time.perf_counter() - began
    return min(spent, key=lambda mode: spent[mode])


def measure_layer(libraries: dict[str, Any], sites: int, channels: int, mode: str | None) -> dict[str, Any]:
    """Return the times of one layer beside each peer; mode is ocnn's."""
    torch.manual_seed(0)
    x, grad = torch.randn(2, sites, channels).unbind()
    weight = torch.randn(27, channels, channels) / (27 * channels) ** 0.5
    ours = libraries["popcloud"].conv(weight, "engine")
    wanted = passes(ours, x, grad)
    found: dict[str, Any] = {}
    if "ocnn" in libraries:
        octree = libraries["ocnn"].conv(weight, mode)
        problem = differs(passes(octree, x, grad), wanted)
        assert not problem, f"ocnn has another answer: {problem}"
        calls = {"popcloud": lambda: passes(ours, x, grad), "ocnn": lambda: passes(octree, x, grad)}
        found["forward + backward"] = _records(interleave(calls, seconds=SECONDS, least=LEAST))
    if "spconv" in libraries:
        native_conv = libraries["spconv"].conv(weight, "native")
        with torch.no_grad():
            right = differs((native_conv.forward(x),), wanted) == ""
            assert right or torch.get_num_threads() > 1, "spconv has another answer"
            calls = {"popcloud": lambda: ours.forward(x), "spconv": lambda: native_conv.forward(x)}
            timings = interleave(calls, seconds=SECONDS, least=LEAST)
        found["forward"] = _records(timings) | {"spconv_is_right": right}
    return found


def _records(timings: dict[str, Timing]) -> dict[str, Any]:
    return {name: timing.record() for name, timing in timings.items()}


def measure_cloud(cells: str, widths: list[int], mode: str | None) -> dict[str, Any]:
    """Return the times of all layers on one cloud, and those of finding its neighbours."""
    sites: Sites = pyramid(cells, 1).levels[0].sites
    names = [name for name in ("popcloud", "ocnn", "spconv") if missing(name) is None]
    prepared = {name: find_neighbours(name, sites) for name in names}
    libraries = {name: library for name, (library, _) in prepared.items()}
    return {
        "sites": len(sites),
        "neighbours": round(libraries["popcloud"].map.pairs / len(sites), 2),
        "find_neighbours_ms": {name: round(ms, 1) for name, (_, ms) in prepared.items()},
        "channels": {str(width): measure_layer(libraries, len(sites), width, mode) for width in widths},
    }


def training_step(kind: str) -> Any:
    """Return a call that takes a training step of UNET-S on the smaller cloud: forward, loss, backward, Adam."""
    torch.manual_seed(0)
    net: Any = build_scene("unet_s", classes=CLASSES, features=FEATURES, variant=kind.split(",")[0]).train()
    searching = "searching" in kind
    if searching:
        start_search(net)
        set_weights_binary(net, False)
    at = TensorPyramid.of(pyramid("40k", net.levels, net.size))
    x, labels = torch.randn(at.sites(0), FEATURES), torch.randint(0, CLASSES, (at.sites(0),))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)

    def step() -> None:
        loss = nn.functional.cross_entropy(net(x, at), labels)
        if searching:
            loss = loss + 0.01 * confidence(net)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def worker(threads: int) -> None:
    """Measure with so many threads; print the times as JSON."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    native.engine()
    mode = quickest_mode()
    clouds = {cells: measure_cloud(cells, [width for of, width in LAYERS if of == cells], mode) for cells in EDGES}
    steps = interleave({kind: training_step(kind) for kind in STEPS}, seconds=SECONDS, least=LEAST)
    print(json.dumps({"layers": clouds, "ocnn_mode": mode, "unet_s_step": _records(steps)}))


def run() -> dict[str, Any]:
    """Return the report; each goal is held against the layer and the number of threads where we gain least."""
    measured: dict[str, Any] = {}
    for threads in THREADS:
        command = [sys.executable, str(Path(__file__)), str(threads)]
        environment = {
            "PYTHONPATH": ":".join(path for path in sys.path if path),
            "OMP_NUM_THREADS": "1",
        }  # spconv's loops
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
        measured[f"{threads} threads"] = json.loads(done.stdout.splitlines()[-1])
    goals = [_goal(measured, TRAINED, "forward + backward", "ocnn"), _goal(measured, FORWARD, "forward", "spconv")]
    return report("sparse", measured, goals)


def _goal(measured: dict[str, Any], name: str, what: str, peer: str) -> dict[str, Any]:
    why = missing(peer)
    if why is not None:
        return unmeasured(name, 1, why)
    layers = [
        layer[what]
        for row in measured.values()
        for cloud in row["layers"].values()
        for layer in cloud["channels"].values()
    ]
    return goal(name, min(layer[peer]["median_ms"] / layer["popcloud"]["median_ms"] for layer in layers), 1)


if __name__ == "__main__":
    worker(int(sys.argv[1]))
