"""A float program as plain PyTorch, batch norm folded: the peer's best mode, for any network on clouds or points.

Searches are PyTorch's own operations (cdist, topk, a loop for farthest points), as PyTorch code without an extension
has them; or the engine's, to compare the networks without them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from popcloud.geometry import fast
from popcloud.packed.program import Activation, Op, Program, Rows, Sampling, Step

SEARCHES = frozenset((Op.FARTHEST_POINTS, Op.NEAREST, Op.NEAREST_FEATURES, Op.BALL))


class TorchFloat(nn.Module):
    """Runs the steps of a float program with PyTorch; own_searches: with PyTorch's searches, else the engine's."""

    def __init__(self, program: Program, *, own_searches: bool = True):
        super().__init__()
        self.program, self.own_searches = program, own_searches
        for index, step in enumerate(program.steps):
            for name, blob in step.blobs.items():
                value = np.ascontiguousarray(blob.T if step.op is Op.LINEAR and name == "weight" else blob)
                self.register_buffer(f"{name}{index}", torch.from_numpy(value))

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3) -> (1, classes)."""
        values: dict[int, Tensor] = {0: x}
        for index, step in enumerate(self.program.steps):
            blobs = {name: getattr(self, f"{name}{index}") for name in step.blobs}
            inputs = [values[i] for i in step.inputs]
            search = step.op in SEARCHES and not self.own_searches
            values[step.output] = (BY_ENGINE if search else OPS)[step.op](self, step, blobs, *inputs)
        return values[self.program.steps[-1].output]

    def each(self, index: int) -> int:
        """Return how many rows a point has in a value."""
        return self.program.values[index].each

    def wanted(self, step: Step, points: int) -> int:
        """Return how many points the level of a step's output has, from those of the level below."""
        assert isinstance(self.program.plan, Sampling)
        level = self.program.values[step.output].level
        return Sampling((self.program.plan.ratios[level - 1],)).count(points, 1)


Blobs = dict[str, Tensor]


def _activated(y: Tensor, step: Step) -> Tensor:
    return {Activation.NONE: lambda x: x, Activation.RELU: torch.relu_, Activation.SIGMOID: torch.sigmoid_}[
        step.activation
    ](y)


def _spread(net: TorchFloat, step: Step, x: Tensor, at: int) -> Tensor:
    """Return input number `at` with a row per row of the output."""
    out, value = net.program.values[step.output], net.program.values[step.inputs[at]]
    if value.rows is Rows.CLOUD or value.each == out.each:
        return x
    return x.repeat_interleave(out.each, dim=0)


def _linear(net: TorchFloat, step: Step, blobs: Blobs, x: Tensor) -> Tensor:
    return _activated(nn.functional.linear(x, blobs["weight"], blobs["bias"]), step)


def _affine(net: TorchFloat, step: Step, blobs: Blobs, x: Tensor) -> Tensor:
    return _activated(torch.addcmul(blobs["bias"], x, blobs["scale"]), step)


def _transform(net: TorchFloat, step: Step, blobs: Blobs, x: Tensor, m: Tensor) -> Tensor:
    return x @ (m.view(x.shape[1], -1) + torch.eye(x.shape[1]))


