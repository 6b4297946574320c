"""What all layers share: latent weights, a binarizer, a batch norm, and how they multiply in training and eval mode."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from popcloud.errors import RecipeError, unknown
from popcloud.learn.binarizers import BINARIZERS, REAL, Binarizer, Frozen, signs
from popcloud.learn.norms import Norm

_FITS = 2**19  # numbers: a few arrays of as many fit a processor's cache


def make_binarizer(name: str, inputs: int, outputs: int) -> Binarizer | None:
    """Return a layer's binarizer, None for the real-valued twin. Raises RecipeError naming the valid ones."""
    return None if name == REAL else _binarizer(name)(inputs, outputs)


def activation_of(binarizer: str) -> str:
    """Return the activation that a network of this binarizer uses: relu, hardtanh, prelu, rprelu; errors as above."""
    return "relu" if binarizer == REAL else _binarizer(binarizer).activation


def _binarizer(name: str) -> type[Binarizer]:
    if name not in BINARIZERS:
        raise RecipeError(unknown("binarizer", name, [REAL, *BINARIZERS]))
    return BINARIZERS[name]


class Weighted(nn.Module):
    """What all layers share: latent weights (outputs, kernel * inputs), a binarizer or None, a batch norm or None.

    kernel           how many rows of inputs meet in one row of outputs: 1, or the offsets of a sparse convolution
    bias             whether, without batch norm, there is a bias if the binarizer wants one
    weights_binary   False: the stage of a training in which inputs are binary and weights are used as they are
    """

    binarizer: Any  # a Binarizer, or None in the real-valued twin
    norm: Any  # a Norm, or None

    def __init__(self, inputs: int, outputs: int, *, binarizer: str, norm: bool, kernel: int = 1, bias: bool = True):
        super().__init__()
        self.inputs, self.outputs, self.weights_binary = inputs, outputs, True
        bound = 1 / math.sqrt(kernel * inputs)
        self.weight = nn.Parameter(torch.empty(outputs, kernel * inputs).uniform_(-bound, bound))
        self.binarizer = make_binarizer(binarizer, inputs, outputs)
        has_bias = bias and not norm and (self.binarizer is None or self.binarizer.bias)
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound)) if has_bias else None
        self.norm = Norm(outputs) if norm else None

    def operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is multiplied in training: inputs and weights, binarized and scaled, with their gradients."""
        return x if self.binarizer is None else self.binarizer.trained_inputs(x), self.trained_weight()

    def trained_weight(self) -> Tensor:
        """Return the weights that training multiplies by: binarized and scaled, or as they are."""
        if self.binarizer is None or not self.weights_binary:
            return self.weight
        scaled: Tensor = self.binarizer.trained_weights(self.weight)
        return scaled

    @property
    def bare(self) -> bool:
        """Return whether training multiplies signs of inputs alone, without factors."""
        return self.binarizer is not None and not self.binarizer.scales_rows and self.binarizer.bases == 1

    @property
    def gates(self) -> bool:
        """Return whether products are multiplied by a gate per cloud."""
        return self.binarizer is not None and self.binarizer.gates

    def constant(self) -> Tensor | None:
        """Return (outputs,), what is added to the scaled product where no batch norm takes it away again, or None."""
        if self.norm is not None or self.binarizer is None:
            return self.bias
        offset: Tensor | None = self.binarizer.offset(self.weight)
        if offset is None:
            return self.bias
        return offset if self.bias is None else self.bias + offset

    def exact_operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is multiplied in eval mode: bare signs of one base, so that every sum is an exact integer."""
        if self.binarizer is None:
            return x, self.weight
        frozen = self.binarizer.frozen(self.weight)
        weight = frozen.weights if self.weights_binary else self.binarizer.unsigned(self.weight)
        return signs(x - frozen.threshold), weight

    def sums(self, x: Tensor) -> Tensor:
        """Return what is summed per row in eval mode, (..., outputs): products of signs, of several bases all of them.

        Those are added up in the order of BINARY_SUM, with one rounding each: input by input, weight by weight.
        """
        if self.binarizer is None or self.binarizer.bases == 1:
            return self.multiplied(*self.exact_operands(x))
        frozen = self.binarizer.frozen(self.weight)
        row = x[:1].numel() // self.inputs * self.outputs
        return torch.cat([self._added(some, frozen) for some in x.split(max(_FITS // max(row, 1), 1))])

    def _added(self, x: Tensor, frozen: Frozen) -> Tensor:
        """Return the products of all bases, added up."""
        total: Tensor | None = None
        for threshold, scales in zip(frozen.threshold, frozen.scale.tolist(), strict=True):
            seen = signs(x - threshold)
            for weights, scale in zip(frozen.weights, scales, strict=True):
                products = self.multiplied(seen, weights)
                wide = torch.zeros_like(products, dtype=torch.float64) if total is None else total.double()
                total = wide.add_(products, alpha=scale).to(x.dtype)  # a product of float32 is exact in float64
        assert total is not None  # a binarizer has a base
        return total

    def multiplied(self, seen: Tensor, weight: Tensor) -> Tensor:
        """Return the products (.., outputs) of inputs (.., inputs) and weights (outputs, inputs)."""
        return F.linear(seen, weight)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return (a, b), each (outputs,): scale (that of one base), bias and batch norm in eval mode as d a + b."""
        one = self.weight.new_ones(self.outputs)
        scaled = self.binarizer is not None and self.binarizer.bases == 1 and self.weights_binary
        a = one * self.binarizer.scale(self.weight) if scaled else one
        constant = self.constant()
        b = one * 0 if constant is None else constant
        if self.norm is None:
            return a, b
        gain = self.norm.weight * (self.norm.running_var + self.norm.eps).rsqrt()
        return a * gain, (b - self.norm.running_mean) * gain + self.norm.bias

    def folded_weight(self) -> tuple[Tensor, Tensor]:
        """Return (weight, bias) of a real-valued layer with its batch norm folded in, as the program has them."""
        a, b = self.folded()
        return (self.weight.double() * a.double()[:, None]).to(self.weight.dtype), b
