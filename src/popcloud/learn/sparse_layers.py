"""The layers of networks over active sites, real-valued and binary from the same classes.

Each is a module without parts that a tracer would look into, called with the rows of its level's sites and, last, with
the pyramid `at` of all maps. In eval mode a binary convolution computes with the exact integer sum of signs d over the
neighbours that are there (an absent one adds nothing) and `tail(d)`, a product and a sum, each rounded by itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from popcloud.errors import RecipeError, unknown
from popcloud.learn.binarizers import REAL, not_sparse
from popcloud.learn.layers import Norm, Weighted, make_activation
from popcloud.learn.maps import TensorMap, TensorPyramid
from popcloud.learn.sparse import child_mean, sparse_conv, unpool

OFFSETS = {"same": 27, "down": 8, "up": 8}  # kind of convolution: how many kernel offsets it has


class SparseConv(Weighted):
    """A convolution over active sites, then shortcut and activation: rows of one level -> rows of one level.

    kind        "same": submanifold, 3^3 offsets; "down": 2^3 with stride 2, to the next coarser level; "up": its
                inverse, back to the sites the finer level has
    level       the level it works on, the finer one of the two for down and up
    norm        with: act(norm(conv(x)) + shortcut), ReActNet's order; without: act(conv(x)) + shortcut, that of
                Real-to-Binary, whose batch norm comes before
    activation  as in `Layer`

    Latent weights are (outputs, K * inputs), offset k's in columns k * inputs onwards, so that a binarizer's scale is
    one per output. There is no bias. XNOR-Net's factor per row is left out: see docs/decisions/0018.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kind: str,
        level: int,
        binarizer: str = REAL,
        norm: bool = False,
        activation: str = "none",
    ):
        if kind not in OFFSETS:
            raise RecipeError(unknown("kind of convolution", kind, OFFSETS))
        super().__init__(inputs, outputs, binarizer=binarizer, norm=norm, kernel=OFFSETS[kind], bias=False)
        if why := not_sparse(binarizer):
            raise RecipeError(f"binarizer {why}")
        self.kind, self.level, self.offsets = kind, level, OFFSETS[kind]
        self.activation = make_activation(activation, outputs)

    @property
    def exact(self) -> bool:
        """Return whether eval mode computes with bare signs."""
        return True

    def forward(self, x: Tensor, *shortcut_at: Any) -> Tensor:
        """x (sites, inputs), perhaps a shortcut (sites, outputs), at -> (sites, outputs)."""
        *shortcut, at = shortcut_at
        if self.training or not self.exact:
            seen = x if self.binarizer is None else self.binarizer.inputs_signs(x)
            z = self.convolve(seen, self.trained_weight(), at)
            return self.joined(z if self.norm is None else self.norm(z), *shortcut)
        return self.tail(self.products(x, at), *shortcut)

    def products(self, x: Tensor, at: TensorPyramid) -> Tensor:
        """Return d, what `tail` takes in eval mode: the sums of signs over the neighbours that are there."""
        return self.convolve(*self.exact_operands(x), at)

    def tail(self, d: Tensor, *shortcut: Tensor) -> Tensor:
        """Return the output for the sums d (sites, outputs), in eval mode."""
        a, b = self.folded()
        return self.joined(d * a + b, *shortcut)

    def joined(self, z: Tensor, *shortcut: Tensor) -> Tensor:
        """Return z with shortcut and activation, in this layer's order."""
        if not shortcut:
            return self.activation(z)
        if self.norm is None:
            return self.activation(z) + shortcut[0]
        return self.activation(z + shortcut[0])

    def convolve(self, seen: Tensor, weight: Tensor, at: TensorPyramid) -> Tensor:
        """Return the bare convolution with weights (outputs, K * inputs)."""
        return sparse_conv(seen, self.kernel(weight), self.map(at))

    def kernel(self, weight: Tensor) -> Tensor:
        """Return weights (outputs, K * inputs) as (K, inputs, outputs)."""
        return weight.view(self.outputs, -1, self.inputs).permute(1, 2, 0)

    def map(self, at: TensorPyramid) -> TensorMap:
        """Return the pairs this convolution sums over."""
        if self.kind == "same":
            return at.window(self.level)
        at.neighbours(self.level + 1)  # says so where the pyramid is too low
        return at.down[self.level] if self.kind == "down" else at.down[self.level].transposed


class NormAct(nn.Module):
    """Batch norm and activation before a layer: that of the pre-activated host networks, and of norm-first order."""

    def __init__(self, channels: int, *, activation: str = "none"):
        super().__init__()
        self.channels = channels
        self.norm = Norm(channels)
        self.activation = make_activation(activation, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(sites, channels); in eval mode a product and a sum, each rounded by itself, then the activation."""
        if self.training:
            return self.activation(self.norm(x))
        a, b = self.norm.folded()
        return self.activation(x * a + b)


class ChildMean(nn.Module):
    """The mean over each coarser site's active children: rows of `level` -> rows of `level` + 1."""

    def __init__(self, level: int):
        super().__init__()
        self.level = level

    def forward(self, x: Tensor, at: TensorPyramid) -> Tensor:
        """(sites, C) -> (coarser sites, C)."""
        return child_mean(x, at, self.level)


class Unpool(nn.Module):
    """Copy each site's row to its active children: rows of `level` + 1 -> rows of `level`."""

    def __init__(self, level: int):
        super().__init__()
        self.level = level

    def forward(self, x: Tensor, at: TensorPyramid) -> Tensor:
        """(coarser sites, C) -> (sites, C)."""
        return unpool(x, at, self.level)


class Join(nn.Module):
    """The channels of two values of one level side by side."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(sites, C), (sites, D) -> (sites, C + D)."""
        return torch.cat([x, y], dim=1)


class Add(nn.Module):
    """The sum of two values of one level."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(sites, C) twice -> (sites, C)."""
        return x + y


def set_weights_binary(net: nn.Module, binary: bool) -> None:
    """Choose the stage: True, all binary layers use signs of weights; False, their weights as they are.

    Inputs are binary in both: the two-stage training of Real-to-Binary (Martinez et al. 2020, section 4.2).
    """
    for module in net.modules():
        if isinstance(module, Weighted):
            module.weights_binary = binary
