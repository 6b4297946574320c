"""UNET-S, UNET-H, FCN-S and FCN-H of BSC-Net on a room of some 190,000 sites at 2 cm, from points to labels.

Beside the engine on the binary networks, without shifts and with: the engine on their real-valued twin, PyTorch on
both (our geometry and layers), and spconv's CPU build on the twins of the U-Nets, which is asked for less: it gets the
sites and the means of their points, and gives logits. "spconv, pairs kept" has found the pairs of submanifold
convolutions before. Labels are compared first. One thread, unless said.

The cloud has one point for each site, which is about what a depth camera gives at 2 cm; "all points" are those from
which these were chosen, ten a site. "pairs known" is the engine from means of sites to logits, all maps made before.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from cases.scene_networks import SceneNetwork, coloured, network, one_per_site, torch_labels
from cases.sparse import EDGES, room
from cases.sparse_peers import missing
from cases.spconv_network import SpconvNetwork
from harness import apart, goal, interleave, report, unmeasured
from popcloud import native
from popcloud.cloud import PointCloud
from popcloud.geometry.pyramid import Pyramid
from popcloud.learn.maps import TensorPyramid
from popcloud.learn.memory import keep_freed_memory
from popcloud.packed.file import write
from popcloud.runtime import sites

BINARY, REAL = ("baseline", "net"), "real"
NETWORKS = {"unet_s": 10, "unet_h": 15, "fcn_s": None, "fcn_h": None}  # how many times faster than spconv to be
MILLISECONDS, OVER_FLOAT, TWO_THREADS = 50, 4, 1.7
LEAST, SECONDS, AGREE = 5, 3.0, 0.999
FROM_POINTS = {"voxelise", "sort", "features", "points"}  # parts of a profile between points and sites


def run() -> dict[str, Any]:
    """Return the report; each goal is held against the one of both binary networks where we gain least."""
    measured = {name: apart(__file__, name) for name in NETWORKS}
    return report("unet", measured, [each for name, row in measured.items() for each in _goals(name, row)])


def measure(name: str, cells: str = "200k", least: int = LEAST) -> dict[str, Any]:
    """Return times and shares of one network on the room of about so many sites."""
    networks = {variant: network(name, variant, EDGES[cells]) for variant in (*BINARY, REAL)}
    with tempfile.TemporaryDirectory() as folder:
        engines = _engines(networks, Path(folder))
    everything = coloured(room(EDGES[cells]))
    first, at = sites.ready(networks[REAL].exported.program, everything)
    cloud = one_per_site(everything, at.point_to_site)
    agreeing = _agreeing(engines, networks, cloud)
    assert min(agreeing.values()) >= AGREE, agreeing
    calls = _calls(engines, networks, cloud, everything)
    if name.startswith("unet") and missing("spconv") is None:
        calls |= _spconv(networks[REAL], at, torch.from_numpy(first))
    with torch.inference_mode():
        times = interleave(calls, seconds=SECONDS, least=least)
    ms = {key: timing.median for key, timing in times.items()}
    return {
        "points": len(cloud),
        "all_points": len(everything),
        "sites": [len(level.sites) for level in at.levels],
        "agreeing_with_torch": {key: round(share, 6) for key, share in agreeing.items()},
        "times": {key: timing.record() for key, timing in times.items()},
        "times_faster": {variant: _ratios(ms, variant) for variant in BINARY},
        "parts_ms": {variant: _parts(engines[variant], cloud) for variant in networks},
        "parts_all_points_ms": {variant: _parts(engines[variant], everything) for variant in networks},
    }


def _engines(networks: Mapping[str, SceneNetwork], folder: Path) -> dict[str, Any]:
    """Return an engine on one and on two threads for each network."""
    engines = {}
    for variant, net in networks.items():
        path = folder / f"{variant}.popc"
        write(net.exported.program, path)
        engines[variant] = native.engine().Engine(path, threads=1)
        engines[f"{variant}, 2 threads"] = native.engine().Engine(path, threads=2)
    return engines


def _agreeing(engines: Mapping[str, Any], networks: Mapping[str, SceneNetwork], cloud: PointCloud) -> dict[str, float]:
    """Return by engine the share of points with PyTorch's label."""
    wanted = {variant: torch_labels(net, cloud) for variant, net in networks.items()}
    return {
        key: float((engine.labels(cloud.xyz, cloud.features) == wanted[key.split(",")[0]]).mean())
        for key, engine in engines.items()
    }


