"""What a binarizer is to the layers and to export.

In eval mode every binarizer is what `frozen` returns (thresholds of the inputs, signs of the weights, factors), and
that is all that export ever sees of it; but for what depends on the inputs as floats, `row_scale` and `gate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from popcloud.learn.binarizers.signs import SteSign


@dataclass(frozen=True)
class Frozen:
    """What a binarizer is once training is over.

    threshold  (inputs,) float32: an input is -1 where x < threshold
    weights    (outputs, inputs) float32, each -1 or +1
    scale      (outputs,) or (1,) float32, multiplies the sum of signs

    Of N `bases` these are (N, inputs), (N, outputs, inputs) and (N, N): the sum is over n and m of scale[n, m] times
    the product of signs n of the inputs and m of the weights.
    """

    threshold: Tensor
    weights: Tensor
    scale: Tensor


class Binarizer(nn.Module):
    """One binary layer's rule; abstract. Latent weights are (outputs, inputs).

    activation   what follows the layer's batch norm: "hardtanh", "prelu" or "rprelu"
    bias         whether a layer without batch norm has a bias
    bases        how many signs stand for an input, and how many for a weight
    scales_rows  whether the output is also multiplied by a number per row that depends on the inputs
    gates        whether the output is also multiplied by a number per cloud and output that depends on the inputs
    moments      whether its latent weights need an optimiser that keeps second moments
    not_sparse   why it can't be used in convolutions over active sites; "" if it can
    """

    activation = "hardtanh"
    bias = False
    bases = 1
    scales_rows = False
    gates = False
    moments = False
    not_sparse = ""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.inputs, self.outputs = inputs, outputs

    @property
    def reads_floats(self) -> bool:
        """Return whether eval mode needs the inputs themselves, beside their signs."""
        return self.scales_rows or self.gates

    def inputs_signs(self, x: Tensor) -> Tensor:
        """Return x (..., inputs) as -1 and +1, with this binarizer's gradient; of N bases (N, ..., inputs)."""
        return SteSign.apply(x)

    def weight_signs(self, weight: Tensor) -> Tensor:
        """Return the latent weights as -1 and +1, with this binarizer's gradient; of N bases (N, outputs, inputs)."""
        return SteSign.apply(weight)

    def trained_inputs(self, x: Tensor) -> Tensor:
        """Return what training multiplies by the weights: signs of x (.., inputs), perhaps times factors."""
        seen = self.inputs_signs(x)
        return seen * self.row_scale(x) if self.scales_rows else seen

    def trained_weights(self, weight: Tensor) -> Tensor:
        """Return what training multiplies the inputs by: signs times `scale`, (outputs, inputs)."""
        return self.weight_signs(weight) * self.scale(weight)[:, None]

    def scale(self, weight: Tensor) -> Tensor:
        """Return the factor of the sum of signs: (outputs,) or (1,); of N bases (N, N)."""
        return weight.new_ones(1)

    def offset(self, weight: Tensor) -> Tensor | None:
        """Return (outputs,), what is added to the scaled sum of signs, or None. A batch norm takes it away again."""
        return None

    def row_scale(self, x: Tensor) -> Tensor:
        """Return the factor per row, (..., 1), where `scales_rows`; no gradient."""
        raise TypeError(f"{type(self).__name__} has no factor per row")

    def gate(self, x: Tensor) -> Tensor:
        """Return the factor per cloud, (B, 1 .., outputs) of x (B, .., inputs), above zero, where it `gates`."""
        raise TypeError(f"{type(self).__name__} has no factor per cloud")

    def threshold(self, weight: Tensor) -> Tensor:
        """Return (inputs,): below it an input is -1; of N bases (N, inputs)."""
        return weight.new_zeros(self.inputs)

    def thresholds(self, weight: Tensor) -> list[Tensor]:
        """Return the thresholds of each base, (inputs,)."""
        return list(self.threshold(weight).view(-1, self.inputs))

    def unsigned(self, weight: Tensor) -> Tensor:
        """Return latent weights as they meet the inputs' signs, in a stage in which they are not signs yet."""
        return weight

    def initialise(self, x: Tensor, weight: Tensor) -> None:
        """Set parameters that depend on data by the first real batch x (..., inputs); before the optimiser is built."""

    def schedule(self, progress: float) -> None:
        """Set what changes over training; progress runs from 0 to 1."""

    def after_step(self, weight: Tensor, state: Mapping[str, Any]) -> None:
        """Mend the latent weights after an optimiser step, in place; `state` is what the optimiser keeps of them."""

    @torch.no_grad()
    def frozen(self, weight: Tensor) -> Frozen:
        """Return what this layer computes with in eval mode."""
        return Frozen(self.threshold(weight), self.weight_signs(weight), self.scale(weight).detach())
