"""What follows a layer's product: batch norm and activations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from popcloud.learn import ordered
from popcloud.learn.lean import NormClip


class _RPReLU(torch.autograd.Function):
    """`RPReLU` in few passes over memory, keeping its input alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
        """x (R, channels)."""
        ctx.save_for_backward(x, shift, slope)
        return F.prelu(x - shift, slope).add_(offset)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of x, shift, slope, offset."""
        x, shift, slope = ctx.saved_tensors
        moved = x - shift
        below = torch.empty_like(moved)
        torch.le(moved, 0, out=below)  # 1 or 0 as x's type: several times faster than torch.where
        d_slope = moved.mul_(below).mul_(grad).sum(0)
        d_x = below.mul_(slope - 1).add_(1).mul_(grad)
        return d_x, -d_x.sum(0), d_slope, grad.sum(0)


class RPReLU(nn.Module):
    """x > shift ? x - shift : slope (x - shift), plus offset; all learned per channel (ReActNet 2020, eq. 2).

    moves  False: shift and offset stay zero, which is PReLU (He et al. 2015, eq. 1)
    """

    shift: Tensor
    offset: Tensor

    def __init__(self, channels: int, *, moves: bool = True):
        super().__init__()
        self.slope = nn.Parameter(torch.full((channels,), 0.25))
        for name in ("shift", "offset"):
            zeros = torch.zeros(channels)
            self.register_parameter(name, nn.Parameter(zeros)) if moves else self.register_buffer(name, zeros)

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels)."""
        y: Tensor = _RPReLU.apply(x.reshape(-1, x.shape[-1]), self.shift, self.slope, self.offset)
        return y.view(x.shape)


class Norm(nn.BatchNorm1d):
    """Batch norm of rows (R, channels), which can also be told a batch's statistics.

    One row alone has no variance: it goes by the running statistics, in training too.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(R, channels)."""
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return (a, b), each (channels,): eval mode as x a + b."""
        gain = self.weight * (self.running_var + self.eps).rsqrt()
        return gain, self.bias - self.running_mean * gain

    @torch.no_grad()
    def observe(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Move the running statistics towards a batch's mean and biased variance over `count` rows."""
        self.num_batches_tracked.add_(1)
        momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(var.to(self.running_var.dtype) * (count / max(count - 1, 1)), momentum)


class Sigmoid(nn.Module):
    """1 / (1 + exp(-x)); without gradients it has a program's bits."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return torch.sigmoid(x) if torch.is_grad_enabled() else ordered.sigmoid(x)


def make_activation(name: str, channels: int) -> nn.Module:
    """Return the module for none, relu, hardtanh, prelu, rprelu or sigmoid."""
    if name == "sigmoid":
        return Sigmoid()
    if name in ("prelu", "rprelu"):
        return RPReLU(channels, moves=name == "rprelu")
    if name == "none":
        return nn.Identity()
    return nn.ReLU(inplace=True) if name == "relu" else nn.Hardtanh(inplace=True)  # batch norm needs its input alone


def normed(z: Tensor, norm: Norm | None, activation: nn.Module) -> Tensor:
    """Return the activation of batch norm of z (R, channels), in training."""
    if norm is None or not isinstance(activation, nn.Hardtanh):
        return activation(z if norm is None else norm(z))
    y, mean, var = NormClip.apply(z, norm.weight, norm.bias, norm.eps)
    norm.observe(mean, var, len(z))
    return y
