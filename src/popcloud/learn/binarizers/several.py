"""ABC-Net: several signs for a weight, several for an input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from popcloud.learn.binarizers.base import Binarizer
from popcloud.learn.binarizers.signs import SteSign, WindowSign


class AbcNet(Binarizer):
    """N signs for a weight and N for an input, each with a factor (ABC-Net, Lin et al. 2017); abstract in N.

    W = sum of alpha_m sign(W - mean + u_m std), u_m even steps from -1 to 1, alpha by least squares over the layer
    (eqs. 2 to 4); x = sum of beta_n A_n, A_n = sign(clip(x + v_n, 0, 1) - 1/2), beta and v learned (eqs. 7 to 9).

    v starts such that the N thresholds 1/2 - v_n cut a standard normal into equal parts, and beta at 1 / N: how to
    start is not in the paper.
    """

    not_sparse = "it has several signs for an input and a weight, a sparse convolution one"

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        parts = torch.arange(1, self.bases + 1, dtype=torch.float64) / (self.bases + 1)
        self.shift = nn.Parameter(0.5 - torch.special.ndtri(parts).float())
        self.beta = nn.Parameter(torch.full((self.bases,), 1 / self.bases))

    def inputs_signs(self, x: Tensor) -> Tensor:
        """Signs of all bases (N, ..., inputs)."""
        return torch.stack([WindowSign.apply(x, 0.5 - shift) for shift in self.shift])

    def weight_signs(self, weight: Tensor) -> Tensor:
        """Signs of all bases (N, outputs, inputs)."""
        return torch.stack([SteSign.apply(weight + shift) for shift in self._shifts(weight)])

    def _shifts(self, weight: Tensor) -> Tensor:
        """Return u_m std - mean of the whole layer (N,), no gradient; from float64, as in `Lsr`."""
        wide = weight.detach().double()
        steps = torch.linspace(-1, 1, self.bases, dtype=torch.float64, device=weight.device)
        return (steps * wide.std() - wide.mean()).to(weight.dtype)

    def trained_inputs(self, x: Tensor) -> Tensor:
        """Return the sum of the factors times the signs."""
        return torch.tensordot(self.beta, self.inputs_signs(x), 1)

    def trained_weights(self, weight: Tensor) -> Tensor:
        """Return the sum of the factors times the signs, nearest to the weights."""
        found = self.weight_signs(weight)
        return torch.tensordot(self._alpha(weight, found), found, 1)

    def scale(self, weight: Tensor) -> Tensor:
        """Return beta_n alpha_m, (N, N)."""
        return self.beta[:, None] * self._alpha(weight, self.weight_signs(weight))

    @staticmethod
    @torch.no_grad()
    def _alpha(weight: Tensor, found: Tensor) -> Tensor:
        """Return the factors (N,) with the least squared error, the smallest such where signs agree."""
        bases = found.flatten(1).double()
        inverse = torch.linalg.pinv(bases @ bases.T, hermitian=True, rtol=1e-9)  # of exact integers
        return (inverse @ (bases @ weight.flatten().double())).to(weight.dtype)

    def threshold(self, weight: Tensor) -> Tensor:
        """Return 1/2 - v_n for every input, (N, inputs)."""
        return (0.5 - self.shift.detach())[:, None].expand(-1, self.inputs)


class Abc3(AbcNet):
    """Three signs each."""

    bases = 3


class Abc5(AbcNet):
    """Five signs each."""

    bases = 5
