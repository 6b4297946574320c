"""POEM: a batch norm before the signs, learned scales, and weights that are drawn to one of two means."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from popcloud.learn.binarizers.base import Binarizer, Frozen
from popcloud.learn.binarizers.signs import SteSign, signs
from popcloud.learn.bisection import LARGEST, smallest
from popcloud.learn.norms import Norm

_ROUNDS = 3  # of expectation and maximisation; a step moves the weights by little, and three from the same start do


class PoemWeights(torch.autograd.Function):
    """alpha sign(w) per output, whose gradient has POEM's two terms beside the straight-through estimator's.

    To the gradient of w: weight_decay (w - alpha b) alpha, b = sign(w), from L_R = 1/2 |w - alpha b|^2 as the paper
    has it, and pull (w - m), m the mean of the two means weighted by how likely w is of each, where w lies between
    them. To that of alpha: weight_decay times that of L_R.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, alpha: Tensor, pull: float, weight_decay: float) -> Tensor:
        """weight (C, K), alpha (C)."""
        ctx.save_for_backward(weight, alpha)
        ctx.pull, ctx.weight_decay = pull, weight_decay
        return signs(weight).mul_(alpha[:, None])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Gradients of weight and alpha."""
        weight, alpha = ctx.saved_tensors
        b, scale = signs(weight), alpha[:, None]
        off = weight - b * scale
        d_weight = grad * scale * (weight.abs() <= 1) + ctx.weight_decay * scale * off + ctx.pull * drawn(weight)
        d_alpha = ((grad - ctx.weight_decay * off) * b).sum(1)
        return d_weight, d_alpha, None, None


@torch.no_grad()
def drawn(weight: Tensor) -> Tensor:
    """Return w - m where w lies between the two means of the layer's mixture of Gaussians, else 0; as weight.

    m is the means' mean, weighted by how likely w is of each. The mixture is found from +-(mean magnitude) on.
    """
    centre = weight.abs().mean()
    low, high, share = -centre, centre, torch.full_like(centre, 0.5)
    narrow = narrower = (weight.abs() - centre).square().mean().clamp_min(1e-24)  # variances around low and high
    for _ in range(_ROUNDS):
        odds = (share / (1 - share)).log() + 0.5 * (narrow / narrower).log()
        likely = torch.sigmoid(odds + (weight - low) ** 2 / (2 * narrow) - (weight - high) ** 2 / (2 * narrower))
        share = likely.mean().clamp(1e-6, 1 - 1e-6)
        high = (likely * weight).mean() / share
        low = (weight.mean() - share * high) / (1 - share)
        narrower = (likely * (weight - high) ** 2).mean() / share
        narrow = ((1 - likely) * (weight - low) ** 2).mean() / (1 - share)
        narrow, narrower = narrow.clamp_min(1e-24), narrower.clamp_min(1e-24)
    between = (weight > low) & (weight < high)
    return (weight - low - likely * (high - low)) * between


class Poem(Binarizer):
    """sign(BN(x)) and alpha sign(w), alpha learned per output, PReLU after (POEM, Xu et al. 2021).

    pull          tau, how strongly weights between the two means are drawn to one of them (the paper's 1e-3)
    weight_decay  lambda of L_R, which holds alpha sign(w) near w (1e-4)
    """

    activation = "prelu"

    def __init__(self, inputs: int, outputs: int, *, pull: float = 1e-3, weight_decay: float = 1e-4):
        super().__init__(inputs, outputs)
        self.pull, self.weight_decay = pull, weight_decay
        self.norm = Norm(inputs)
        self.alpha = nn.Parameter(torch.ones(outputs))

    def inputs_signs(self, x: Tensor) -> Tensor:
        """Signs of the batch norm's output."""
        if self.training:
            return SteSign.apply(self.norm(x.flatten(0, -2)).view(x.shape))
        a, b = self.norm.folded()
        return SteSign.apply(x * a + b)

    def trained_weights(self, weight: Tensor) -> Tensor:
        """Scaled signs, with the terms of POEM in their gradient."""
        return PoemWeights.apply(weight, self.alpha, self.pull, self.weight_decay)

    def scale(self, weight: Tensor) -> Tensor:
        """Return the learned scales."""
        return self.alpha

    @torch.no_grad()
    def threshold(self, weight: Tensor) -> Tensor:
        """Return where the batch norm's output turns its sign; the other way round where it falls."""
        a, b = self.norm.folded()
        falls = a < 0
        return smallest(lambda x: (x * a + b >= 0) ^ falls, self.inputs, LARGEST).to(weight.dtype)

    @torch.no_grad()
    def initialise(self, x: Tensor, weight: Tensor) -> None:
        """Begin with the mean magnitudes, where L_R is smallest."""
        self.alpha.copy_(weight.view(self.outputs, -1).abs().mean(1))

    @torch.no_grad()
    def frozen(self, weight: Tensor) -> Frozen:
        """Return thresholds, and weights negated where the batch norm before them falls."""
        return Frozen(self.threshold(weight), self.unsigned(signs(weight)), self.alpha.detach())

    def unsigned(self, weight: Tensor) -> Tensor:
        """Return weights negated where the batch norm before them falls."""
        turn = torch.where(self.norm.folded()[0] < 0, -1.0, 1.0).to(weight.dtype)
        return weight * turn.repeat(weight.shape[1] // self.inputs)
