"""Signs and the gradients that stand in for theirs. sign(0) = +1 everywhere: one bit can't hold a zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def signs(x: Tensor) -> Tensor:
    """Return -1 where x < 0, else +1 (NaN too), in x's type."""
    below = torch.empty_like(x.detach())
    torch.lt(x.detach(), 0, out=below)  # 1 or 0 as x's type: several times faster than torch.where
    return below.mul_(-2).add_(1)


def signs_from(x: Tensor, threshold: Tensor | float) -> Tensor:
    """Return -1 where x < threshold, else +1 (NaN too), in x's type, without their difference in memory."""
    below = torch.empty_like(x)
    torch.lt(x, threshold, out=below)
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
        return signs_from(x, shift)

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


class StandInSign(torch.autograd.Function):
    """sign(w) of weights that s sign(w) stands for, s > 0: the gradient of s sign(w) passes as it is, that of the sign
    divided by s (DoReFa-Net 2016, eq. 8: everywhere).
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor) -> Tensor:
        """Any shape, and a scale of one element."""
        ctx.save_for_backward(scale)
        return signs(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Slope 1 / s."""
        (scale,) = ctx.saved_tensors
        return grad / scale.clamp_min(1e-12), None


class UnitSign(torch.autograd.Function):
    """sign(x - 1/2), which is 2 a - 1 of a = x rounded to 0 or 1; the gradient is that of 2 clip(x, 0, 1).

    DoReFa-Net 2016, eqs. 5 and 10.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Any shape."""
        ctx.save_for_backward((x >= 0) & (x <= 1))
        return signs_from(x, 0.5)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Two inside, nothing outside."""
        (passes,) = ctx.saved_tensors
        return grad * passes * 2


class WindowSign(torch.autograd.Function):
    """sign(x - threshold); the gradient passes where x is at most 1/2 from it (ABC-Net 2017, eqs. 8 and 9)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor) -> Tensor:
        """x of any shape, a threshold of one element."""
        ctx.save_for_backward((x - threshold).abs() <= 0.5)
        return signs_from(x, threshold)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of x and threshold."""
        (passes,) = ctx.saved_tensors
        passed = grad * passes
        return passed, -passed.sum()
