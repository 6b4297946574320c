"""Binarizers with one scale for a whole layer that fold into a threshold: DoReFa-Net, XNOR-Net++, LAB."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from popcloud.errors import RecipeError
from popcloud.learn.binarizers.base import Binarizer
from popcloud.learn.binarizers.signs import StandInSign, UnitSign


class DoReFa(Binarizer):
    """Inputs of 0 and 1, signs of the weights times their mean magnitude (DoReFa-Net, Zhou et al. 2016, 1 bit each).

    An input is a = 1 from 1/2 on, else 0. With signs s = 2 a - 1 the product is (sum of s b + sum of b) / 2: half a
    scale, and an offset per output.
    """

    not_sparse = "its inputs are 0 and 1, and a neighbour that is absent would count as 0"

    def inputs_signs(self, x: Tensor) -> Tensor:
        """Signs around one half."""
        return UnitSign.apply(x)

    def weight_signs(self, weight: Tensor) -> Tensor:
        """Signs, whose product with the mean magnitude has the gradient of the weights themselves (eq. 8)."""
        return StandInSign.apply(weight, _magnitude(weight))

    def scale(self, weight: Tensor) -> Tensor:
        """Half the mean magnitude of the layer, no gradient."""
        return 0.5 * _magnitude(weight)

    def offset(self, weight: Tensor) -> Tensor:
        """Half the sum of an output's weights."""
        return self.weight_signs(weight).sum(1) * self.scale(weight)

    def threshold(self, weight: Tensor) -> Tensor:
        """One half."""
        return weight.new_full((self.inputs,), 0.5)


class XnorPlusPlus(Binarizer):
    """Signs of both times a learned scale (XNOR-Net++, Bulat and Tzimiropoulos 2019).

    per_channel  a scale per output (the paper's case 1) instead of one for the layer, BiPointNet's row of 18 factors
    """

    def __init__(self, inputs: int, outputs: int, *, per_channel: bool = False):
        super().__init__(inputs, outputs)
        self.alpha = nn.Parameter(torch.ones(outputs if per_channel else 1))

    def scale(self, weight: Tensor) -> Tensor:
        """Return the learned scale."""
        return self.alpha

    @torch.no_grad()
    def initialise(self, x: Tensor, weight: Tensor) -> None:
        """Begin with the mean magnitude, XNOR-Net's scale."""
        self.alpha.copy_(weight.view(len(self.alpha), -1).abs().mean(1))


class Lab(Binarizer):
    """Signs times the scale that least changes the loss, by the curvature that Adam knows (LAB, Hou et al. 2017).

    alpha = sum of d |w| / sum of d over the layer (eq. 9), d the root of Adam's second moments: the diagonal of the
    curvature. The gradient at alpha sign(w) moves w, as the proximal Newton step asks, and w stays in [-1, 1].
    """

    moments = True
    alpha: Tensor

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.register_buffer("alpha", torch.zeros(1))  # 0 before the first step

    def weight_signs(self, weight: Tensor) -> Tensor:
        """Signs, whose product with alpha has the gradient of the weights themselves."""
        return StandInSign.apply(weight, self.scale(weight))

    def scale(self, weight: Tensor) -> Tensor:
        """Return alpha, before the first step the mean magnitude: all curvatures alike; no gradient."""
        return torch.where(self.alpha > 0, self.alpha, _magnitude(weight))

    def after_step(self, weight: Tensor, state: Mapping[str, Any]) -> None:
        """Clip as the authors' code does, and find alpha for the new weights."""
        if "exp_avg_sq" not in state:
            raise RecipeError("lab: expected the second moments that Adam keeps, found none; choose adam or adamw")
        weight.clamp_(-1, 1)
        curvature = state["exp_avg_sq"].sqrt().double() + 1e-8
        self.alpha.copy_((curvature * weight.abs()).sum() / curvature.sum())


def _magnitude(weight: Tensor) -> Tensor:
    """Return the mean magnitude (1,), summed in float64, so that the number of threads hardly matters; no gradient."""
    return weight.detach().abs().mean(dtype=torch.float64, dim=(0, 1)).to(weight.dtype)[None]
