"""What the layers of a scene network are in each variant that BSC-Net compares, and the blocks made of them.

BSC-Net (Xu et al., CVPR 2023). Its supplementary says: the first layer, the classifiers and the 1x1 convolutions of
Conv and DeConv are real-valued; an SSC layer has a shortcut, the identity or a 1-bit 1x1 convolution where channels
differ. Inferred from the works it cites, not in the paper: the order of norm and activation, the binarizer, the pooled
shortcuts of Conv and DeConv, and a batch norm after the first layer of the binary networks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from popcloud.errors import RecipeError, unknown
from popcloud.learn.binarizers import REAL
from popcloud.learn.layers import Layer, activation_of
from popcloud.learn.maps import TensorPyramid
from popcloud.learn.shifted import ShiftedConv, hand_shifts
from popcloud.learn.sparse_layers import ChildMean, NormAct, SparseConv, Unpool

ORDERS = ("norm-last", "norm-first")
SHIFTS = ("none", "hand", "search")
BARE = ("bireal",)  # binarizers without activation after a shortcut: Bi-Real Net (2018, Fig. 3) keeps its sums real


@dataclass(frozen=True)
class Design:
    """A variant's choices.

    binarizer     of every layer but the first and the classifiers; "real" makes the host network
    order         "norm-last": sign, conv, norm, add, activation (ReActNet); "norm-first": norm, sign, conv,
                  activation, add (Real-to-Binary; the real-valued host: norm, ReLU, conv)
    shortcuts     around every binary convolution; without them there is no activation either (XNOR-Net: the next
                  sign is the nonlinearity) and no real-valued 1x1
    block_layers  SSC layers in an SSC block; 1 makes the published block counts the host's repetitions
    shifts        of the convolutions in SSC blocks: "none", plain convolutions; "hand"; "search", which leaves them at
                  zero until a search
    groups, candidates, separate_kernels   as in ShiftedConv; all widths are multiples of the first
    hand_rule     "faces" or "corners", as in hand_shifts
    """

    binarizer: str = "react"
    order: str = "norm-last"
    shortcuts: bool = True
    block_layers: int = 1
    shifts: str = "none"
    groups: int = 4
    candidates: str = "all"
    separate_kernels: bool = False
    hand_rule: str = "faces"

    def __post_init__(self) -> None:
        """Raise RecipeError for an unknown order or kind of shifts, or an empty block."""
        if self.order not in ORDERS:
            raise RecipeError(unknown("order", self.order, ORDERS))
        if self.shifts not in SHIFTS:
            raise RecipeError(unknown("kind of shifts", self.shifts, SHIFTS))
        if self.block_layers < 1:
            raise RecipeError(f"block_layers: expected at least 1, found {self.block_layers}")

    @property
    def real(self) -> bool:
        """Return whether this is the host network."""
        return self.binarizer == REAL

    @property
    def before(self) -> str | None:
        """Return the activation of the NormAct before each convolution, None where there is no NormAct."""
        if self.real:
            return "relu"
        return "none" if self.order == "norm-first" else None

    @property
    def size(self) -> int:
        """Return how wide a neighbourhood the network's pyramid must have: 3 or 5."""
        return 3 if self.shifts == "none" else 5

    def conv(self, inputs: int, outputs: int, kind: str, level: int) -> SparseConv:
        """Return a convolution with what comes after it; the submanifold ones are those of SSC blocks."""
        if kind != "same" or self.shifts == "none":
            return SparseConv(inputs, outputs, kind=kind, level=level, **self.after)
        return ShiftedConv(
            inputs,
            outputs,
            level=level,
            groups=self.groups,
            candidates=self.candidates,
            separate_kernels=self.separate_kernels,
            shifts=hand_shifts(self.hand_rule, self.groups) if self.shifts == "hand" else None,
            **self.after,
        )

    @property
    def after(self) -> dict[str, Any]:
        """Return how a convolution ends: arguments of SparseConv."""
        active = self.shortcuts and not self.real and self.binarizer not in BARE
        return {
            "binarizer": self.binarizer,
            "norm": self.before is None,
            "activation": activation_of(self.binarizer) if active else "none",
        }

    def stem(self, features: int, outputs: int) -> SparseConv:
        """Return the first layer, real-valued; norm-last networks have no other batch norm in front of a sign."""
        return SparseConv(features, outputs, kind="same", level=0, norm=self.before is None)

    def pointwise(self, inputs: int, outputs: int, *, norm: bool = True, bias: bool = True) -> Layer:
        """Return a real-valued 1x1: of binary networks in float16, for it would take most of the file's bytes."""
        return Layer(inputs, outputs, binarizer=REAL, ordered=True, halved=not self.real, norm=norm, bias=bias)

    def head(self, channels: int) -> NormAct | None:
        """Return what stands before a classifier: norm and ReLU, unless activations are normalised already."""
        return None if self.before is None else NormAct(channels, activation="relu")


