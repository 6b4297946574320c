"""The binarizers of the first tables: BNN, XNOR-Net, Bi-Real Net, IR-Net, BiPointNet's layer-wise scale, ReActNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from popcloud.learn.binarizers.base import Binarizer
from popcloud.learn.binarizers.signs import ApproxSign, EdeSign, RSign, SteSign, signs


class Bnn(Binarizer):
    """Signs of both, no scale, latent weights kept in [-1, 1] (Hubara et al. 2016, "Binarized Neural Networks")."""

    bias = True

    def after_step(self, weight: Tensor, state: Mapping[str, Any]) -> None:
        """Clip: beyond 1 the gradient is zero and a weight would never come back."""
        weight.clamp_(-1, 1)


class Xnor(Binarizer):
    """Centred weights times their mean magnitude, inputs times theirs (XNOR-Net 2016, eqs. 6, 10).

    The factor of the inputs is the mean of |x| over the channels of a row: for a linear layer the kernel window is one.
    """

    scales_rows = True
    bias = True

    def weight_signs(self, weight: Tensor) -> Tensor:
        """Signs of the weights around their row's mean."""
        return SteSign.apply(weight - weight.mean(dim=1, keepdim=True))

    def scale(self, weight: Tensor) -> Tensor:
        """Mean magnitude per output, no gradient."""
        weight = weight.detach()
        return (weight - weight.mean(dim=1, keepdim=True)).abs().mean(dim=1)

    def row_scale(self, x: Tensor) -> Tensor:
        """Mean magnitude per row, no gradient; in eval mode summed as ROW_MEAN_ABS has it, in order in float64."""
        size = x.detach().abs()
        if self.training:
            return size.mean(dim=-1, keepdim=True)
        return (size.double().cumsum(dim=-1)[..., -1:] / x.shape[-1]).to(x.dtype)


class BiReal(Binarizer):
    """Quadratic gradient for inputs, weights times their mean magnitude (Bi-Real Net 2018)."""

    def inputs_signs(self, x: Tensor) -> Tensor:
        """Sign with the parabola's gradient."""
        return ApproxSign.apply(x)

    def scale(self, weight: Tensor) -> Tensor:
        """Mean magnitude per output, no gradient."""
        return weight.detach().abs().mean(dim=1)


class IrNet(Binarizer):
    """Standardised weights times a power of two, and the error decay gradient (IR-Net 2020).

    first, last  t runs from `first` to `last` over training; the paper starts at 0.1, its code at 0.001
    """

    def __init__(self, inputs: int, outputs: int, *, first: float = 0.1, last: float = 10.0):
        super().__init__(inputs, outputs)
        self.first, self.last = first, last
        self.schedule(0.0)

    def schedule(self, progress: float) -> None:
        """t = first * (last / first)^progress, k = max(1 / t, 1) (eq. 11)."""
        self.t = self.first * (self.last / self.first) ** progress
        self.k = max(1 / self.t, 1.0)

    def _standardised(self, weight: Tensor) -> Tensor:
        centred = weight - weight.mean(dim=1, keepdim=True)
        return centred / centred.std(dim=1, keepdim=True).clamp_min(1e-12)

    def inputs_signs(self, x: Tensor) -> Tensor:
        """Sign with the error decay gradient."""
        return EdeSign.apply(x, self.k, self.t)

    def weight_signs(self, weight: Tensor) -> Tensor:
        """Signs of the standardised weights, with the error decay gradient."""
        return EdeSign.apply(self._standardised(weight), self.k, self.t)

    def scale(self, weight: Tensor) -> Tensor:
        """2^round(log2 of the mean magnitude of the standardised weights) per output (eq. 8)."""
        magnitude = self._standardised(weight.detach()).abs().mean(dim=1).clamp_min(1e-12)
        return torch.exp2(torch.round(torch.log2(magnitude)))


class Lsr(Binarizer):
    """Layer-wise scale recovery: one learned factor for the whole layer (BiPointNet 2021, eqs. 10, 11)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.alpha = nn.Parameter(torch.ones(1))

    def weight_signs(self, weight: Tensor) -> Tensor:
        """Signs of the weights around the mean of the whole matrix."""
        return SteSign.apply(self._centred(weight))

    @staticmethod
    def _centred(weight: Tensor) -> Tensor:
        # Summed in float64: a float32 mean, and with it a weight's sign, would depend on the number of threads.
        return weight - weight.mean(dtype=torch.float64).to(weight.dtype)

    def scale(self, weight: Tensor) -> Tensor:
        """Return the learned factor."""
        return self.alpha

    @torch.no_grad()
    def initialise(self, x: Tensor, weight: Tensor) -> None:
        """alpha = std(x (W - mean W)^T) / std(sign(x) sign(W - mean W)^T), over all elements of the first batch."""
        rows = x.reshape(-1, self.inputs).double()
        centred = self._centred(weight).double()
        real, binary = _product_std(rows, centred), _product_std(signs(rows), signs(centred))
        if not (real > 0 and binary > 0):  # an input of zeros or of one value says nothing: the weights' own ratio
            real, binary = float(weight.double().std()), float(signs(centred).std())
        self.alpha.fill_(real / binary if real > 0 and binary > 0 else 1.0)


def _product_std(x: Tensor, w: Tensor) -> float:
    """Return the unbiased std of all elements of x w^T from sums alone: x (R, K), w (C, K); x w^T is never stored."""
    count = len(x) * len(w)
    mean = float(x.sum(0) @ w.sum(0)) / count
    square = float(((w @ (x.T @ x)) * w).sum())
    return max((square - count * mean * mean) / max(count - 1, 1), 0.0) ** 0.5


class ReAct(Binarizer):
    """A learned threshold per input, quadratic gradient, mean magnitude per output, RPReLU after (ReActNet 2020)."""

    activation = "rprelu"

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.shift = nn.Parameter(torch.zeros(inputs))

    def inputs_signs(self, x: Tensor) -> Tensor:
        """RSign (eq. 1)."""
        return RSign.apply(x, self.shift)

    def scale(self, weight: Tensor) -> Tensor:
        """Mean magnitude per output, no gradient."""
        return weight.detach().abs().mean(dim=1)

    def threshold(self, weight: Tensor) -> Tensor:
        """Return the learned thresholds."""
        return self.shift.detach()
