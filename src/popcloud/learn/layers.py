"""The layers that networks are made of, each real-valued or binary by its binarizer's name, and what all share.

A layer is `linear -> batch norm -> activation`; a pooled layer is `linear -> batch norm -> pool over points`.
In eval mode a binary layer computes with the exact integer sum of signs d and `tail(d)`, a product and a sum with
one rounding: a function of d and the channel alone. That is what export folds into one threshold per channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from popcloud.errors import RecipeError, unknown
from popcloud.learn import ordered
from popcloud.learn.binarizers import signs
from popcloud.learn.lean import SignLinear
from popcloud.learn.norms import Norm, RPReLU, make_activation, normed
from popcloud.learn.pooled import LinearNormMax, largest_products, linear_norm_mean
from popcloud.learn.pooled_gated import linear_norm_gated
from popcloud.learn.weighted import Weighted, activation_of, make_binarizer

__all__ = [
    "POOLS",
    "Layer",
    "Norm",
    "PooledLayer",
    "RPReLU",
    "Transform",
    "Weighted",
    "activation_of",
    "after_step",
    "binary_layers",
    "ema_delta",
    "initialise",
    "make_activation",
    "make_binarizer",
    "normed",
    "positive_shares",
    "set_progress",
    "weight_signs",
]

POOLS = ("max", "mean", "ema-max", "ema-mean")


def ema_delta(points: int) -> float:
    """Return delta(n) = -Phi^-1(2^(-1/n)): with it the largest of n standard normals is positive half of the time.

    BiPointNet 2021, eq. 7 (entropy-maximizing aggregation for max): (Phi(-delta))^n = 1/2.
    """
    return -float(torch.special.ndtri(torch.tensor(2.0 ** (-1.0 / points), dtype=torch.float64)))


class Layer(Weighted):
    """linear -> batch norm -> activation on (..., inputs) -> (..., outputs).

    binarizer   a name in BINARIZERS, or "real"
    activation  "none", "relu", "hardtanh", "prelu" or "rprelu"
    norm        without it the layer has a bias, if its binarizer wants one and `bias` allows it
    ordered     a real-valued layer's eval mode has the bits of the program's LINEAR, where no gradient is wanted
    halved      of an ordered one: eval mode rounds the weights, batch norm folded in, to float16, as the file keeps
                them; training goes on in float32
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        binarizer: str,
        activation: str = "none",
        norm: bool = True,
        bias: bool = True,
        ordered: bool = False,
        halved: bool = False,
    ):
        super().__init__(inputs, outputs, binarizer=binarizer, norm=norm, bias=bias)
        self.activation = make_activation(activation, outputs)
        self.ordered = ordered and self.binarizer is None
        self.halved = halved and self.ordered

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        if not self.training:
            if self.ordered and not torch.is_grad_enabled():
                return self.activation(ordered.linear(x, *self.folded_weight()))
            return self.tail(self.products(x))
        seen, weight = self.operands(x)
        linear = SignLinear.apply if self.bare else F.linear
        z = linear(seen.flatten(0, -2), weight, self.constant())  # flat: what works in place can't have a view
        if self.gates:
            z = (z.view(*x.shape[:-1], -1) * self.binarizer.gate(x)).flatten(0, -2)
        z = normed(z, self.norm, self.activation)
        return z.unflatten(0, x.shape[:-1]) if x.ndim > 2 else z

    def folded_weight(self) -> tuple[Tensor, Tensor]:
        """Return (weight, bias) of a real-valued layer with its batch norm folded in, rounded if it is `halved`."""
        weight, bias = super().folded_weight()
        return ordered.halved(weight) if self.halved else weight, bias

    def products(self, x: Tensor) -> Tensor:
        """Return d, what `tail` takes in eval mode: the sums of signs, times the row's or cloud's factor, if any."""
        d = self.sums(x)
        if self.binarizer is not None and self.binarizer.scales_rows:
            d = d * self.binarizer.row_scale(x)
        return d * self.binarizer.gate(x) if self.gates else d

    def tail(self, d: Tensor) -> Tensor:
        """Return the output for the sum d (..., outputs), in eval mode."""
        return self.activation(ordered.fma(d, *self.folded()))


