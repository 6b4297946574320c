"""UNET-S on landscapes of 10,000 to 10 million points: time, and memory above the input, on one thread.

The landscape grows, its density stays: 16 points per square metre of ground and of buildings, sites of 25 cm. Each
size has a process of its own, which reads the points, and then never sees PyTorch. Memory is how far the process's peak
rises above what it held with the points read; "peak_bytes" is what the engine counts itself. A session runs the largest
scene in tiles, with the halo that makes answers exact; it does so once more with less memory for the values.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import apart, goal, report
from popcloud import native
from popcloud.runtime.session import MEMORY, Session

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
VARIANTS = ("baseline", "net")
EDGE, DENSITY = 0.25, 16.0  # metres; points per square metre
BLOCK, HOUSE, HEIGHT = 50.0, 12.0, 8.0  # a house of this side and height on each square block of land, metres
LESS = 1 << 29  # bytes of values that the largest scene may have in its second run
MEGABYTES, GROWTH, OVER = 400, 1.05, 2  # kernel maps are of about the size of the values
MOST_SITES = 1 << 25  # more than there are
SECONDS, LEAST, MOST = 2.0, 1, 15  # of repeats: how long they may take, and how many


def run() -> dict[str, Any]:
    """Return the report; goals are held against the variant where we are worse."""
    measured: dict[str, Any] = {variant: {} for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        models, points = write_models(Path(folder)), Path(folder) / "points.npy"
        for size in SIZES:
            np.save(points, landscape(size))
            for variant, path in models.items():
                for memory in (MEMORY, LESS) if size == max(SIZES) else (MEMORY,):
                    name = f"{size} points" + (", less memory" if memory == LESS else "")
                    measured[variant][name] = apart(__file__, str(path), str(points), str(memory))
    return report("scale", measured, _goals(measured))


def write_models(folder: Path) -> dict[str, Path]:
    """Write UNET-S in each variant, which reads that there is a point and how high it lies."""
    from cases.scene_networks import network  # PyTorch, which the measured processes are without
    from popcloud.packed.file import write

    models = {variant: folder / f"{variant}.popc" for variant in VARIANTS}
    for variant, path in models.items():
        write(network("unet_s", variant, EDGE, ("one", "height")).exported.program, path)
    return models


def landscape(points: int, seed: int = 0) -> NDArray[np.float32]:
    """Return points (points, 3) on hills, and on the walls and the roof of a house in each block of land."""
    rng = np.random.default_rng(seed)
    walls, roof = 4 * HOUSE * HEIGHT, HOUSE**2
    side = (points / (DENSITY * (1 + (walls + roof) / BLOCK**2))) ** 0.5
    houses = max(1, round(side / BLOCK))
    built = int(points * (walls + roof) / (walls + roof + BLOCK**2))
    xyz = np.zeros((points, 3), np.float32)
    xyz[built:, :2] = rng.uniform(0, side, (points - built, 2))
    u, v = rng.uniform(0, HOUSE, (2, built))
    wall = rng.uniform(size=built) * (walls + roof) < walls
    along = rng.integers(0, 2, built)  # walls that run along x, or along y
    place = np.stack([u, np.where(wall, rng.integers(0, 2, built) * HOUSE, v)])
    place = np.where(along == 1, place[::-1], place)
    xyz[:built, :2] = (place + rng.integers(0, houses, (2, built)) * BLOCK + BLOCK / 3).T
    xyz[:built, 2] = np.where(wall, rng.uniform(0, HEIGHT, built), HEIGHT)
    xyz[:, 2] += 3 * np.sin(xyz[:, 0] / 30) + 2 * np.cos(xyz[:, 1] / 40)
    return xyz[rng.permutation(points)]


def measure(model: str, points: str, memory: str) -> dict[str, Any]:
    """Return sites, time and memory of one scene, of which a tile may have so many bytes of values."""
    xyz = np.load(points)
    session = Session(model, threads=1, memory=int(memory))
    before, tiles, spent = held("VmRSS"), 1, []

    def progress(_: int, count: int) -> None:
        nonlocal tiles
        tiles = count

    while len(spent) < LEAST or (sum(spent) < SECONDS and len(spent) < MOST):
        began = time.perf_counter()
        session.labels(xyz, progress=progress)
        spent.append(time.perf_counter() - began)
    rise = held("VmHWM") - before
    return {
        "sites": len(native.engine().voxelize(xyz, EDGE, MOST_SITES)[0]),
        "memory": int(memory),
        "tiles": tiles,
        "median_ms": round(1e3 * float(np.median(spent)), 2),
        "runs": len(spent),
        "memory_rise_bytes": rise,
        "peak_bytes": session.peak,
    }


def held(field: str) -> int:
    """Return bytes of this process (Linux): "VmRSS", held now; "VmHWM", held at most since it began."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def _goals(measured: dict[str, Any]) -> list[dict[str, Any]]:
    rows = measured.values()
    growth = max(exponent([row[f"{size} points"] for size in SIZES]) for row in rows)
    rise = max(row["1000000 points"]["memory_rise_bytes"] for row in rows)
    over = max(each["peak_bytes"] / each["memory"] for row in rows for each in row.values() if each["tiles"] > 1)
    return [
        goal("exponent of time over sites", growth, GROWTH, at_least=False),
        goal("1 M points: megabytes above the input", rise / 1e6, MEGABYTES, at_least=False),
        goal("tiles: peak over the memory that values may have", over, OVER, at_least=False),
    ]


def exponent(rows: list[dict[str, Any]]) -> float:
    """Return the e of time ~ sites^e that fits the scenes best."""
    sites, spent = ([np.log(row[name]) for row in rows] for name in ("sites", "median_ms"))
    return float(np.polyfit(sites, spent, 1)[0])


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
