"""Linear, batch norm and a pool over points, trained without the activations between them.

The layer before the pool holds 92 % of a PointNet's multiply-adds and nearly all of its memory; then one value per
cloud and channel is kept. Batch statistics follow from the Gram matrix of the inputs, the maximum from one cloud's
buffer (or, for signs, from the engine's xnor kernels), and the exact gradient from the winning rows and the Gram
matrix alone. X (B, n, K), W (C, K), R = B n, Y = X W^T, s = sum of rows of X:

    mu = W s / R,  var = diag(W G W^T) / R,  G = X^T X - s s^T / R
    dX = scatter of (g a) W_c to the winning rows - X (W^T D W) + 1 (D mu - a m1)^T W
    dW = sum over clouds of (g a)_c X[winner_c] - (a m1) s^T - D W G

with a = gamma / sigma, m1 = sum_b g / R, m2 = sum_b g xhat / R and D = diag(a m2 / sigma).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from popcloud import native


@dataclass(frozen=True)
class Extremes:
    """Per cloud and channel the largest product and the row that gives it: values (B, C), rows (B, C) int64."""

    values: Tensor
    rows: Tensor


@torch.no_grad()
def largest_products(x: Tensor, weight: Tensor, signs: bool) -> Extremes:
    """Return the largest element over n of x (B, n, K) times weight (C, K)^T, and the first row that has it.

    signs  x holds -1 and +1 alone, and a row of weight one scale times those: the engine's kernels do it, if they are
           there, with the same answer
    There is no gradient.
    """
    if signs and x.device.type == "cpu" and native.available():
        return _largest_by_engine(x, weight)
    values = x.new_empty(len(x), len(weight))
    rows = torch.empty(len(x), len(weight), dtype=torch.int64, device=x.device)
    buffer = x.new_empty(x.shape[1], len(weight))
    for cloud in range(len(x)):
        torch.mm(x[cloud], weight.T, out=buffer)
        values[cloud], rows[cloud] = buffer.max(dim=0)
    return Extremes(values, rows)


def _largest_by_engine(x: Tensor, weight: Tensor) -> Extremes:
    engine = native.engine()
    clouds, points, inputs = x.shape
    zeros = np.zeros(inputs, np.float32)
    x_bits = engine.pack(x.detach().reshape(-1, inputs).float().numpy(), zeros)
    w_bits = np.ascontiguousarray(engine.pack(weight.detach().float().contiguous().numpy(), zeros).T)
    least, rows = engine.pooled_minimum(x_bits.reshape(clouds, points, -1), w_bits, torch.get_num_threads())
    values = torch.from_numpy(least).to(x.dtype).mul_(-2).add_(inputs).mul_(weight.detach()[:, 0].abs())
    return Extremes(values, torch.from_numpy(rows).long())


def _gram(flat: Tensor, total: Tensor) -> Tensor:
    """Return the Gram matrix (K, K) of rows (R, K) around their mean, total / R.

    The mean's part is taken off in float64. Taken off the variance instead, in float32, it would drown the variance of
    a channel that hardly varies: the case of inputs that nearly all have one sign.
    """
    wide = total.double()
    return ((flat.T @ flat).double() - torch.outer(wide, wide) / len(flat)).to(flat.dtype)


class LinearNormMax(torch.autograd.Function):
    """max over n of BN(x W^T) by the formulas above; batch statistics; never stores (B, n, C)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor, eps: float, signs: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the pooled output (B, C), the batch mean and the biased variance (C)."""
        flat = x.reshape(-1, x.shape[2])
        total = flat.sum(0)
        mean = weight @ total / len(flat)
        spread = weight @ _gram(flat, total)
        var = ((spread * weight).sum(1) / len(flat)).clamp_min_(0)
        rsigma = (var + eps).rsqrt()
        up = torch.where(gamma < 0, -1.0, 1.0).to(x.dtype)  # the largest output is the smallest sum where gamma < 0
        won = largest_products(x, weight * up[:, None], signs)
        xhat = (won.values * up - mean) * rsigma
        kept = x.to(torch.int8) if signs else x  # a quarter of the memory
        ctx.save_for_backward(kept, weight, gamma, won.rows, xhat, mean, rsigma, total, spread)
        ctx.mark_non_differentiable(mean, var)
        return xhat * gamma + beta, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight, gamma, beta."""
        x, weight, gamma, rows, xhat, mean, rsigma, total, spread = ctx.saved_tensors
        count = x.shape[0] * x.shape[1]
        d_gamma, d_beta = (grad * xhat).sum(0), grad.sum(0)
        a = gamma * rsigma
        shift, pull = a * d_beta / count, a * rsigma * d_gamma / count
        won = grad * a
        d_weight = -torch.outer(shift, total) - pull[:, None] * spread
        turn, push = -(weight.T @ (pull[:, None] * weight)), (pull * mean - shift) @ weight
        d_x = torch.empty(x.shape, dtype=grad.dtype, device=grad.device)
        for cloud in range(len(x)):
            seen = x[cloud].to(grad.dtype)
            torch.addmm(push, seen, turn, out=d_x[cloud])
            d_x[cloud].index_add_(0, rows[cloud], weight * won[cloud][:, None])
            d_weight.addcmul_(seen[rows[cloud]], won[cloud][:, None])
        return d_x, d_weight, d_gamma, d_beta, None, None


def linear_norm_mean(x: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, ...]:
    """mean over n of BN(x W^T), x (B, n, K), W (C, K): batch norm is affine, so the mean of the rows is enough.

    Returns the pooled output (B, C), the batch mean and the biased variance (C). Plain autograd: nothing of (B, n, C)
    arises, the variance comes from the Gram matrix.
    """
    flat = x.reshape(-1, x.shape[2])
    total = flat.sum(0)
    mean = weight @ total / len(flat)
    var = ((weight @ _gram(flat, total) * weight).sum(1) / len(flat)).clamp_min(0)
    return (x.mean(1) @ weight.T - mean) * (gamma * (var + eps).rsqrt()) + beta, mean.detach(), var.detach()
