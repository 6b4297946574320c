"""Float networks on grids by spconv's CPU build: a real-valued program of ours, its convolutions by spconv's layers.

What spconv does best: the pairs of each level found once and shared by all layers of the level (`indice_key`); batch
norms folded into the convolutions, where only one reads them; bias and ReLU in place. Its CPU build has one algorithm,
ConvAlgo.Native, and no bias of its own. Rows at level 0 are ours; those of other levels in whatever order it makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cases.sparse_peers import import_spconv
from popcloud.packed.program import Activation, Op, Program, Step

KINDS = {0: "SubMConv3d", 1: "SparseConv3d", -1: "SparseInverseConv3d"}  # by how many levels a convolution leads up


class SpconvNetwork(nn.Module):
    """A U-Net's float program: rows (sites, features) -> (sites, classes)."""

    def __init__(self, program: Program):
        super().__init__()
        self.library = import_spconv()
        self.program = program
        assert program.plan is not None
        self.grain = 2 ** (program.plan.levels - 1)
        self.layers = nn.ModuleList(self._layer(step) for step in program.steps)
        self.constants = [_constants(step) for step in program.steps]
        last = {value: index for index, step in enumerate(program.steps) for value in step.inputs}
        self.done = [[value for value, at in last.items() if at == index] for index in range(len(program.steps))]

    def _layer(self, step: Step) -> nn.Module:
        if step.op is not Op.SPARSE_CONV:
            return nn.Identity()
        read, written = (self.program.values[i] for i in (step.inputs[0], step.output))
        up = written.level - read.level
        how: dict[str, Any] = {"bias": False, "algo": self.library.ConvAlgo.Native}
        how["indice_key"] = f"{'down' if up else 'same'} {min(read.level, written.level)}"
        kernel = (2, 2) if up == 1 else (2,) if up == -1 else (3,)  # and stride
        layer: nn.Module = getattr(self.library, KINDS[up])(read.channels, written.channels, *kernel, **how)
        weight = torch.tensor(step.blobs["weight"]).view(*[2 if up else 3] * 3, read.channels, written.channels)
        scale = torch.tensor(step.blobs["scale"])
        with torch.no_grad():
            layer.weight.copy_((weight * scale[0] if len(scale) == 1 else weight).permute(4, 0, 1, 2, 3))
        return layer.eval()

    def start(self, sites: NDArray[np.int32], x: Tensor, kept: Mapping[str, Any] | None = None) -> Any:
        """Return what `forward` takes: x (S, features) on sites (S, 3), no coordinate negative; perhaps kept pairs."""
        shape = [(int(last) // self.grain + 1) * self.grain for last in sites.max(axis=0)]  # no site at the rim is lost
        rows = torch.from_numpy(np.pad(sites, ((0, 0), (1, 0))))  # cloud 0 of the batch
        return self.library.SparseConvTensor(x, rows, shape, 1, indice_dict=dict(kept or {}))

    def kept_pairs(self, answer: Any) -> dict[str, Any]:
        """Return the pairs that a run has found and another may use: spconv lets only submanifold layers use them."""
        return {key: pairs for key, pairs in answer.indice_dict.items() if pairs.is_subm}

    def forward(self, x: Any) -> Any:
        """Return the logits (sites, classes) as the features of a SparseConvTensor."""
        found = {0: x}
        for index, step in enumerate(self.program.steps):
            outputs = self._outputs(index, step, [found[i] for i in step.inputs])
            found.update(zip(step.outputs, outputs, strict=True))
            for value in self.done[index]:
                del found[value]
        return found[self.program.steps[-1].output]

    def _outputs(self, index: int, step: Step, read: list[Any]) -> list[Any]:
        if step.op is Op.SPARSE_CONV:
            return self._conv(step, self.layers[index](read[0]), *self.constants[index])
        if step.op is Op.CONCAT:  # the last one has been at all levels, and knows all pairs
            return [read[-1].replace_feature(torch.cat([one.features for one in read], dim=1))]
        assert step.op is Op.LINEAR, step.op
        return [read[0].replace_feature(nn.functional.linear(read[0].features, *self.constants[index]))]

    def _conv(self, step: Step, y: Any, scale: Tensor, bias: Tensor) -> list[Any]:
        if len(scale) == 1:  # in the weights
            results = [y.features.add_(bias[0])]
        else:
            results = [torch.addcmul(b, y.features, a) for a, b in zip(scale, bias, strict=True)]
        if step.activation is Activation.RELU:
            results = [result.relu_() for result in results]
        return [y.replace_feature(result) for result in results]


def _constants(step: Step) -> list[Tensor]:
    """Return scale and bias of a convolution, weight and bias of a linear layer."""
    if step.op is Op.LINEAR:
        return [torch.tensor(step.blobs["weight"].T.copy()), torch.tensor(step.blobs["bias"])]
    return [torch.tensor(step.blobs[name]) for name in ("scale", "bias") if name in step.blobs]
