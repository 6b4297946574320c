"""Every binarizer: what a binary layer does to its inputs and to its latent weights.

sign(0) = +1 everywhere: one bit can't hold a zero. In eval mode every binarizer is what `frozen` returns (a threshold
per input, a sign per weight, a scale), and that is all that export ever sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


def signs(x: Tensor) -> Tensor:
    """Return -1 where x < 0, else +1 (NaN too), in x's type."""
    below = torch.empty_like(x.detach())
    torch.lt(x.detach(), 0, out=below)  # 1 or 0 as x's type: several times faster than torch.where
    return below.mul_(-2).add_(1)


class SteSign(torch.autograd.Function):
    """sign(x); the gradient passes where |x| <= 1 (straight-through estimator; Hubara et al. 2016, eq. 4)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Any shape."""
        low, high = x.aminmax() if x.numel() else (x.new_zeros(()), x.new_zeros(()))
        # After a hardtanh every gradient passes and no mask is needed; else a byte an element, not x itself.
        ctx.save_for_backward(None if low >= -1 and high <= 1 else x.abs() <= 1)
        return signs(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Clip."""
        (passes,) = ctx.saved_tensors
        return grad if passes is None else grad * passes


class ApproxSign(torch.autograd.Function):
    """sign(x); the gradient is that of a piecewise parabola: 2 - 2|x| where |x| < 1 (Bi-Real Net 2018, eq. 6)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Any shape."""
        ctx.save_for_backward(x)
        return signs(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Slope of the parabola."""
        (x,) = ctx.saved_tensors
        return _parabola(x.abs()).mul_(grad)


class RSign(torch.autograd.Function):
    """sign(x - shift), shift per channel; the gradient is ApproxSign's (ReActNet 2020, eq. 1)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor) -> Tensor:
        """x (..., channels), shift (channels,)."""
        ctx.save_for_backward(x, shift)
        below = torch.empty_like(x)
        torch.lt(x, shift, out=below)  # exactly where x - shift < 0, without that difference in memory
        return below.mul_(-2).add_(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of x and shift."""
        x, shift = ctx.saved_tensors
        d_x = _parabola((x - shift).abs_()).mul_(grad)
        return d_x, -d_x.flatten(0, -2).sum(0)


def _parabola(magnitude: Tensor) -> Tensor:
    """Return 2 - 2 |x| where that is positive, else 0, in place."""
    return magnitude.mul_(-2).add_(2).clamp_(min=0)


class EdeSign(torch.autograd.Function):
    """sign(x); the gradient is k t (1 - tanh(t x)^2), which sharpens over training (IR-Net 2020, eq. 10)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, k: float, t: float) -> Tensor:
        """Any shape; k, t from `IrNet.schedule`."""
        ctx.save_for_backward(x)
        ctx.k, ctx.t = k, t
        return signs(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Slope of the error decay estimator."""
        (x,) = ctx.saved_tensors
        return grad * (ctx.k * ctx.t * (1 - torch.tanh(ctx.t * x).square_())), None, None


@dataclass(frozen=True)
class Frozen:
    """What a binarizer is once training is over.

    threshold  (inputs,) float32: an input is -1 where x < threshold
    weights    (outputs, inputs) float32, each -1 or +1
    scale      (outputs,) or (1,) float32, multiplies the sum of signs
    """

    threshold: Tensor
    weights: Tensor
    scale: Tensor


class Binarizer(nn.Module):
    """One binary layer's rule; abstract. Latent weights are (outputs, inputs).

    activation  what follows the layer's batch norm: "hardtanh" or "rprelu"
    scales_rows whether the output is also multiplied by a number per row that depends on the inputs
    bias        whether a layer without batch norm has a bias
    """

    activation = "hardtanh"
    scales_rows = False
    bias = False

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.inputs, self.outputs = inputs, outputs

    def inputs_signs(self, x: Tensor) -> Tensor:
        """Return x (..., inputs) as -1 and +1, with this binarizer's gradient."""
        return SteSign.apply(x)

    def weight_signs(self, weight: Tensor) -> Tensor:
        """Return the latent weights as -1 and +1, with this binarizer's gradient."""
        return SteSign.apply(weight)

    def scale(self, weight: Tensor) -> Tensor:
        """Return the factor of the sum of signs: (outputs,) or (1,)."""
        return weight.new_ones(1)

    def row_scale(self, x: Tensor) -> Tensor:
        """Return the factor per row, (..., 1), where `scales_rows`; no gradient."""
        raise TypeError(f"{type(self).__name__} has no factor per row")

    def threshold(self, weight: Tensor) -> Tensor:
        """Return (inputs,): below it an input is -1."""
        return weight.new_zeros(self.inputs)

    def initialise(self, x: Tensor, weight: Tensor) -> None:
        """Set what depends on data from the first real batch x (..., inputs); before the optimiser is built."""

    def schedule(self, progress: float) -> None:
        """Set what changes over training; progress runs from 0 to 1."""

    def after_step(self, weight: Tensor) -> None:
        """Mend the latent weights after an optimiser step, in place."""

    @torch.no_grad()
    def frozen(self, weight: Tensor) -> Frozen:
        """Return what this layer computes with in eval mode."""
        return Frozen(self.threshold(weight), self.weight_signs(weight), self.scale(weight).detach())


class Bnn(Binarizer):
    """Signs of both, no scale, latent weights kept in [-1, 1] (Hubara et al. 2016, "Binarized Neural Networks")."""

    bias = True

    def after_step(self, weight: Tensor) -> None:
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
        """Mean magnitude per row, no gradient."""
        return x.detach().abs().mean(dim=-1, keepdim=True)


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


BINARIZERS: dict[str, type[Binarizer]] = {
    "bnn": Bnn,
    "xnor": Xnor,
    "bireal": BiReal,
    "irnet": IrNet,
    "lsr": Lsr,
    "react": ReAct,
}

REAL = "real"  # the name that stands for no binarizer: the network's real-valued twin