VARIANTS = {
    "real": Design(REAL, "norm-first", shortcuts=False),
    "xnor": Design("xnor", "norm-first", shortcuts=False),
    "bireal": Design("bireal"),
    "react": Design(),
    "baseline": Design(),
    "manual": Design(shifts="hand"),
    "net": Design(shifts="search"),
}


def design_of(variant: str, binarizer: str | None, **options: Any) -> Design:
    """Return a variant's design; None for its own binarizer. Raises RecipeError for what does not go together."""
    if variant not in VARIANTS:
        raise RecipeError(unknown("variant", variant, VARIANTS))
    design = VARIANTS[variant]
    binarizer = binarizer or design.binarizer
    if design.real != (binarizer == REAL):
        raise RecipeError(f"variant {variant!r} goes with the binarizer {design.binarizer!r}, found {binarizer!r}")
    return replace(design, binarizer=binarizer, **options)


class SscLayer(nn.Module):
    """One submanifold convolution with norm, activation and shortcut: rows of a level -> rows of that level."""

    def __init__(self, design: Design, inputs: int, outputs: int, level: int):
        super().__init__()
        self.shortcut = design.shortcuts
        self.before = NormAct(inputs, activation=design.before) if design.before else None
        self.conv = design.conv(inputs, outputs, "same", level)
        bridges = design.shortcuts and inputs != outputs
        self.projection = Layer(inputs, outputs, binarizer=design.binarizer) if bridges else None

    def forward(self, x: Tensor, at: TensorPyramid) -> Tensor:
        """(sites, inputs), at -> (sites, outputs)."""
        seen = x if self.before is None else self.before(x)
        if not self.shortcut:
            return self.conv(seen, at)
        return self.conv(seen, x if self.projection is None else self.projection(x), at)


class SscBlocks(nn.Module):
    """`blocks` SSC blocks in a row, the first of which changes the channels."""

    def __init__(self, design: Design, inputs: int, outputs: int, level: int, blocks: int):
        super().__init__()
        widths = [inputs] + [outputs] * blocks * design.block_layers
        self.layers = nn.ModuleList(SscLayer(design, a, b, level) for a, b in pairwise(widths))

    def forward(self, x: Tensor, at: TensorPyramid) -> Tensor:
        """(sites, inputs), at -> (sites, outputs)."""
        for layer in self.layers:
            x = layer(x, at)
        return x


class Conv(nn.Module):
    """Down: 2^3 convolution with stride 2; the shortcut is the mean over active children, a real 1x1 and batch norm."""

    def __init__(self, design: Design, inputs: int, outputs: int, level: int):
        super().__init__()
        self.shortcut = design.shortcuts
        self.before = NormAct(inputs, activation=design.before) if design.before else None
        self.conv = design.conv(inputs, outputs, "down", level)
        self.pool = ChildMean(level)
        self.point = design.pointwise(inputs, outputs) if design.shortcuts else None

    def forward(self, x: Tensor, at: TensorPyramid) -> Tensor:
        """Rows of `level` -> rows of `level` + 1."""
        seen = x if self.before is None else self.before(x)
        return self.conv(seen, at) if self.point is None else self.conv(seen, self.point(self.pool(x, at)), at)


class DeConv(nn.Module):
    """Up: the inverse of Conv; the shortcut is a real 1x1 and batch norm of the parent's row, copied to its children.

    Copying after the 1x1 instead of before gives the same at a third of the price; only the batch norm's statistics,
    then over parents, not children, differ.
    """

    def __init__(self, design: Design, inputs: int, outputs: int, level: int):
        super().__init__()
        self.shortcut = design.shortcuts
        self.before = NormAct(inputs, activation=design.before) if design.before else None
        self.conv = design.conv(inputs, outputs, "up", level)
        self.point = design.pointwise(inputs, outputs) if design.shortcuts else None
        self.unpool = Unpool(level)

    def forward(self, x: Tensor, at: TensorPyramid) -> Tensor:
        """Rows of `level` + 1 -> rows of `level`."""
        seen = x if self.before is None else self.before(x)
        return self.conv(seen, at) if self.point is None else self.conv(seen, self.unpool(self.point(x), at), at)
