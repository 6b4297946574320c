"""The scene networks that cases measure: both thresholds and statistics as after a training, and their programs.

How fast a network is does not depend on its weights, but whether its answers can be compared does: with statistics that
are not its own, its signs would all be alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cases.sparse import room
from popcloud.cloud import PointCloud
from popcloud.geometry.plan import GridPlan
from popcloud.learn.backbones import build_scene
from popcloud.learn.export import Exported, export
from popcloud.learn.layers import Norm
from popcloud.learn.maps import TensorPyramid
from popcloud.packed.program import Grid
from popcloud.runtime import sites

COLOURS = ("red", "green", "blue")
SHAPES = {  # network: classes, and what it reads of a point; as in the paper's settings (ScanNet, NYU Depth v2)
    "unet_s": (20, COLOURS),
    "unet_h": (20, COLOURS),
    "fcn_s": (40, ("one", *COLOURS)),
    "fcn_h": (40, ("one", *COLOURS)),
}
COARSE = 0.08  # edge of the sites on which statistics settle, metres


@dataclass(frozen=True)
class SceneNetwork:
    """A network in eval mode, and its program."""

    model: Any
    exported: Exported


def network(name: str, variant: str, edge: float, features: Sequence[str] = ()) -> SceneNetwork:
    """Return a network with random weights, shifts and thresholds, and with the batch norm statistics of a room.

    features  what it reads of a point, if not what SHAPES has
    """
    torch.manual_seed(0)
    classes, own = SHAPES[name]
    features = features or own
    model: Any = build_scene(name, classes=classes, features=len(features), variant=variant)
    with torch.no_grad():
        _disturb(model)
        _settle(model, len(features))
    plan, names = Grid(edge, model.levels, model.size), [f"class {i}" for i in range(classes)]
    return SceneNetwork(model, export(model, classes=names, plan=plan, features=features))


def _disturb(model: nn.Module) -> None:
    """Move what a fresh network has at zero: thresholds, biases, slopes, and the shifts that a search would find."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter += 0.2 * torch.randn_like(parameter)
    for name, buffer in model.named_buffers():
        if name.endswith("shifts"):
            buffer.copy_(torch.randint(-1, 2, buffer.shape))


def _settle(model: Any, features: int) -> None:
    """Take every batch norm's statistics from one room."""
    for norm in (module for module in model.modules() if isinstance(module, Norm)):
        norm.momentum = 1.0
    at = TensorPyramid.of(GridPlan(COARSE, model.levels, model.size).build(room(COARSE)))
    model.train()(torch.rand(at.sites(0), features), at)


def coloured(xyz: NDArray[np.float32], features: int = len(COLOURS)) -> PointCloud:
    """Return points with so many features each, of 0 to 1."""
    return PointCloud(xyz, np.random.default_rng(1).random((len(xyz), features), dtype=np.float32))


def one_per_site(cloud: PointCloud, point_to_site: NDArray[np.int32]) -> PointCloud:
    """Return the first point of every site."""
    _, first = np.unique(point_to_site, return_index=True)
    assert cloud.features is not None
    return PointCloud(cloud.xyz[first], cloud.features[first])


@torch.inference_mode()
def torch_labels(net: SceneNetwork, cloud: PointCloud) -> NDArray[np.int64]:
    """Return the labels of a cloud's points by PyTorch: our geometry, then the layers in eval mode."""
    x, at = sites.ready(net.exported.program, cloud)
    logits: Tensor = net.model(torch.from_numpy(x), TensorPyramid.of(at))
    labels: NDArray[np.int64] = logits.argmax(dim=1).numpy()[at.point_to_site]
    return labels
