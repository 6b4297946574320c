"""Submanifold convolution of 3^3 by three libraries, behind one interface: ours, ocnn's and spconv's.

All take rows in our canonical order and weights (27, inputs, outputs) with offsets in lexicographic order, x slowest.
ocnn has just these orders where no coordinate is negative; spconv wants its weights the other way round.
"""

from __future__ import annotations

import importlib
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from popcloud.geometry.kernel_map import submanifold
from popcloud.learn.maps import TensorMap
from popcloud.learn.sparse import sparse_conv

Sites = NDArray[np.int32]


@dataclass(frozen=True)
class Conv:
    """A convolution x -> y, and its weights (27, inputs, outputs) if they can have a gradient."""

    forward: Callable[[Tensor], Tensor]
    weight: nn.Parameter | None


class Library(Protocol):
    """A library, with the neighbours of one cloud found.

    modes    names of the ways it can compute a convolution
    """

    modes: tuple[str, ...]

    def conv(self, weight: Tensor, mode: str) -> Conv:
        """Return the convolution with these weights (27, inputs, outputs)."""


class Popcloud:
    """This project's convolution: kernel maps in geometry, kernels in the engine."""

    modes = ("engine",)

    def __init__(self, sites: Sites):
        self.map = TensorMap.of(submanifold(sites))

    def conv(self, weight: Tensor, mode: str) -> Conv:
        own = nn.Parameter(weight.clone())
        return Conv(lambda x: sparse_conv(x, own, self.map), own)


class Ocnn:
    """Octree convolution on the nodes that are not empty, which is submanifold convolution."""

    modes = ("block_gemm", "explicit_gemm")

    def __init__(self, sites: Sites):
        library, octree = import_ocnn(), importlib.import_module("ocnn.octree")
        self.layer, self.depth = library.nn.OctreeConv, int(sites.max()).bit_length()
        middles = torch.from_numpy((sites + 0.5) / 2 ** (self.depth - 1) - 1).float()  # exact: a power of two
        self.octree = octree.Octree(self.depth)
        self.octree.build_octree(octree.Points(middles))
        self.octree.construct_all_neigh()
        self.octree.get_neigh(self.depth, "333", 1, nempty=True)
        own = torch.stack(self.octree.xyzb(self.depth, nempty=True)[:3], dim=1)
        assert torch.equal(own, torch.from_numpy(sites).to(own.dtype)), "ocnn has its sites in another order"

    def conv(self, weight: Tensor, mode: str) -> Conv:
        layer = self.layer(*weight.shape[1:], [3], nempty=True, method=mode)
        layer.weights = nn.Parameter(weight.clone())
        return Conv(lambda x: layer(x, self.octree, self.depth), layer.weights)


class Spconv:
    """Its CPU build, which has no gradient: gather, product and scatter by offset, as it calls it Native."""

    modes = ("native",)

    def __init__(self, sites: Sites):
        self.library = import_spconv()
        rows = torch.from_numpy(np.pad(sites, ((0, 0), (1, 0))))  # cloud 0 of the batch
        shape = [int(edge) + 1 for edge in sites.max(axis=0)]
        empty = self.library.SparseConvTensor(torch.zeros(len(sites), 1), rows, shape, 1)
        with torch.no_grad():
            self.seen = self._layer(1, 1)(empty)  # finds the pairs, and keeps them by the layers' common key

    def _layer(self, inputs: int, outputs: int) -> Any:
        how = {"bias": False, "indice_key": "same", "algo": self.library.ConvAlgo.Native}
        return self.library.SubMConv3d(inputs, outputs, 3, **how).eval()

    def conv(self, weight: Tensor, mode: str) -> Conv:
        layer = self._layer(*weight.shape[1:])
        with torch.no_grad():
            layer.weight.copy_(weight.unflatten(0, (3, 3, 3)).permute(4, 0, 1, 2, 3))
        return Conv(lambda x: layer(self.seen.replace_feature(x)).features, None)


def import_ocnn() -> Any:
    """Return the package. It asks for torchvision when it is imported, for a ResNet that nothing here uses."""
    name = "torchvision.models"
    if name not in sys.modules:
        stand_in = types.ModuleType(name)
        stand_in.resnet18 = None  # type: ignore[attr-defined]
        sys.modules.setdefault("torchvision", types.ModuleType("torchvision"))
        sys.modules[name] = stand_in
    return importlib.import_module("ocnn")


def import_spconv() -> Any:
    """Return the package's half for PyTorch."""
    return importlib.import_module("spconv.pytorch")


LIBRARIES: dict[str, type] = {"popcloud": Popcloud, "ocnn": Ocnn, "spconv": Spconv}


def missing(name: str) -> str | None:
    """Return why a library can't be measured here, None if it can."""
    try:
        {"ocnn": import_ocnn, "spconv": import_spconv}.get(name, lambda: None)()
    except ImportError as error:
        return f"{name} can't be imported ({error}); see benchmarks/requirements-peers.txt"
    return None


def find_neighbours(name: str, sites: Sites, times: int = 3) -> tuple[Library, float]:
    """Return a library that knows the cloud's neighbours, and the median milliseconds that this took."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        made = LIBRARIES[name](sites)
        spent.append(1e3 * (time.perf_counter() - began))
    return made, float(np.median(spent))
