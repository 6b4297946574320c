"""Linear, a gate per cloud and channel, batch norm and a pool over points, without the products of all points.

As `pooled`, with z = g (x W^T) instead of x W^T, g (B, C) > 0: constant over a cloud, so the winning row is the one
without a gate, and the batch's statistics follow from those of each cloud.
"""

from __future__ import annotations

from torch import Tensor

from popcloud.learn.pooled import largest_products


def linear_norm_gated(
    x: Tensor, weight: Tensor, gates: Tensor, norm: tuple[Tensor, Tensor, float], takes_mean: bool, bare: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pool over n of BN(g (x W^T)) (B, C), the batch mean and the biased variance (C), by plain autograd.

    x (B, n, K), W (C, K), gates (B, C).

    norm        gamma (C), beta (C) and eps
    takes_mean  the mean over n; else the largest
    bare        as `signs` of `largest_products`
    """
    gamma, beta, eps = norm
    centre = x.mean(1)
    means = gates * (centre @ weight.T)
    mean = means.mean(0)
    var = (gates.square() * _spreads(x, centre, weight) + (means - mean).square()).mean(0)
    values = means if takes_mean else gates * _largest(x, weight, gamma, bare)
    y = (values - mean) * (gamma * (var + eps).rsqrt()) + beta
    return y, mean.detach(), var.detach()


def _spreads(x: Tensor, centre: Tensor, weight: Tensor) -> Tensor:
    """Return the biased variance of x W^T over n, (B, C), by the Gram matrix of each cloud around its centre."""
    wide = centre.double()
    gram = (x.mT @ x).double() / x.shape[1] - wide[:, :, None] * wide[:, None]  # else small ones would drown
    return ((gram.to(x.dtype) @ weight.T) * weight.T).sum(1).clamp_min(0)


def _largest(x: Tensor, weight: Tensor, gamma: Tensor, bare: bool) -> Tensor:
    """Return the product (B, C) whose batch norm is the largest; where gamma < 0 the smallest."""
    up = 1 - 2 * (gamma.detach() < 0).to(x.dtype)
    rows = largest_products(x.detach(), weight.detach() * up[:, None], bare).rows
    return (x.gather(1, rows[:, :, None].expand(-1, -1, x.shape[2])) * weight).sum(2)
