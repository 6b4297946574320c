"""The error of binarising a convolution: dense, submanifold, and shifted; see docs/quantisation_error.md.

    python benchmarks/quantisation_error.py --json benchmarks/results/quantisation_error.json \
        --picture docs/quantisation_error.png --ign FOLDER

The error of an output channel is min over alpha of |y - alpha d|^2 / |y|^2, with y the real-valued convolution and d
that of the signs of inputs and weights, over all sites together: 1 - cos^2 of the angle between them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness import machine
from popcloud.cloud import PointCloud
from popcloud.data import ign_lidarhd, rooms
from popcloud.geometry.kernel_map import submanifold
from popcloud.geometry.pyramid import build
from popcloud.geometry.voxels import majority_labels, mean_features, morton, voxelize
from popcloud.learn.backbones.unet import UNet
from popcloud.learn.binarizers import REAL, signs
from popcloud.learn.designs import Design
from popcloud.learn.maps import TensorMap, TensorPyramid
from popcloud.learn.shifted import ALL
from popcloud.learn.sparse import sparse_conv
from popcloud.learn.sparse_layers import SparseConv

SHARES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05)  # of the cells that are occupied
PATTERNS = ("scattered", "blobs", "surfaces")
KERNELS = {"independent": 0.0, "half common": 0.5**0.5, "common": 1.0}
SIDE, CHANNELS, GROUPS = 40, 16, 4
FIELD, PATTERN = 1.0, 2.5  # widths in cells of the Gaussians that smooth features, and blobs and surfaces
SEEDS = (0, 1, 2)
EDGES = {"rooms": (0.05, 0.1, 0.2), "ign_lidarhd": (0.5, 1.0)}  # metres
LEVELS, STEPS, RATE = 3, 100, 3e-3  # of the small U-Net, and its training
CONFIDENCE = 0.01  # what BSC-Net weighs its confidence loss with (UNET)

Array = NDArray[Any]


# --- the error ----------------------------------------------------------------------


def relative_error(y: Tensor, d: Tensor) -> Tensor:
    """Return the error (C,) of y (S, C) by the best multiple of d per channel; 0 where y is 0."""
    y, d = y.double(), d.double()
    along = (y * d).sum(0).square() / (d.square().sum(0) * y.square().sum(0)).clamp_min(1e-30)
    return torch.where(y.square().sum(0) > 0, 1 - along, 0.0)


def both(x: Tensor, weight: Tensor, at: TensorMap) -> tuple[Tensor, Tensor]:
    """Return the convolution (S, cout), and that of the signs."""
    return sparse_conv(x, weight, at), sparse_conv(signs(x), signs(weight), at)


@dataclass(frozen=True)
class Products:
    """Sums over sites of products of all shifts' outputs, (cout, 27, 27) each: what any mixture's error is made of."""

    yy: Tensor
    yd: Tensor
    dd: Tensor

    @classmethod
    def of(cls, x: Tensor, weight: Tensor, at: TensorPyramid, level: int) -> Products:
        """Take the sums on one cloud, whose pyramid has neighbourhoods of 5^3."""
        pairs = [both(x, weight, at.window(level, shift)) for shift in ALL]
        y, d = (torch.stack(side, dim=-1).permute(1, 0, 2) for side in zip(*pairs, strict=True))  # (cout, S, 27)
        return cls(*(torch.bmm(a.mT, b).double() for a, b in ((y, y), (y, d), (d, d))))

    def __add__(self, other: Products) -> Products:
        return Products(self.yy + other.yy, self.yd + other.yd, self.dd + other.dd)

    def errors(self) -> Tensor:
        """Return the error of each channel by each shift, (cout, 27)."""
        yy, yd, dd = (torch.diagonal(one, dim1=1, dim2=2) for one in (self.yy, self.yd, self.dd))
        return 1 - yd.square() / (yy * dd).clamp_min(1e-30)

    def best(self, groups: int) -> list[int]:
        """Return, by trying all, the shift of each group with the least mean error."""
        return self.errors().unflatten(0, (groups, -1)).mean(1).argmin(1).tolist()

    def searched(self, groups: int, steps: int = 300) -> list[int]:
        """Return the shifts that the search of BSC-Net ends at: softmax, the composite's error, entropy, argmax."""
        logits = torch.full((groups, len(ALL)), 0.01, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([logits], 0.05)
        for _ in range(steps):
            share = logits.softmax(1).repeat_interleave(len(self.yy) // groups, 0)  # (cout, 27)
            yy, yd, dd = (torch.einsum("ci,cij,cj->c", share, one, share) for one in (self.yy, self.yd, self.dd))
            entropy = -(share * share.log()).sum(1)
            loss = (1 - yd.square() / (yy * dd).clamp_min(1e-30) + CONFIDENCE * entropy).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return logits.argmax(1).tolist()

    def at(self, shifts: Sequence[int]) -> float:
        """Return the mean error over channels with one shift a group."""
        grouped = self.errors().unflatten(0, (len(shifts), -1))
        return float(torch.stack([group[:, shift] for group, shift in zip(grouped, shifts, strict=True)]).mean())


# --- a cube with some cells taken out ----------------------------------------------------------------------


def smooth(rng: np.random.Generator, side: int, channels: int, width: float) -> Array:
    """Return (side, side, side, channels) normal numbers, periodic, smoothed by a Gaussian; each channel N(0, 1)."""
    noise = rng.standard_normal((side, side, side, channels))
    k = np.square(np.fft.fftfreq(side) * 2 * np.pi)
    low = np.exp(-(k[:, None, None] + k[None, :, None] + k[None, None, :]) * width**2 / 2)
    field = np.fft.ifftn(np.fft.fftn(noise, axes=(0, 1, 2)) * low[..., None], axes=(0, 1, 2)).real
    return (field - field.mean((0, 1, 2))) / field.std((0, 1, 2))


def occupied(rng: np.random.Generator, pattern: str, share: float, side: int) -> NDArray[np.bool_]:
    """Return which cells of the cube are occupied: `share` of them, alone, in blobs or on level surfaces of a field."""
    if pattern == "scattered":
        height = rng.random((side, side, side))
    else:
        height = smooth(rng, side, 1, PATTERN)[..., 0]
        height = np.abs(height) if pattern == "surfaces" else height
    return height <= np.quantile(height, share)


def canonical(cells: Array) -> NDArray[np.int32]:
    """Return cells (S, 3) in canonical order."""
    return cells[np.argsort(morton(cells))].astype(np.int32)


def kernels(rng: np.random.Generator, inputs: int, outputs: int, common: float) -> Tensor:
    """Return normal weights (27, inputs, outputs) with a part that all offsets share; `common` is its weight."""
    own, shared = rng.standard_normal((27, inputs, outputs)), rng.standard_normal((1, inputs, outputs))
    return torch.from_numpy(common * shared + (1 - common**2) ** 0.5 * own).float()


def cube_errors(seed: int) -> list[dict[str, Any]]:
    """Return the errors of one cube of features, for all patterns, shares and kernels; of its inner cells alone."""
    rng = np.random.default_rng(seed)
    field = smooth(rng, SIDE, CHANNELS, FIELD)
    weights = {name: kernels(rng, CHANNELS, CHANNELS, common) for name, common in KERNELS.items()}
    rows = []
    for pattern in PATTERNS:
        for share in SHARES:
            cells = canonical(np.argwhere(occupied(rng, pattern, share, SIDE)))
            inner = torch.from_numpy(((cells > 0) & (cells < SIDE - 1)).all(1))
            x, at = torch.from_numpy(field[tuple(cells.T)]).float(), TensorMap.of(submanifold(cells))
            errors = {}
            for name, weight in weights.items():
                y, d = both(x, weight, at)
                errors[name] = float(relative_error(y[inner], d[inner]).mean())
            rows.append({"pattern": pattern, "share": share, "neighbours": at.pairs / len(cells), "errors": errors})
    return rows


def cubes() -> list[dict[str, Any]]:
    """Return the rows of `cube_errors` as means over SEEDS, and the spread between them."""
    rows = []
    for same in zip(*(cube_errors(seed) for seed in SEEDS), strict=True):
        errors = {name: [row["errors"][name] for row in same] for name in KERNELS}
        means = {name: round(float(np.mean(found)), 4) for name, found in errors.items()}
        spread = {name: round(float(np.std(found)), 4) for name, found in errors.items()}
        near = round(float(np.mean([row["neighbours"] for row in same])), 2)
        rows.append({**same[0], "neighbours": near, "errors": means, "spread": spread})
    return rows


# --- scenes ----------------------------------------------------------------------


@dataclass(frozen=True)
class Host(Design):
    """The real-valued twin with hardtanh where it has ReLU: all signs of what ReLU lets through would be +1."""

    @property
    def before(self) -> str | None:
        return "hardtanh"


@dataclass(frozen=True)
class Scene:
    """One cloud as a network sees it: features and labels of the sites, all maps, and the sites of each level."""

    x: Tensor
    labels: Tensor
    at: TensorPyramid
    sites: tuple[NDArray[np.int32], ...]

    @classmethod
    def of(cls, cloud: PointCloud, edge: float, classes: int) -> Scene:
        """Voxelise a cloud; a constant 1 stands before its features."""
        voxels = voxelize(cloud.xyz, edge)
        pyramid = build(voxels, LEVELS, 5)
        found = mean_features(voxels, cloud.features)
        x = np.concatenate([np.ones((len(found), 1), np.float32), found], axis=1)
        labels = torch.from_numpy(majority_labels(voxels, cloud.labels, classes))
        return cls(torch.from_numpy(x), labels, TensorPyramid.of(pyramid), tuple(one.sites for one in pyramid.levels))


def train(scenes: Sequence[Scene], classes: int) -> UNet:
    """Return a small U-Net trained for some steps, one scene each."""
    torch.manual_seed(0)
    design = Host(REAL, "norm-first", shortcuts=False)
    net = UNet(design, classes=classes, features=scenes[0].x.shape[1], width=16, blocks=1, levels=LEVELS)
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    for step in range(STEPS):
        scene = scenes[step % len(scenes)]
        loss = nn.functional.cross_entropy(net(scene.x, scene.at), scene.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@torch.no_grad()
def inputs_of(net: UNet, scene: Scene) -> tuple[float, list[tuple[SparseConv, Tensor]]]:
    """Return the share of right sites, and each submanifold convolution but the first layer with what it is fed."""
    seen: list[tuple[SparseConv, Tensor]] = []
    layers = [layer for layer in net.modules() if isinstance(layer, SparseConv) and layer.kind == "same"][1:]
    hooks = [layer.register_forward_pre_hook(lambda module, args: seen.append((module, args[0]))) for layer in layers]
    known = scene.labels >= 0
    right = float((net(scene.x, scene.at).argmax(1) == scene.labels)[known].float().mean())
    for hook in hooks:
        hook.remove()
    return right, seen


def filled(sites: NDArray[np.int32], x: Tensor) -> tuple[NDArray[np.int32], Tensor, Tensor]:
    """Fill the empty cells around sites (S, 3): return all cells, their features, and which of them are sites.

    An empty cell has the features of the nearest site, so around every site all 27 are there.
    """
    from scipy.spatial import cKDTree

    around = (sites[:, None, :] + np.array(ALL)).reshape(-1, 3)
    cells = canonical(np.unique(around, axis=0))
    distance, nearest = cKDTree(sites).query(cells)
    return cells, x[torch.from_numpy(nearest)], torch.from_numpy(distance == 0)


@torch.no_grad()
def dense_error(weight: Tensor, sites: NDArray[np.int32], x: Tensor) -> float:
    """Return the mean error over channels where all empty cells around the sites are filled."""
    cells, values, own = filled(sites, x)
    y, d = both(values, weight, TensorMap.of(submanifold(cells)))
    return float(relative_error(y[own], d[own]).mean())


def layer_products(net: UNet, scenes: Iterable[Scene]) -> list[Products]:
    """Return the products of each layer, summed over scenes."""
    total: list[Products] = []
    for scene in scenes:
        own = [
            Products.of(x, layer.kernel(layer.weight.detach()).contiguous(), scene.at, layer.level)
            for layer, x in inputs_of(net, scene)[1]
        ]
        total = [a + b for a, b in zip(total, own, strict=True)] if total else own
    return total


def scene_errors(training: Sequence[Scene], held_out: Sequence[Scene], classes: int) -> dict[str, Any]:
    """Return the mean error over layers, by way of convolving; shifts are chosen on training scenes."""
    net = train(training, classes)
    chosen, measured = layer_products(net, training[: len(held_out)]), layer_products(net, held_out)
    passes = [inputs_of(net, scene) for scene in held_out]
    centre = ALL.index((0, 0, 0))
    dense = [
        dense_error(layer.kernel(layer.weight.detach()).contiguous(), scene.sites[layer.level], x)
        for scene, (_, seen) in zip(held_out, passes, strict=True)
        for layer, x in seen
    ]
    ways = {
        "submanifold": [one.at([centre] * GROUPS) for one in measured],
        "best shift per group": [b.at(a.best(GROUPS)) for a, b in zip(chosen, measured, strict=True)],
        "searched": [b.at(a.searched(GROUPS)) for a, b in zip(chosen, measured, strict=True)],
    }
    sites = [scene.at.sites(0) for scene in held_out]
    return {
        "sites": int(np.mean(sites)),
        "neighbours": round(sum(scene.at.window(0).pairs for scene in held_out) / sum(sites), 2),
        "accuracy": round(float(np.mean([right for right, _ in passes])), 3),
        "errors": {"dense": round(float(np.mean(dense)), 4)}
        | {k: round(float(np.mean(v)), 4) for k, v in ways.items()},
        "layers": {way: [round(error, 4) for error in found] for way, found in ways.items()},
    }


def load(name: str, root: Path | None) -> tuple[Sequence[PointCloud], Sequence[PointCloud], int]:
    """Return training clouds, those held out, and the number of classes."""
    if name == "rooms":
        return rooms.load(None, "train", scenes=8).clouds, rooms.load(None, "val", scenes=2).clouds, len(rooms.CLASSES)
    splits = [ign_lidarhd.load(root, split).clouds for split in ("train", "val")]
    return splits[0], splits[1], len(ign_lidarhd.CLASSES)


def scenes(root: Path | None) -> list[dict[str, Any]]:
    """Return a row per data set and edge; IGN LiDAR HD only with its folder."""
    rows = []
    for name in ("rooms", "ign_lidarhd") if root else ("rooms",):
        training, held_out, classes = load(name, root)
        for edge in EDGES[name]:
            splits = [[Scene.of(cloud, edge, classes) for cloud in part] for part in (training, held_out)]
            rows.append({"data": name, "edge": edge, **scene_errors(splits[0], splits[1], classes)})
    return rows


# --- what comes out ----------------------------------------------------------------------


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw errors over occupancy, and those of the scenes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.8), constrained_layout=True)
    _draw_cubes(left, result["cubes"])
    _draw_scenes(right, result["scenes"])
    for axis in (left, right):
        axis.set_ylabel("quantisation error $|y - αd|^2 / |y|^2$")
        axis.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_cubes(axis: Any, cubes: list[dict[str, Any]]) -> None:
    styles, colours = dict(zip(PATTERNS, (":", "--", "-"), strict=True)), dict(zip(KERNELS, "krb", strict=True))
    for kernel, colour in colours.items():
        for pattern, style in styles.items():
            points = [(100 * row["share"], row["errors"][kernel]) for row in cubes if row["pattern"] == pattern]
            axis.plot(*zip(*points, strict=True), linestyle=style, marker=".", color=colour)
        axis.plot([], [], color=colour, label=f"{kernel} weights")
    for pattern, style in styles.items():
        axis.plot([], [], color="grey", linestyle=style, label=pattern)
    axis.set(xscale="log", xlabel="occupied cells, % (100: dense)", title="smooth features in a cube", ylim=(0, 0.72))
    axis.set_xticks([5, 10, 25, 50, 100], ["5", "10", "25", "50", "100"])
    axis.minorticks_off()
    axis.invert_xaxis()
    axis.legend(fontsize=9, loc="lower left", ncols=2)


def _draw_scenes(axis: Any, rows: list[dict[str, Any]]) -> None:
    for number, way in enumerate(rows[0]["errors"]):
        at = np.arange(len(rows)) + 0.2 * (number - 1.5)
        axis.bar(at, [row["errors"][way] for row in rows], 0.19, label=way)
    names = [f"{row['data']}\n{row['edge']} m\n{row['neighbours']:.0f} of 27" for row in rows]
    axis.set_xticks(range(len(names)), names, fontsize=9)
    most = max(max(row["errors"].values()) for row in rows)
    axis.set(title="layers of a trained U-Net, held-out scenes; edge, neighbours", ylim=(0, 1.25 * most))
    axis.legend(fontsize=9, loc="upper center", ncols=4, columnspacing=1.0)


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw them")
    parser.add_argument("--ign", type=Path, metavar="FOLDER", help="IGN LiDAR HD tiles, as popcloud.data reads them")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    result = {"machine": machine(), "cubes": cubes(), "scenes": scenes(arguments.ign)}
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    if arguments.picture:
        draw(result, arguments.picture)


if __name__ == "__main__":
    main()
