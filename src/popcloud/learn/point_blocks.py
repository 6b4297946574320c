"""Blocks that several networks on neighbourhoods share; a tracer looks into them."""

from __future__ import annotations

from torch import Tensor, nn

from popcloud.learn.layers import Layer, activation_of
from popcloud.learn.point_layers import GatherSubtract, Negated, RowNorm, Subtract, real


class FirstLayer(nn.Module):
    """The first layer of each group: (features beside positions relative to the centre) -> linear -> norm -> act.

    linear(x_j, p_j - c_i) = W x_j + V p_j - V c_i: what a neighbour gives is the same in all of its groups, so it is
    computed once per point and then gathered. W is real-valued or binary (with a batch norm of its own, so that its
    sums have the size of positions), V is real-valued.

    inputs  channels of the features; 0: positions alone
    radius  of the groups: V starts as if positions were divided by it
    """

    def __init__(self, inputs: int, outputs: int, *, binarizer: str, radius: float):
        super().__init__()
        self.features = Layer(inputs, outputs, binarizer=binarizer, ordered=True) if inputs else None
        self.position = real(3, outputs, norm=False, bias=False)
        self.position.weight.data /= -radius if inputs else radius
        self.centre = Negated(self.position) if inputs else None
        self.subtract, self.relative = Subtract(), GatherSubtract()
        self.act = RowNorm(outputs, activation=activation_of(binarizer))

    def forward(self, x: Tensor | None, xyz: Tensor, near: Tensor | None, centres: Tensor) -> Tensor:
        """(B, n, C) or None, (B, n, 3), (B, P, k), (B, P, 3) -> (B, P, k, outputs).

        Without neighbours all points are one group around the origin: (B, n, outputs).
        """
        rows = self.position(xyz)
        if self.features is not None:
            rows = self.subtract(self.features(x), rows)
        if near is None:
            return self.act(rows)
        shift = self.position(centres) if self.centre is None else self.centre(centres)
        return self.act(self.relative(rows, near, shift))
