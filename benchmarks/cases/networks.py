"""The networks that cases measure: binary ones with sensible statistics, and their float twins for the peers.

Both exact shortcuts of the engine (equal rows once, channels decided early) depend on what the activations are, so
random weights would flatter or slight them: a network is trained on made-up shapes first, for as many steps as batch
norm's running statistics take to settle (0.9^40 = 1.5 % of their start is left).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from popcloud.data import DATASETS
from popcloud.learn.backbones import build
from popcloud.learn.export import Exported, export
from popcloud.learn.layers import Norm, PooledLayer, initialise
from popcloud.packed.program import Activation, Op, Program, Step

POINTS, CLASSES, STEPS, BATCH = 1024, 40, 40, 16


@dataclass(frozen=True)
class Network:
    """A network in eval mode, and its program."""

    model: nn.Module
    exported: Exported


def clouds(count: int) -> Tensor:
    """Return (count, POINTS, 3) clouds of made-up shapes."""
    return torch.from_numpy(DATASETS["shapes"](None, "train", points=POINTS, seed=1, clouds=count).xyz)


def binary_pointnet(backbone: str) -> Network:
    """Return BiPointNet (LSR, EMA-max) with 40 classes after some steps on shapes."""
    return trained(backbone, "lsr", "ema-max")


def float_pointnet(backbone: str) -> Network:
    """Return the real-valued twin."""
    return trained(backbone, "real", "max")


def trained(backbone: str, binarizer: str, pool: str, steps: int = STEPS) -> Network:
    """Return a network with 40 classes after some steps on shapes, and its program.

    Running statistics are those of the last batch where there are fewer steps than they take to settle.
    """
    torch.manual_seed(0)
    data = DATASETS["shapes"](None, "train", points=POINTS, seed=0, clouds=steps * BATCH)
    model = build(backbone, classes=CLASSES, binarizer=binarizer, pool=pool, points=POINTS)
    x, y = torch.from_numpy(data.xyz), torch.from_numpy(data.labels)
    initialise(model, x[:BATCH])
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for at in range(0, len(x), BATCH):
        if steps < STEPS and at + BATCH == len(x):
            for norm in (module for module in model.modules() if isinstance(module, Norm)):
                norm.momentum = 1.0
        logits, penalty = model.loss_terms(x[at : at + BATCH])
        optimizer.zero_grad()
        (nn.functional.cross_entropy(logits, y[at : at + BATCH]) + 1e-3 * penalty).backward()
        optimizer.step()
    names = [f"class {i}" for i in range(CLASSES)]
    return Network(model.eval(), export(model, points=POINTS, normalize="unit_sphere", classes=names))


class FoldedFloat(nn.Module):
    """A float program as plain PyTorch: batch norm folded into the linear layers, which is the peers' best mode."""

    def __init__(self, program: Program):
        super().__init__()
        self.steps = program.steps
        for index, step in enumerate(self.steps):
            for name, blob in step.blobs.items():
                value = np.ascontiguousarray(blob.T if name == "weight" else blob)
                self.register_buffer(f"{name}{index}", torch.from_numpy(value))

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3) -> (1, classes)."""
        values = {0: x}
        for index, step in enumerate(self.steps):
            values[step.output] = self._apply(index, step, [values[i] for i in step.inputs])
        return values[self.steps[-1].output]

    def _apply(self, index: int, step: Step, inputs: list[Tensor]) -> Tensor:
        x = inputs[0]
        if step.op is Op.POOL_MAX:
            return x.amax(0, keepdim=True)
        if step.op is Op.TRANSFORM:
            width = x.shape[1]
            return x @ (inputs[1].view(width, width) + torch.eye(width))
        assert step.op is Op.LINEAR, step.op
        y = nn.functional.linear(x, getattr(self, f"weight{index}"), getattr(self, f"bias{index}"))
        return torch.relu(y) if step.activation is Activation.RELU else y


class Unfolded(nn.Module):
    """A real-valued PointNet as PyTorch code is usually written and evaluated: linear, BatchNorm1d, ReLU, max."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def _layer(self, layer: nn.Module, x: Tensor) -> Tensor:
        y = nn.functional.linear(x, layer.weight, layer.bias)
        y = y if layer.norm is None else layer.norm(y)
        return y.amax(0, keepdim=True) if isinstance(layer, PooledLayer) else layer.activation(y)

    def _matrix(self, net: nn.Module, x: Tensor, width: int) -> Tensor:
        for name in ("conv1", "conv2", "conv3", "fc1", "fc2", "fc3"):
            x = self._layer(getattr(net, name), x)
        return x.view(width, width) + torch.eye(width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3) -> (1, classes)."""
        net = self.model
        if net.input_net is not None:
            x = x @ self._matrix(net.input_net, x, 3)
        x = self._layer(net.conv1, x)
        if net.feature_net is not None:
            x = x @ self._matrix(net.feature_net, x, 64)
        for name in ("conv2", "conv3", "fc1", "fc2", "classifier"):
            x = self._layer(getattr(net, name), x)
        return x
