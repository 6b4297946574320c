"""Float arithmetic in the order that a program's steps prescribe, so that eval mode has their bits.

A binary network turns a last place into a sign, and through its deepest levels one sign into answers all over a scene.
PyTorch's own matrix products round in an order that depends on the machine and the number of threads.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from popcloud import native


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x W^T + bias as LINEAR has it: each sum begins with the bias and takes one fma per input, in order.

    x (..., inputs), weight (outputs, inputs), bias (outputs). No gradient. Elsewhere than in float32 on the CPU, and
    without the engine, PyTorch's product stands in.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or not native.available():
        return torch.nn.functional.linear(x, weight, bias)
    flat = x.detach().reshape(-1, x.shape[-1]).contiguous()
    y = bias.detach().repeat(len(flat), 1)
    rows, ranges = np.arange(len(flat), dtype=np.int32), np.array([[0, len(flat)]])
    operands = (flat.numpy(), weight.detach().T.contiguous()[None].numpy(), rows, rows, ranges)
    native.engine().sparse_conv(*operands, y.numpy(), torch.get_num_threads())
    return y.unflatten(0, x.shape[:-1])


def halved(weight: Tensor) -> Tensor:
    """Return weights (outputs, inputs) rounded to float16's numbers, ties to even, in the type they had.

    None moves by more than 2^-11 of its output's largest. Float16 can't promise that where an output's largest is
    beyond 65504 or below 2^-14, its normal numbers; then all weights are returned as they are.
    """
    largest = weight.abs().amax(dim=1)
    fits = (largest == 0) | ((largest >= 2.0**-14) & (largest <= 65504.0))
    return weight.half().to(weight.dtype) if bool(fits.all()) else weight


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return a b + c with one rounding, of float32; a float64 sum that float32 rounds again misses it once in 2^28."""
    return torch.addcmul(c.double(), a.double(), b.double()).to(a.dtype)
