"""What a layer of signs does in training, with less kept for the gradient and fewer passes over memory.

Rows are points: (R, channels) with R of tens of thousands, where one float32 copy is what memory and time go by. Signs
wait for their gradient as a byte an element, and what can be done a slice of rows at a time is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_SLICE = 4096  # rows: a few slices of these fit a processor's cache


def slices(rows: int) -> Iterator[slice]:
    """Cut 0 .. rows - 1 into slices that fit a cache."""
    return (slice(start, start + _SLICE) for start in range(0, rows, _SLICE))


class SignLinear(torch.autograd.Function):
    """F.linear of rows of signs."""

    @staticmethod
    def forward(ctx: Any, seen: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """seen (R, K) of -1 and +1, weight (C, K), bias (C) or None -> (R, C)."""
        ctx.save_for_backward(seen.to(torch.int8), weight)
        return F.linear(seen, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gradients of seen, weight, bias."""
        seen, weight = ctx.saved_tensors
        d_weight = torch.zeros_like(weight)
        for some in slices(len(seen)):
            d_weight.addmm_(grad[some].T, seen[some].to(grad.dtype))
        return grad @ weight, d_weight, grad.sum(0) if ctx.needs_input_grad[2] else None


class NormClip(torch.autograd.Function):
    """Batch norm by the batch's statistics, then clipping to -1 .. 1: hardtanh(BN(z)).

    Only z is kept. What lay inside -1 .. 1 is found again in the backward pass, as z a + b in one slice after another.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """z (R, C), gamma (C), beta (C) -> the output (R, C), the batch mean and the biased variance (C)."""
        y, mean, rsigma = torch.native_batch_norm(z, gamma, beta, None, None, True, 0.0, eps)
        ctx.save_for_backward(z, gamma, beta, mean, rsigma)
        var = rsigma.pow(-2) - eps
        ctx.mark_non_differentiable(mean, var)
        return y.clamp_(-1, 1), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of z, gamma, beta (Ioffe and Szegedy 2015, section 3)."""
        z, gamma, beta, mean, rsigma = ctx.saved_tensors
        a = gamma * rsigma
        b = beta - mean * a

        def passed(some: slice) -> Tensor:
            return torch.addcmul(b, z[some], a).abs_().lt_(1).mul_(grad[some])

        d_beta, along = torch.zeros_like(mean), torch.zeros_like(mean)
        for some in slices(len(z)):
            g = passed(some)
            d_beta += g.sum(0)
            along += g.mul_(z[some] - mean).sum(0)
        d_gamma = along * rsigma
        pull = a * rsigma * d_gamma / len(z)
        push = pull * mean - a * d_beta / len(z)
        d_z = torch.empty_like(z)
        for some in slices(len(z)):
            torch.mul(passed(some), a, out=d_z[some]).addcmul_(z[some], -pull).add_(push)
        return d_z, d_gamma, d_beta, None
