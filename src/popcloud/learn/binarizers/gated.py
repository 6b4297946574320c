"""Real-to-Binary: signs whose products are scaled by what the real-valued inputs say."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from popcloud.learn import ordered
from popcloud.learn.binarizers.base import Binarizer


class RealToBinary(Binarizer):
    """Signs of both, a learned scale per output, and a gate per cloud and output (Martinez et al. 2020, section 4.3).

    gate = sigmoid(W2 relu(W1 m)), m the mean of the inputs over all points of a cloud: real-valued, and before the
    signs lose them. PReLU follows. What else the paper does (teachers, stages) is not a layer's.

    reduction  how many times fewer hidden units than inputs the gate has (the paper's 8)
    """

    activation = "prelu"
    gates = True
    not_sparse = "its gate is one per cloud, and a sparse convolution has none"

    def __init__(self, inputs: int, outputs: int, *, reduction: int = 8):
        super().__init__(inputs, outputs)
        self.alpha = nn.Parameter(torch.ones(outputs))
        self.squeeze = nn.Linear(inputs, max(inputs // reduction, 1))
        self.excite = nn.Linear(self.squeeze.out_features, outputs)

    def scale(self, weight: Tensor) -> Tensor:
        """Return the learned scales."""
        return self.alpha

    def gate(self, x: Tensor) -> Tensor:
        """Return the gates (B, 1 .., outputs); in eval mode with a program's bits, and no gradient."""
        rows = x.reshape(len(x), -1, self.inputs)
        if self.training:
            gates = self.excite(self.squeeze(rows.mean(1)).relu()).sigmoid()
        else:
            hidden = ordered.linear(ordered.mean(rows), self.squeeze.weight, self.squeeze.bias).relu()
            gates = ordered.sigmoid(ordered.linear(hidden, self.excite.weight, self.excite.bias))
        return gates.view(len(x), *[1] * (x.ndim - 2), self.outputs)

    @torch.no_grad()
    def initialise(self, x: Tensor, weight: Tensor) -> None:
        """Begin with the mean magnitudes."""
        self.alpha.copy_(weight.view(self.outputs, -1).abs().mean(1))
