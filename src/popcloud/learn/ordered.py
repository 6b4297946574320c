"""Float arithmetic in the order that a program's steps prescribe, so that eval mode has their bits.

A binary network turns a last place into a sign, and through its deepest levels one sign into answers all over a scene.
PyTorch's own matrix products round in an order that depends on the machine and the number of threads.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from popcloud import native
from popcloud.geometry import rounding


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x W^T + bias as LINEAR has it: each sum begins with the bias and takes one fma per input, in order.

    x (..., inputs), weight (outputs, inputs), bias (outputs). No gradient. Elsewhere than in float32 on the CPU, and
    without the engine, PyTorch's product stands in.
    """
    flat = x.reshape(1, -1, x.shape[-1])
    start = bias.expand(1, flat.shape[1], -1)
    return products(flat, weight.mT[None], start)[0].unflatten(0, x.shape[:-1])


def products(x: Tensor, weight: Tensor, start: Tensor | None = None) -> Tensor:
    """Return x[s] W[s] + start[s] of every s: a sum begins with `start`, or 0, and takes one fma per input, in order.

    x (S, R, inputs), weight (S, inputs, outputs), start (S, R, outputs). No gradient, and else as `linear`.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or not native.available():
        y = torch.bmm(x, weight)
        return y if start is None else y + start
    sets, count, inputs = x.shape
    y = x.new_zeros(sets, count, weight.shape[2]) if start is None else start.detach().clone()
    rows = np.arange(sets * count, dtype=np.int32)
    begin = np.arange(sets, dtype=np.int64) * count
    operands = (x.detach().reshape(-1, inputs).contiguous().numpy(), weight.detach().contiguous().numpy())
    y = y.contiguous()
    into = y.view(sets * count, -1).numpy()
    ranges = np.stack([begin, begin + count], axis=1)
    native.engine().sparse_conv(*operands, rows, rows, ranges, into, torch.get_num_threads())
    return y


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


def sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-x)) as a program has it, on the CPU; elsewhere PyTorch's. No gradient."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return torch.sigmoid(x)
    return torch.from_numpy(rounding.sigmoid(x.detach().numpy()))


def mean(x: Tensor) -> Tensor:
    """Return the mean over n of x (B, n, C) as POOL_MEAN has it: summed in order in float64. No gradient."""
    x = x.detach()
    if x.shape[1] > len(x):
        total = torch.stack([cloud.double().cumsum(0)[-1] for cloud in x])  # row after row, for any number of threads
    else:
        total = torch.zeros_like(x[:, 0], dtype=torch.float64)
        for row in x.unbind(1):
            total += row
    return (total / x.shape[1]).to(x.dtype)
