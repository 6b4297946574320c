"""Where a rising condition on float32 numbers turns true: bisection over the numbers themselves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LARGEST = torch.finfo(torch.float32).max


def smallest(passes: Callable[[Tensor], Tensor], channels: int, bound: float) -> Tensor:
    """Return (channels,) float32: the smallest number in [-bound, bound] that passes, -inf if all do, +inf if none.

    passes  (channels,) float32 -> bool, and stays true once it is, channel by channel
    Bisection over the float32 numbers themselves, in their order as integers.
    """
    low = _ordered(torch.full((channels,), -bound)) - 1
    high = _ordered(torch.full((channels,), bound)) + 1
    first, last = low.clone(), high.clone()
    while bool((high - low > 1).any()):
        middle = (low + high) // 2
        good, open_ = passes(_from_ordered(middle)), high - low > 1
        high, low = torch.where(good & open_, middle, high), torch.where(~good & open_, middle, low)
    found = _from_ordered(high.clamp(max=int(last[0]) - 1))
    found = torch.where(high == last, torch.inf, found)
    return torch.where(high == first + 1, -torch.inf, found)


def _ordered(x: Tensor) -> Tensor:
    """Return float32 numbers as int64 that sort the same; -0 and +0 both become 0."""
    raw = x.view(torch.int32).long()
    return torch.where(raw < 0, -(raw & 0x7FFFFFFF), raw)


def _from_ordered(i: Tensor) -> Tensor:
    """Invert `_ordered`."""
    magnitude = i.abs().to(torch.int32).view(torch.float32)
    return torch.where(i < 0, -magnitude, magnitude)