def _pool(net: TorchFloat, step: Step, blobs: Blobs, x: Tensor) -> Tensor:
    cloud = net.program.values[step.output].rows is Rows.CLOUD
    groups = x.view(1 if cloud else len(x) // net.each(step.inputs[0]), -1, x.shape[1])
    return groups.amax(1) if step.op is Op.POOL_MAX else groups.mean(1)


def _farthest(net: TorchFloat, step: Step, blobs: Blobs, x: Tensor) -> Tensor:
    chosen = torch.zeros(net.wanted(step, len(x)), dtype=torch.int64)
    distance = torch.full((len(x),), torch.inf)
    for i in range(1, len(chosen)):
        distance = torch.minimum(distance, (x - x[chosen[i - 1]]).square_().sum(1))
        chosen[i] = distance.argmax()
    return chosen[:, None]


def _nearest(net: TorchFloat, step: Step, blobs: Blobs, queries: Tensor, points: Tensor) -> Tensor:
    k, dilation = net.program.values[step.output].channels, int(blobs["dilation"][0])
    return torch.cdist(queries, points).topk((k - 1) * dilation + 1, largest=False).indices[:, ::dilation]


def _ball(net: TorchFloat, step: Step, blobs: Blobs, queries: Tensor, points: Tensor) -> Tensor:
    near = torch.cdist(queries, points) <= blobs["radius"]
    rows = torch.where(near, torch.arange(len(points)), len(points))
    found = rows.topk(min(net.program.values[step.output].channels, len(points)), largest=False).values
    return torch.where(found < len(points), found, found[:, :1])


def _gather(net: TorchFloat, step: Step, blobs: Blobs, x: Tensor, index: Tensor) -> Tensor:
    return x[index.reshape(-1)]


def _subtract(net: TorchFloat, step: Step, blobs: Blobs, x: Tensor, y: Tensor) -> Tensor:
    return x - _spread(net, step, y, 1)


def _multiply(net: TorchFloat, step: Step, blobs: Blobs, x: Tensor, y: Tensor) -> Tensor:
    return x * _spread(net, step, y, 1)


def _reshape(net: TorchFloat, step: Step, blobs: Blobs, x: Tensor) -> Tensor:
    return x.reshape(-1, net.program.values[step.output].channels)


def _product(net: TorchFloat, step: Step, blobs: Blobs, x: Tensor, m: Tensor) -> Tensor:
    k = net.each(step.inputs[0])
    return torch.bmm(x.view(-1, k, x.shape[1]).mT, m.view(-1, k, m.shape[1])).flatten(1)


def _density(net: TorchFloat, step: Step, blobs: Blobs, x: Tensor) -> Tensor:
    share = 1 - (torch.cdist(x, x) / blobs["bandwidth"]).square_()
    return len(x) / share.clamp_min_(0).sum(1, keepdim=True)


def _slice(net: TorchFloat, step: Step, blobs: Blobs, x: Tensor) -> Tensor:
    first, count = blobs["columns"].tolist()
    return x[:, first : first + count]


def _concat(net: TorchFloat, step: Step, blobs: Blobs, *parts: Tensor) -> Tensor:
    placed = [_spread(net, step, part, at) for at, part in enumerate(parts)]
    rows = max(len(part) for part in placed)
    return torch.cat([part.expand(rows, -1) for part in placed], dim=1)


def _groups(net: TorchFloat, step: Step, blobs: Blobs, x: Tensor) -> Tensor:
    groups = int(blobs["groups"][0])
    weight = blobs["weight"].view(len(blobs["weight"]), groups, -1).transpose(0, 1)
    y = torch.bmm(x.view(len(x), groups, -1).transpose(0, 1), weight).transpose(0, 1).flatten(1)
    return _activated(y + blobs["bias"], step)


def _by_engine(net: TorchFloat, step: Step, blobs: Blobs, *clouds: Tensor) -> Tensor:
    arrays, k = [cloud.contiguous().numpy() for cloud in clouds], net.program.values[step.output].channels
    if step.op is Op.FARTHEST_POINTS:
        found = fast.farthest_points(arrays[0], net.wanted(step, len(arrays[0])))[:, None]
    elif step.op is Op.BALL:
        found = fast.ball(*arrays, float(blobs["radius"][0]), k)
    else:
        search = fast.nearest if step.op is Op.NEAREST else fast.nearest_features
        found = search(*arrays, k, int(blobs["dilation"][0]))
    return torch.from_numpy(found.astype(np.int64))


OPS: dict[Op, Callable[..., Any]] = {
    Op.LINEAR: _linear,
    Op.AFFINE: _affine,
    Op.TRANSFORM: _transform,
    Op.POOL_MAX: _pool,
    Op.POOL_MEAN: _pool,
    Op.FARTHEST_POINTS: _farthest,
    Op.NEAREST: _nearest,
    Op.NEAREST_FEATURES: _nearest,
    Op.BALL: _ball,
    Op.GATHER: _gather,
    Op.SUBTRACT: _subtract,
    Op.MULTIPLY: _multiply,
    Op.RESHAPE: _reshape,
    Op.PRODUCT: _product,
    Op.DENSITY: _density,
    Op.SLICE: _slice,
    Op.CONCAT: _concat,
    Op.LINEAR_GROUPS: _groups,
}
BY_ENGINE = dict.fromkeys(SEARCHES, _by_engine)
