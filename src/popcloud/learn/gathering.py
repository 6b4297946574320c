"""Rows of neighbours picked from clouds and put back, with exact gradients and few passes over memory.

Rows (B, P, k, C) of a batch's neighbours are its largest arrays by far: they are made once, and subtracted in place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Gathered(torch.autograd.Function):
    """x[rows], cloud by cloud."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        """x (B, n, C), rows (B, ...) int64 -> (B, ..., C)."""
        flat = _flat(rows, x.shape[1])
        ctx.save_for_backward(flat)
        ctx.shape = x.shape
        return x.reshape(-1, x.shape[2]).index_select(0, flat).unflatten(0, rows.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Sum of what comes back to each row."""
        return _put_back(grad, ctx.saved_tensors[0], ctx.shape), None


class Spread(torch.autograd.Function):
    """x[rows] - y: what the neighbours of a point have beyond the point itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, y: Tensor) -> Tensor:
        """x (B, n, C), rows (B, P, k) int64, y (B, P, C) -> (B, P, k, C)."""
        z = Gathered.forward(ctx, x, rows)
        return z.sub_(y[:, :, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        """Gradients of x and y."""
        d_x = _put_back(grad, ctx.saved_tensors[0], ctx.shape) if ctx.needs_input_grad[0] else None
        return d_x, None, grad.sum(2).neg_() if ctx.needs_input_grad[2] else None


def _flat(rows: Tensor, points: int) -> Tensor:
    """Return rows of clouds (B, ...) as rows of all clouds one after another."""
    first = torch.arange(len(rows), device=rows.device) * points
    return (rows + first.view(-1, *[1] * (rows.ndim - 1))).flatten()


def _put_back(grad: Tensor, flat: Tensor, shape: torch.Size) -> Tensor:
    """Return the sum of the gradients (..., C) of each row, as `shape`; scatter_add sums faster than index_add."""
    channels = shape[-1]
    total = grad.new_zeros(shape[0] * shape[1], channels)
    total.scatter_add_(0, flat[:, None].expand(-1, channels), grad.reshape(-1, channels))
    return total.view(shape)