@torch.inference_mode()
def _spconv(net: SceneNetwork, at: Pyramid, first: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Return spconv's calls, from sites to logits, once it has the logits of PyTorch."""
    peer, rows = SpconvNetwork(net.exported.program), at.levels[0].sites
    answer = peer(peer.start(rows, first))
    kept = peer.kept_pairs(answer)
    wanted = net.model(first, TensorPyramid.of(at))
    for found in (answer, peer(peer.start(rows, first, kept))):
        off = float((found.features - wanted).abs().max() / wanted.abs().max())
        assert off < 1e-4, f"spconv has another answer: off by {off:.1e} of the largest"
    return {
        "spconv": lambda: peer(peer.start(rows, first)),
        "spconv, pairs kept": lambda: peer(peer.start(rows, first, kept)),
    }


def _calls(
    engines: Mapping[str, Any], networks: Mapping[str, SceneNetwork], cloud: PointCloud, everything: PointCloud
) -> dict[str, Callable[[], object]]:
    """Return the engine's calls and PyTorch's."""
    calls: dict[str, Callable[[], object]] = {}
    for key, engine in engines.items():
        calls[key] = lambda engine=engine: engine.labels(cloud.xyz, cloud.features)
    for variant in networks:
        engine, opened = engines[variant], engines[variant].scene(cloud.xyz, cloud.features)
        calls[f"{variant}, all points"] = lambda engine=engine: engine.labels(everything.xyz, everything.features)
        calls[f"{variant}, pairs known"] = opened.run
    for variant in ("baseline", REAL):
        calls[f"torch, {variant}"] = lambda net=networks[variant]: torch_labels(net, cloud)
    return calls


def _ratios(ms: Mapping[str, float], variant: str) -> dict[str, float]:
    """Return how many times a binary network is faster than each of the rest that does the same work, or less."""
    known = f"{variant}, pairs known"
    pairs = {"our float path": (REAL, variant), "our float path, pairs known": (f"{REAL}, pairs known", known)}
    pairs |= {"torch": ("torch, baseline", variant), "torch, real": ("torch, real", variant)}
    pairs |= {"spconv": ("spconv", variant), "spconv, pairs kept": ("spconv, pairs kept", known)}
    pairs["one thread"] = (variant, f"{variant}, 2 threads")
    return {name: round(ms[slow] / ms[fast], 3) for name, (slow, fast) in pairs.items() if slow in ms}


def _parts(engine: Any, cloud: PointCloud) -> dict[str, Any]:
    """Return the milliseconds of each part of a run on one thread, and those from sites to logits."""
    parts = engine.profile_scene(cloud.xyz, cloud.features, repeats=5)["parts"]
    spent = {name: 1e3 * seconds for name, seconds in parts.items()}
    inside = sum(ms for name, ms in spent.items() if name not in FROM_POINTS)
    return {name: round(ms, 3) for name, ms in spent.items()} | {"sites to logits": round(inside, 3)}


def _goals(name: str, row: dict[str, Any]) -> list[dict[str, Any]]:
    slowest = max(row["times"][variant]["median_ms"] for variant in BINARY)
    least = {key: min(row["times_faster"][v][key] for v in BINARY) for key in row["times_faster"]["net"]}
    goals = [goal(f"{name}: milliseconds", slowest, MILLISECONDS, at_least=False)] if name == "unet_s" else []
    target = NETWORKS[name]
    if target is not None and "spconv" in least:
        goals.append(goal(f"{name}: times spconv", least["spconv"], target))
    elif target is not None:
        goals.append(unmeasured(f"{name}: times spconv", target, str(missing("spconv"))))
    goals.append(goal(f"{name}: times our float path", least["our float path"], OVER_FLOAT))
    return [*goals, goal(f"{name}: 2 threads, times one", least["one thread"], TWO_THREADS)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    keep_freed_memory()
    print(json.dumps(measure(sys.argv[1])))