class PooledLayer(Weighted):
    """linear -> batch norm -> pool over points: (B, n, inputs) -> (B, outputs), without (B, n, outputs) in memory.

    pool    "max", "mean", or their entropy-maximizing forms "ema-max", "ema-mean" (BiPointNet 2021, section 3.2):
            ema-max adds delta(points), ema-mean is the plain mean of the batch norm's output, with no activation
            before it in either
    points  how many points the pool expects; sets delta
    """

    def __init__(self, inputs: int, outputs: int, *, binarizer: str, pool: str, points: int):
        super().__init__(inputs, outputs, binarizer=binarizer, norm=True)
        if pool not in POOLS:
            raise RecipeError(unknown("pool", pool, POOLS))
        self.pool, self.points = pool, points
        self.takes_mean = pool.endswith("mean")
        self.delta = ema_delta(points) if pool == "ema-max" else 0.0

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, inputs) -> (B, outputs)."""
        return self.pooled(x, self.binarizer.gate(x)[:, 0] if self.gates else None)

    def pooled(self, x: Tensor, gates: Tensor | None) -> Tensor:
        """Return the pools of groups of rows x (G, n, inputs), (G, outputs); `gates` (G, outputs) if there are some."""
        if not self.training:
            d = self.products(x)
            return self.tail(d if gates is None else d * gates)
        seen, weight = self.operands(x)
        norm = self.norm
        if gates is not None and x.shape[1] <= self.inputs:  # small groups: their rows are less than a Gram matrix
            y = norm((F.linear(seen, weight) * gates[:, None]).flatten(0, 1)).unflatten(0, x.shape[:2])
            return y.mean(1) if self.takes_mean else y.max(1).values + self.delta
        if gates is not None:
            constants = norm.weight, norm.bias, norm.eps
            bare = self.bare and self.weights_binary
            pooled, mean, var = linear_norm_gated(seen, weight, gates, constants, self.takes_mean, bare)
        elif self.takes_mean:
            pooled, mean, var = linear_norm_mean(seen, weight, norm.weight, norm.bias, norm.eps)
        else:
            bare = self.bare and self.weights_binary
            pooled, mean, var = LinearNormMax.apply(seen, weight, norm.weight, norm.bias, norm.eps, bare)
        norm.observe(mean, var, x.shape[0] * x.shape[1])
        return pooled + self.delta if self.delta else pooled

    def products(self, x: Tensor) -> Tensor:
        """Return d (B, outputs), what `tail` takes in eval mode: the mean sum, or the one with the largest output.

        Gates, which are positive, come later. A maximum has no gradient in eval mode.
        """
        up = signs(self.folded()[0])
        if self.binarizer is not None and self.binarizer.bases > 1:
            if not self.takes_mean and x.shape[1] > 64:  # of small groups all rows are no more work
                return self._largest_sums(x, up)
            rows = self.sums(x)
            return ordered.mean(rows) if self.takes_mean else (rows * up).amax(1) * up
        seen, weight = self.exact_operands(x)
        bare = self.binarizer is not None and self.weights_binary
        if self.binarizer is not None and self.binarizer.scales_rows:
            seen, bare = seen * self.binarizer.row_scale(x), False
        if self.takes_mean:
            total = F.linear(seen.sum(1, dtype=torch.float64), weight.double())  # exact: integers below 2^53
            return total.to(x.dtype) / x.shape[1]
        return largest_products(seen, weight * up[:, None], bare).values * up

    def _largest_sums(self, x: Tensor, up: Tensor) -> Tensor:
        """Return the sums of several bases (B, outputs) that are the largest over n, where `up` is -1 the smallest.

        One float product says which rows can be the largest; the sums in their order are only made of those.
        """
        frozen, seen = self.binarizer.frozen(self.weight), self.binarizer.trained_inputs(x)
        weight = self.binarizer.trained_weights(self.weight) * up[:, None]
        reach = (
            frozen.scale.abs().sum() * self.inputs
        )  # the largest sum there can be; off by as many roundings as terms
        slack = reach * (2 * (self.inputs + frozen.scale.numel()) * torch.finfo(torch.float32).eps)
        best = []
        for cloud, signed in zip(x, seen, strict=True):
            near = F.linear(signed, weight)
            rows, columns = (near >= near.amax(0) - slack).nonzero(as_tuple=True)
            if len(rows) > 16 * self.outputs:  # rows that hardly differ: then all of them are no more work
                best.append((self.sums(cloud) * up).amax(0))
                continue
            total = x.new_zeros(())
            for threshold, scales in zip(frozen.threshold, frozen.scale, strict=True):
                met = signs(cloud - threshold)[rows]
                for weights, scale in zip(frozen.weights, scales, strict=True):
                    total = ordered.fma((met * weights[columns]).sum(1), scale, total)
            lowest = torch.full_like(up, -torch.inf)
            best.append(lowest.scatter_reduce(0, columns, total * up[columns], "amax"))
        return torch.stack(best) * up

    def tail(self, d: Tensor) -> Tensor:
        """Return the output for d (B, outputs), in eval mode."""
        a, b = self.folded()
        return ordered.fma(d, a, b + self.delta)


class Transform(nn.Module):
    """x (B, n, d) times the matrix (identity + m), m (B, d * d) from a T-Net (PointNet 2017, section 4.2).

    ordered  eval mode has the bits of the program's TRANSFORM, where no gradient is wanted
    """

    def __init__(self, *, ordered: bool = False):
        super().__init__()
        self.ordered = ordered

    def forward(self, x: Tensor, m: Tensor) -> Tensor:
        """(B, n, d), (B, d * d) -> (B, n, d)."""
        matrix = self.matrix(m, x.shape[-1])
        if self.ordered and not self.training and not torch.is_grad_enabled():
            return ordered.products(x, matrix)
        return torch.bmm(x, matrix)

    @staticmethod
    def matrix(m: Tensor, width: int) -> Tensor:
        """Return identity + m as (B, d, d)."""
        return m.view(-1, width, width) + torch.eye(width, dtype=m.dtype, device=m.device)


def binary_layers(model: nn.Module) -> list[tuple[str, Weighted]]:
    """Return the binary layers with their names, in the order of definition."""
    return [(n, m) for n, m in model.named_modules() if isinstance(m, Weighted) and m.binarizer is not None]


@contextmanager
def _seeing_inputs(model: nn.Module, see: Any) -> Iterator[None]:
    """Call see(name, layer, x) with each binary layer's input while the context lasts."""

    def hook(name: str, layer: Weighted, args: tuple[Tensor, ...]) -> None:
        see(name, layer, args[0].detach())

    handles = [layer.register_forward_pre_hook(partial(hook, name)) for name, layer in binary_layers(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def initialise(model: nn.Module, *inputs: Any) -> None:
    """Run the data-dependent initialisation on a first batch, layer by layer; before the optimiser is built.

    inputs  what the network is called with: (B, n, 3), or the rows of sites and their maps

    Each layer sees what the layers before it, already initialised, give. Buffers (batch norm's running statistics),
    the training flag and the random state are as before.
    """
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    mode = model.training
    model.train()
    with (
        torch.random.fork_rng(devices=[inputs[0].device] if inputs[0].is_cuda else []),
        # A kernel's offsets count as outputs of their own: the binarizer sees (outputs * kernel, inputs).
        _seeing_inputs(model, lambda _, layer, x: layer.binarizer.initialise(x, layer.weight.view(-1, layer.inputs))),
    ):
        model(*inputs)
    model.train(mode)
    for name, buffer in model.named_buffers():
        buffer.copy_(kept[name])


def set_progress(model: nn.Module, epoch: int, epochs: int) -> None:
    """Tell every binarizer how far training is; call at the start of each epoch, also after a resume."""
    for _, layer in binary_layers(model):
        layer.binarizer.schedule(epoch / max(epochs, 1))


@torch.no_grad()
def after_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Let every binarizer mend its latent weights after an optimiser step."""
    for _, layer in binary_layers(model):
        layer.binarizer.after_step(layer.weight, optimizer.state.get(layer.weight, {}))


@torch.no_grad()
def weight_signs(model: nn.Module) -> dict[str, Tensor]:
    """Return per binary layer which weights are +1, (outputs, kernel * inputs) bool; of N bases N of those."""
    return {name: layer.binarizer.weight_signs(layer.weight) > 0 for name, layer in binary_layers(model)}


@torch.no_grad()
def positive_shares(model: nn.Module, *inputs: Any) -> dict[str, float]:
    """Return per binary layer the share of its inputs that are +1 on a batch, as `initialise` takes it, in eval mode.

    One half is the most information a sign can carry; 1.0 is the collapse that BiPointNet (section 3.2) explains.
    """
    shares: dict[str, float] = {}

    def see(name: str, layer: Weighted, seen: Tensor) -> None:
        shares[name] = float((layer.binarizer.inputs_signs(seen) > 0).float().mean())

    mode = model.training
    model.eval()
    with _seeing_inputs(model, see):
        model(*inputs)
    model.train(mode)
    return shares
