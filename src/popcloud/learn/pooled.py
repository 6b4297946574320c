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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from popcloud import native

_ROWS = 4096  # a slice of clouds has about so many: it fits a processor's cache
_FEW = 64  # points: in clouds as small as this the winning rows are as good as all of them


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
    for some in _slices(x):
        products = torch.mm(weight, x[some].flatten(0, 1).T)  # rows last: the order in which a maximum is fastest
        best = products.unflatten(1, (-1, x.shape[1])).max(dim=2)
        values[some], rows[some] = best.values.T, best.indices.T
    return Extremes(values, rows)


def _largest_by_engine(x: Tensor, weight: Tensor) -> Extremes:
    engine = native.engine()
    clouds, points, inputs = x.shape
    zeros = np.zeros(inputs, np.float32)
    x_bits = engine.pack(x.detach().reshape(-1, inputs).float().contiguous().numpy(), zeros)
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
        for some in _slices(x):
            seen = x[some].to(grad.dtype)
            torch.addmm(push, seen.flatten(0, 1), turn, out=d_x[some].flatten(0, 1))
            _add_winners(seen, weight, rows[some], won[some], d_x[some], d_weight)
        return d_x, d_weight, d_gamma, d_beta, None, None


def _slices(x: Tensor) -> Iterator[slice]:
    """Cut the clouds of x (B, n, K) into slices of one, or of many small ones."""
    step = max(_ROWS // x.shape[1], 1)
    return (slice(start, start + step) for start in range(0, len(x), step))


def _add_winners(x: Tensor, weight: Tensor, rows: Tensor, won: Tensor, d_x: Tensor, d_weight: Tensor) -> None:
    """Add what the winning rows (B, C) pass back, `won` (B, C), to the gradients of x (B, n, K) and weight, in place.

    Without the engine, clouds of few points take a product with a matrix that is zero but at the winners.
    """
    if x.device.type == "cpu" and x.dtype == torch.float32 and native.available():
        operands = (x, weight.contiguous(), rows.contiguous(), won.contiguous(), d_x, d_weight)
        native.engine().add_winners(*(tensor.numpy() for tensor in operands))
    elif x.shape[1] > _FEW:
        for seen, row, grad, d_seen in zip(x, rows, won[:, :, None], d_x, strict=True):
            d_seen.index_add_(0, row, weight * grad)
            d_weight.addcmul_(seen[row], grad)
    else:
        winners = x.new_zeros(*x.shape[:2], len(weight)).scatter_(1, rows[:, None], won[:, None]).flatten(0, 1)
        d_x.flatten(0, 1).addmm_(winners, weight)
        d_weight.addmm_(winners.T, x.flatten(0, 1))


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
