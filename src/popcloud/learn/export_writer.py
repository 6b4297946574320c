"""What is written while the graph is walked: values, steps, and which views of a result its readers want.

A reader wants a result as floats, as signs below its thresholds, or after a batch norm and activation of its own. The
step that makes the result writes as many of these views as it can, so that nobody passes over memory again; the rest
become steps of their own. Batch norms before signs become thresholds. Joins, and copies of parents' rows that are added
as a shortcut, are no steps until somebody needs them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn

from popcloud.errors import ExportError
from popcloud.learn.columns import Concat, Pool
from popcloud.learn.layers import Layer, RPReLU, Weighted
from popcloud.learn.norms import Sigmoid
from popcloud.learn.point_layers import Gather, GroupedLayer, NearestSigns, RowNorm, TernaryLayer
from popcloud.learn.sparse_layers import Join, NormAct, SparseConv
from popcloud.learn.thresholds import switch
from popcloud.packed.program import Activation, Array, Kind, Op, Rows, Step, Value

AnyNorm = NormAct | RowNorm


@dataclass(frozen=True)
class Tap:
    """What a value of the program is in PyTorch.

    node       the fx node whose result it is
    threshold  None: the result as floats; else its signs, -1 where result < threshold (channels,)
    """

    node: str
    threshold: Tensor | None = None


@dataclass(frozen=True)
class Signs:
    """A value of signs; of the channels where `flipped` (channels,) bool they are the other way round."""

    value: int
    flipped: Tensor


@dataclass(frozen=True)
class Affine:
    """The view act(x a + b), a and b (channels,); `node` is the one whose result it is, None of a part of one."""

    a: Tensor
    b: Tensor
    activation: Activation
    node: str | None = None

    def same(self, other: Affine) -> bool:
        """Return whether two are one view."""
        same = self.activation is other.activation
        return same and torch.equal(self.a, other.a) and torch.equal(self.b, other.b)

    def part(self, rows: slice) -> Affine:
        """Return the view of some of the channels."""
        return Affine(self.a[rows], self.b[rows], self.activation)


@dataclass
class Wanted:
    """The views in which a result is read: floats, the largest of them, thresholds of signs, affine maps."""

    floats: bool = False
    largest: bool = False
    thresholds: list[Tensor] = field(default_factory=list)
    affines: list[Affine] = field(default_factory=list)

    def add_signs(self, threshold: Tensor) -> None:
        """Note signs below a threshold, once."""
        if not any(torch.equal(threshold, known) for known in self.thresholds):
            self.thresholds.append(threshold)

    def add_affine(self, affine: Affine) -> None:
        """Note an affine map, once."""
        if not any(affine.same(known) for known in self.affines):
            self.affines.append(affine)


@dataclass
class Writer:
    """Collects values and steps while the graph is walked in order.

    graph     the network over our own layers
    inputs    channels of value 0
    rows      of value 0: POINT, or SITES of level 0
    """

    graph: fx.GraphModule
    inputs: int
    rows: Rows
    values: list[Value] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    taps: dict[int, Tap] = field(default_factory=dict)
    floats: dict[str, int] = field(default_factory=dict)  # node -> its value as floats
    bits: dict[str, list[tuple[Tensor, Signs]]] = field(default_factory=dict)  # node -> (threshold, its signs)
    affines: dict[str, list[tuple[Affine, int]]] = field(default_factory=dict)  # node -> (view, its value)
    largest: dict[str, int] = field(default_factory=dict)  # node -> the largest of its floats over all points
    alias: dict[str, str] = field(default_factory=dict)  # node that changes nothing in eval mode -> its input
    norms: dict[str, tuple[str, AnyNorm]] = field(default_factory=dict)  # node of a batch norm -> what it reads
    joins: dict[str, tuple[str, ...]] = field(default_factory=dict)  # node -> the nodes side by side in it
    gathers: dict[str, tuple[str, int]] = field(default_factory=dict)  # node of gathered rows -> its source, the index
    indices: dict[str, int] = field(default_factory=dict)  # node of a search -> its value
    ratios: dict[int, float] = field(default_factory=dict)  # level of sampled points -> how many of the one before
    copies: dict[str, tuple[str, int]] = field(default_factory=dict)  # node of an unpooling -> its source, its level
    widths: dict[str, int] = field(init=False)  # node -> its channels

    def __post_init__(self) -> None:
        self.widths = _widths(self.graph, self.inputs)

    # -- values and steps --------------------------------------------------------------------------------------

    def value(
        self, name: str, kind: Kind, rows: Rows, channels: int, tap: Tap | None, level: int = 0, each: int = 1
    ) -> int:
        """Append a value under a name that is made unique."""
        taken = {value.name for value in self.values}
        others = (f"{name}.{i}" for i in itertools.count(2))  # a layer that is called twice, a second threshold
        name = next(unique for unique in itertools.chain([name], others) if unique not in taken)
        self.values.append(Value(name, kind, rows, channels, level, each))
        if tap is not None:
            self.taps[len(self.values) - 1] = tap
        return len(self.values) - 1

    def beside(self, index: int, name: str, kind: Kind, channels: int, tap: Tap | None, over: str | None = None) -> int:
        """Append a value with the rows of another one, or of a pool of it `over` the "neighbours" or the "cloud"."""
        if over == "cloud":
            return self.value(name, kind, Rows.CLOUD, channels, tap)
        there = self.values[index]
        return self.value(name, kind, there.rows, channels, tap, there.level, 1 if over else there.each)

    def step(
        self, op: Op, inputs: tuple[int, ...], output: int, act: Activation | None = None, /, **blobs: Array
    ) -> int:
        """Append a step of one output and return that."""
        self.steps.append(Step(op, inputs, output, act or Activation.NONE, blobs))
        return output

    def source(self, node: fx.Node, argument: int = 0) -> str:
        """Return the name of the node that gives an argument."""
        name = cast(fx.Node, node.args[argument]).name
        return self.alias.get(name, name)

    def answer(self, node: fx.Node) -> None:
        """Check that the network returns what its last layer gives: that is a program's answer."""
        result = node.args[0]
        name = self.alias.get(result.name, result.name) if isinstance(result, fx.Node) else None
        if name is None or not self.steps or self.floats.get(name) != self.steps[-1].output:
            raise ExportError(f"the network must return what its last layer gives, and that alone; found {result}")

    # -- views, made now if nobody wrote them before -----------------------------------------------------------

    def float_of(self, name: str) -> int:
        """Return a node's result as floats."""
        if name not in self.floats:
            if name in self.norms:
                source, norm = self.norms[name]
                self.floats[name] = self.affine_of(source, affine_of(norm, name))
            elif name in self.joins:
                self.floats[name] = self._side_by_side(
                    name, [self.float_of(part) for part in self.joins[name]], Tap(name)
                )
            elif name in self.gathers:
                source, index = self.gathers[name]
                self.floats[name] = self.gathered(self.float_of(source), index, name, Tap(name))
            else:
                source, level = self.copies[name]
                x = self.float_of(source)
                channels = self.values[x].channels
                value = self.value(name, Kind.FLOAT, self.rows, channels, Tap(name), level)
                self.floats[name] = self.step(Op.UNPOOL, (x,), value)
        return self.floats[name]

    def gathered(self, x: int, index: int, name: str, tap: Tap | None) -> int:
        """Append the rows of x that an index names."""
        there, rows = self.values[x], self.values[index]
        value = self.value(name, there.kind, Rows.POINT, there.channels, tap, rows.level, rows.channels)
        return self.step(Op.GATHER, (x, index), value)

    def shortcut_of(self, name: str) -> int:
        """Return a node's result as floats, or the coarser value whose rows it copies."""
        return self.float_of(self.copies[name][0] if name in self.copies else name)

    def affine_of(self, name: str, wanted: Affine) -> int:
        """Return a node's result after an affine map and activation."""
        for known, value in self.affines.get(name, []):
            if wanted.same(known):
                return value
        tap = None if wanted.node is None else Tap(wanted.node)
        if name in self.joins:
            parts = zip(self.joins[name], self._columns(name), strict=True)
            values = [self.affine_of(part, wanted.part(columns)) for part, columns in parts]
            return self._side_by_side(wanted.node or f"{name}.affine", values, tap)
        x = self.float_of(name)
        value = self.beside(x, wanted.node or f"{name}.affine", Kind.FLOAT, self.values[x].channels, tap)
        self.step(Op.AFFINE, (x,), value, wanted.activation, scale=array(wanted.a), bias=array(wanted.b))
        self.affines.setdefault(name, []).append((wanted, value))
        return value

    def bits_of(self, name: str, threshold: Tensor) -> Signs:
        """Return a node's signs below `threshold` (channels,)."""
        for known, found in self.bits.get(name, []):
            if torch.equal(known, threshold):
                return found
        found = self._new_bits(name, threshold)
        self.bits.setdefault(name, []).append((threshold, found))
        return found

    def _new_bits(self, name: str, threshold: Tensor) -> Signs:
        if name in self.norms:
            read, norm = self.norms[name]
            turn, flipped = switch(norm, threshold)
            found = self.bits_of(read, turn)
            return Signs(found.value, found.flipped ^ flipped)
        if name in self.joins:
            columns = zip(self.joins[name], self._columns(name), strict=True)
            parts = [self.bits_of(part, threshold[rows]) for part, rows in columns]
            flipped = torch.cat([part.flipped for part in parts])
            tap = None if bool(flipped.any()) else Tap(name, threshold)
            return Signs(self._side_by_side(f"{name}.bits", [part.value for part in parts], tap), flipped)
        if name in self.gathers:
            read, index = self.gathers[name]
            found = self.bits_of(read, threshold)
            tap = None if bool(found.flipped.any()) else Tap(name, threshold)
            return Signs(self.gathered(found.value, index, f"{name}.bits", tap), found.flipped)
        source = self.float_of(name)
        label = f"{self.values[source].name}.bits"
        value = self.beside(source, label, Kind.BITS, len(threshold), Tap(name, threshold))
        self.step(Op.BINARIZE, (source,), value, threshold=array(threshold))
        return plain(value, len(threshold))

    def _columns(self, name: str) -> list[slice]:
        """Return which channels of a join come from each of its parts."""
        ends = list(itertools.accumulate(self.widths[part] for part in self.joins[name]))
        return [slice(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]

    def _side_by_side(self, name: str, parts: list[int], tap: Tap | None) -> int:
        while len(parts) > 4:  # as many as a step takes
            parts = [self._side_by_side(f"{name}.part", parts[:4], None), *parts[4:]]
        longest = max(parts, key=lambda part: (self.values[part].rows is not Rows.CLOUD, self.values[part].each))
        channels = sum(self.values[part].channels for part in parts)
        value = self.beside(longest, name, self.values[longest].kind, channels, tap)
        return self.step(Op.CONCAT, tuple(parts), value)

    # -- readers -----------------------------------------------------------------------------------------------

    def wanted(self, node: fx.Node) -> Wanted:
        """Return the views in which the readers of a node's result want it."""
        found = Wanted()
        self._collect(node, slice(None), True, found)
        return found

    def _collect(self, node: fx.Node, part: slice, whole: bool, found: Wanted) -> None:
        """Add what the readers of `node` want of its channels `part`."""
        for user in self._users(node):
            module = module_of(self.graph, user)
            if isinstance(module, AnyNorm) and not curved(module):
                self._collect_norm(user, module, part, whole, found)
            elif isinstance(module, Join | Concat):
                self._collect_join(node, user, found)
            elif isinstance(module, Gather) and user.args[0] is node:
                self._collect(user, part, whole, found)
            elif isinstance(module, NearestSigns):
                found.add_signs(torch.zeros(self.widths[node.name]))
            elif is_binary(module) and self._root(user.args[0]) is node:
                for threshold in thresholds_of(module):
                    found.add_signs(threshold[part])
                found.floats |= any(self._root(argument) is node for argument in user.args[1:])  # as a shortcut
                found.floats |= module.binarizer.reads_floats and not isinstance(module, SparseConv | GroupedLayer)
                found.floats |= isinstance(module, TernaryLayer)
            elif pools_sums(module, module_of(self.graph, node)):
                found.largest = True
            else:
                found.floats = True

    def _collect_norm(self, node: fx.Node, norm: AnyNorm, part: slice, whole: bool, found: Wanted) -> None:
        for user in self._users(node):
            layer = module_of(self.graph, user)
            if is_binary(layer) and self._root(user.args[0]) is node:
                for threshold in thresholds_of(layer):
                    found.add_signs(switch(norm, threshold)[0][part])
            else:
                view = affine_of(norm, node.name)
                found.add_affine(view if whole else view.part(part))

    def _collect_join(self, node: fx.Node, join: fx.Node, found: Wanted) -> None:
        begin = 0
        for argument in join.args:
            end = begin + self.widths[cast(fx.Node, argument).name]
            if argument is node:
                self._collect(join, slice(begin, end), False, found)
            begin = end

    def _users(self, node: fx.Node) -> list[fx.Node]:
        found = []
        for user in node.users:
            passes = isinstance(module_of(self.graph, user), nn.Dropout)
            found += self._users(user) if passes else [user]
        return found

    def _root(self, node: object) -> object:
        """Return the node that an argument comes from, through those that change nothing."""
        while isinstance(node, fx.Node) and isinstance(module_of(self.graph, node), nn.Dropout):
            node = node.args[0]
        return node


def _widths(graph: fx.GraphModule, inputs: int) -> dict[str, int]:
    """Return how many channels each node's result has; of modules without a number of their own, their input's."""
    widths: dict[str, int] = {}
    for node in graph.graph.nodes:
        module = module_of(graph, node)
        own = getattr(module, "outputs", getattr(module, "channels", None))
        read = [
            widths[argument.name] for argument in node.args if isinstance(argument, fx.Node) and node.op != "output"
        ]
        widths[node.name] = own or (sum(read) if isinstance(module, Join | Concat) else next(iter(read), inputs))
    return widths


def module_of(graph: fx.GraphModule, node: fx.Node) -> Any:
    """Return the layer that a node calls, or None."""
    return graph.get_submodule(str(node.target)) if node.op == "call_module" else None


def pools_sums(pool: object, layer: Any) -> bool:
    """Return whether a pool's largest rows are those of the layer's largest sums of signs, so that it finds them."""
    if type(pool) is not Pool or pool.takes_mean or not (isinstance(layer, Layer) and is_binary(layer)):
        return False
    straight = isinstance(layer.activation, nn.Identity) and not layer.gates
    return straight and layer.binarizer.bases == 1 and not layer.binarizer.scales_rows


def is_binary(module: object) -> bool:
    """Return whether a layer reads signs."""
    return isinstance(module, Weighted) and module.binarizer is not None


def thresholds_of(layer: Weighted) -> list[Tensor]:
    """Return the thresholds (channels,) below which a binary layer's inputs are -1, of each base."""
    found: list[Tensor] = layer.binarizer.thresholds(layer.weight)
    return [one.repeat(layer.groups) for one in found] if isinstance(layer, GroupedLayer) else found


def curved(module: object) -> bool:
    """Return whether a module's activation has constants of its own, so that it needs a step of its own."""
    return isinstance(getattr(module, "activation", None), RPReLU)


def affine_of(norm: AnyNorm, node: str) -> Affine:
    """Return a batch norm with activation as a view of what it reads."""
    return Affine(*norm.norm.folded(), activation_of(norm.activation), node)


def plain(value: int, channels: int) -> Signs:
    """Return a value of signs, none of them flipped."""
    return Signs(value, torch.zeros(channels, dtype=torch.bool))


def activation_of(module: nn.Module | None) -> Activation:
    """Return the activation of a module that has no constants; of others NONE."""
    return {nn.ReLU: Activation.RELU, nn.Hardtanh: Activation.HARDTANH, Sigmoid: Activation.SIGMOID}.get(
        type(module), Activation.NONE
    )


def array(tensor: Tensor) -> Array:
    """Return a tensor as the file keeps it."""
    return np.ascontiguousarray(tensor.detach().float().numpy())


def as_half(weight: Array) -> Array:
    """Return an array in float16 if that holds all its numbers exactly, else as it is."""
    with np.errstate(over="ignore"):
        half = weight.astype(np.float16)
    return half if np.array_equal(half, weight) else weight


def short(tensor: Tensor) -> Array:
    """Return the constants per channel, or one where all are the same."""
    values = array(tensor)
    return values[:1].copy() if (values == values[0]).all() else values
