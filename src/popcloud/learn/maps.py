"""Kernel maps and pyramids as tensors: who is whose neighbour, on the device where a network computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from popcloud.errors import RecipeError
from popcloud.geometry.kernel_map import KernelMap, neighbour_rows
from popcloud.geometry.pyramid import Pyramid

Shift = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class TensorMap:
    """A geometry KernelMap as tensors, in both directions: y[outputs] += x[inputs] W[k] over the pairs of offset k.

    inputs, outputs  (P,) int32; within an offset `outputs` ascend strictly
    ranges           (K, 2) int64, always on the CPU: the pairs of offset k are rows ranges[k, 0]:ranges[k, 1]
    back             inputs, outputs and ranges of the same pairs the other way round, again with ascending outputs
    """

    inputs: Tensor
    outputs: Tensor
    ranges: Tensor
    input_sites: int
    output_sites: int
    back: tuple[Tensor, Tensor, Tensor]

    @staticmethod
    def of(kernel_map: KernelMap) -> TensorMap:
        """Return a kernel map of geometry as tensors on the CPU; memory is shared, not copied."""
        inputs, outputs, ranges = _tensors(kernel_map)
        return TensorMap(
            inputs, outputs, ranges, kernel_map.input_sites, kernel_map.output_sites, _tensors(kernel_map.transposed())
        )

    @property
    def transposed(self) -> TensorMap:
        """Return the same pairs with inputs and outputs swapped, under the same offset index k."""
        forth = (self.inputs, self.outputs, self.ranges)
        inputs, outputs, ranges = self.back
        return TensorMap(inputs, outputs, ranges, self.output_sites, self.input_sites, forth)

    @property
    def pairs(self) -> int:
        """Return how many pairs the map's offsets have together."""
        return int((self.ranges[:, 1] - self.ranges[:, 0]).sum())

    def picked(self, rows: Sequence[int] | NDArray[np.int64]) -> TensorMap:
        """Return the map of the offsets at `rows` alone, in that order; pairs are shared, not copied."""
        kept = torch.as_tensor(rows, dtype=torch.int64)
        inputs, outputs, ranges = self.back
        return replace(self, ranges=self.ranges[kept], back=(inputs, outputs, ranges[kept]))

    def to(self, device: torch.device | str) -> TensorMap:
        """Return the map on a device; the ranges, which steer loops, stay on the CPU."""
        inputs, outputs, ranges = self.back
        back = (inputs.to(device), outputs.to(device), ranges)
        return replace(self, inputs=self.inputs.to(device), outputs=self.outputs.to(device), back=back)


@dataclass(frozen=True, eq=False)
class TensorPyramid:
    """All maps of a network on one batch of clouds: what every sparse layer is called with.

    same      per level the submanifold map, of 3^3 or of 5^3 offsets
    down      per level but the last the strided map from it to the next coarser level
    parents   per level but the last (S,) int64: the row of each site's parent; they ascend
    children  per level but the last (S of the coarser level,) int64: how many active children each site has
    """

    same: tuple[TensorMap, ...]
    down: tuple[TensorMap, ...]
    parents: tuple[Tensor, ...]
    children: tuple[Tensor, ...]

    @staticmethod
    def of(pyramid: Pyramid) -> TensorPyramid:
        """Return a pyramid of geometry, of one cloud or a stacked batch, as tensors on the CPU."""
        same = tuple(TensorMap.of(level.same) for level in pyramid.levels)
        down = tuple(TensorMap.of(kernel_map) for kernel_map in pyramid.down)
        parents = tuple(_parents(one) for one in down)
        counts = [torch.bincount(rows, minlength=one.output_sites) for rows, one in zip(parents, down, strict=True)]
        return TensorPyramid(same, down, parents, tuple(counts))

    def to(self, device: torch.device | str) -> TensorPyramid:
        """Return the pyramid on a device."""
        same, down = (tuple(one.to(device) for one in maps) for maps in (self.same, self.down))
        parents, children = (tuple(one.to(device) for one in rows) for rows in (self.parents, self.children))
        return TensorPyramid(same, down, parents, children)

    def sites(self, level: int) -> int:
        """Return how many active sites a level has."""
        return self.same[level].output_sites

    def neighbours(self, level: int) -> TensorMap:
        """Return the whole submanifold map of a level. Raises RecipeError where the pyramid is too low."""
        if level >= len(self.same):
            raise RecipeError(
                f"the network has a level {level}, the pyramid {len(self.same)} levels; build it with the network's own"
            )
        return self.same[level]

    def window(self, level: int, shift: Shift = (0, 0, 0)) -> TensorMap:
        """Return the 3^3 neighbourhood around site + shift. Raises RecipeError where the pyramid does not reach it."""
        whole = self.neighbours(level)
        size = 3 if len(whole.ranges) == 27 else 5
        if size == 3 and shift == (0, 0, 0):
            return whole
        if size == 3:
            raise RecipeError(
                "shifted convolutions need the 5^3 neighbourhood, found the pyramid of 3^3; build it with size=5"
            )
        return whole.picked(neighbour_rows(shift))


def _tensors(kernel_map: KernelMap) -> tuple[Tensor, Tensor, Tensor]:
    inputs, outputs, ranges = (
        np.ascontiguousarray(a) for a in (kernel_map.inputs, kernel_map.outputs, kernel_map.ranges)
    )
    return torch.from_numpy(inputs), torch.from_numpy(outputs), torch.from_numpy(ranges)


def _parents(down: TensorMap) -> Tensor:
    rows = torch.empty(down.input_sites, dtype=torch.int64)
    rows[down.inputs.long()] = down.outputs.long()  # each fine site is in exactly one pair
    return rows
