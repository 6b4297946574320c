"""A trained network -> a Program: torch.fx reads the graph, one table turns layers into steps.

Where batch norm, activation and the next layer's binarizer follow a sum of signs, the three become one integer per
channel, found by bisection against the layer itself (`tail`) over the values that its accumulator can take. No
algebra, so no rounding that could differ: the sign turns exactly where it turns in PyTorch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn

from popcloud.errors import ExportError
from popcloud.learn.layers import Layer, PooledLayer, RPReLU, Transform, Weighted
from popcloud.packed.bits import pack_minus, pack_weights
from popcloud.packed.program import Activation, Array, Kind, Op, Program, Rows, Step, Value

AnyLayer = Layer | PooledLayer


@dataclass(frozen=True)
class Tap:
    """What a value of the program is in PyTorch.

    node       the fx node whose result it is
    threshold  None: the result as floats; else its signs, -1 where result < threshold (channels,)
    """

    node: str
    threshold: Tensor | None = None


@dataclass(frozen=True)
class Exported:
    """A program, and for each value by index what it is in PyTorch, where PyTorch has it at all."""

    program: Program
    taps: dict[int, Tap]
    graph: fx.GraphModule


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, tuple(EMIT)) or super().is_leaf_module(
            m, module_qualified_name
        )  # so errors name the module


def trace(model: nn.Module) -> fx.GraphModule:
    """Return the network's graph over our own layers."""
    return fx.GraphModule(model, _Tracer().trace(model))


@torch.no_grad()
def export(
    model: nn.Module,
    *,
    points: int,
    normalize: str,
    classes: Sequence[str],
    meta: dict[str, str] | None = None,
) -> Exported:
    """Return the network as a Program; puts it in eval mode, which `observe` needs as well.

    Raises ExportError naming the layer, where a layer can't be written without changing what the network answers.
    """
    model = model.eval()
    for name, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise ExportError(f"{name}: expected finite numbers, found NaN or infinity; export an earlier checkpoint")
    graph = trace(model)
    writer = _Writer(graph)
    for node in graph.graph.nodes:
        writer.write(node)
    program = Program(tuple(writer.values), tuple(writer.steps), points, normalize, tuple(classes), dict(meta or {}))
    return Exported(program, writer.taps, graph)


class _Observer(fx.Interpreter):
    """Keeps the result of every node."""

    def __init__(self, graph: fx.GraphModule):
        super().__init__(graph)
        self.seen: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.seen[n.name] = result
        return result


@torch.no_grad()
def observe(exported: Exported, xyz: Tensor | Array) -> dict[int, Array]:
    """Run PyTorch on one cloud (n, 3); return its values by the program's indices, signs packed as bits."""
    observer = _Observer(exported.graph)
    observer.run(torch.as_tensor(xyz)[None])
    found = {}
    for index, tap in exported.taps.items():
        result = observer.seen[tap.node].reshape(-1, exported.program.values[index].channels)
        if tap.threshold is None:
            found[index] = result.numpy()
        else:
            found[index] = pack_minus((result < tap.threshold).numpy())
    return found


@dataclass
class _Writer:
    """Collects values and steps while the graph is walked in order."""

    graph: fx.GraphModule
    values: list[Value] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    taps: dict[int, Tap] = field(default_factory=dict)
    floats: dict[str, int] = field(default_factory=dict)  # node -> its value as floats
    bits: dict[str, list[tuple[Tensor, int]]] = field(default_factory=dict)  # node -> (threshold, its value as bits)
    alias: dict[str, str] = field(default_factory=dict)  # node that changes nothing in eval mode -> its input

    def write(self, node: fx.Node) -> None:
        """Write the steps of one node."""
        if node.op == "placeholder":
            self.floats[node.name] = self._value(node.name, Kind.FLOAT, Rows.POINT, 3, Tap(node.name))
        elif node.op == "call_module":
            module = self.graph.get_submodule(str(node.target))
            emit = EMIT.get(type(module))
            if emit is None:
                raise ExportError(
                    f"{node.target}: {type(module).__name__} has no step; add it to the table in export.py"
                )
            emit(self, node, module)
        elif node.op == "output":
            self.answer(node)
        else:
            what = getattr(node.target, "__name__", node.target)
            raise ExportError(f"{node.name}: {node.op} {what} has no step; use the layers of popcloud.learn")

    def answer(self, node: fx.Node) -> None:
        """Check that the network returns what its last layer gives: that is a program's answer."""
        result = node.args[0]
        name = self.alias.get(result.name, result.name) if isinstance(result, fx.Node) else None
        if name is None or not self.steps or self.floats.get(name) != self.steps[-1].output:
            raise ExportError(f"the network must return what its last layer gives, and that alone; found {result}")

    # -- values ------------------------------------------------------------------------------------------------

    def _value(self, name: str, kind: Kind, rows: Rows, channels: int, tap: Tap | None) -> int:
        taken = {value.name for value in self.values}
        others = (f"{name}.{i}" for i in itertools.count(2))  # a layer that is called twice, a second threshold
        name = next(unique for unique in itertools.chain([name], others) if unique not in taken)
        self.values.append(Value(name, kind, rows, channels))
        if tap is not None:
            self.taps[len(self.values) - 1] = tap
        return len(self.values) - 1

    def _step(self, op: Op, inputs: tuple[int, ...], output: int, act: Activation, **blobs: Array) -> int:
        self.steps.append(Step(op, inputs, output, act, blobs))
        return output

    def source(self, node: fx.Node, argument: int = 0) -> str:
        """Return the name of the node that gives an argument."""
        name = cast(fx.Node, node.args[argument]).name
        return self.alias.get(name, name)

    def float_of(self, name: str) -> int:
        """Return a node's result as floats."""
        return self.floats[name]

    def bits_of(self, name: str, threshold: Tensor) -> int:
        """Return a node's signs below `threshold`, written now if nobody wrote them before."""
        for known, value in self.bits.get(name, []):
            if torch.equal(known, threshold):
                return value
        source = self.values[self.floats[name]]
        value = self._value(f"{source.name}.bits", Kind.BITS, source.rows, source.channels, Tap(name, threshold))
        self._step(Op.BINARIZE, (self.floats[name],), value, Activation.NONE, threshold=_array(threshold))
        self.bits.setdefault(name, []).append((threshold, value))
        return value

    def readers(self, node: fx.Node) -> tuple[list[Tensor], bool]:
        """Return the different thresholds under which a node's signs are read, and whether its floats are."""
        thresholds: list[Tensor] = []
        floats = False
        for user in self._users(node):
            module = self.graph.get_submodule(str(user.target)) if user.op == "call_module" else None
            if not isinstance(module, Weighted) or module.binarizer is None:
                floats = True
                continue
            floats |= module.binarizer.scales_rows
            threshold = module.binarizer.threshold(module.weight)
            if not any(torch.equal(threshold, known) for known in thresholds):
                thresholds.append(threshold)
        return thresholds, floats

    def _users(self, node: fx.Node) -> list[fx.Node]:
        found = []
        for user in node.users:
            passes = user.op == "call_module" and isinstance(self.graph.get_submodule(str(user.target)), nn.Dropout)
            found += self._users(user) if passes else [user]
        return found

    # -- layers ------------------------------------------------------------------------------------------------

    def affine(
        self, op: Op, node: fx.Node, inputs: tuple[int, ...], rows: Rows, layer: AnyLayer, **blobs: Array
    ) -> int:
        """Write a step that ends in act(fma(..)); RPReLU, which needs constants of its own, becomes a second step."""
        module = layer.activation if isinstance(layer, Layer) else None
        plain = not isinstance(module, RPReLU)
        tap = Tap(node.name)
        name = str(node.target)
        act = _activation(module) if plain else Activation.NONE
        value = self._value(name if plain else f"{name}.sum", Kind.FLOAT, rows, layer.outputs, tap if plain else None)
        self._step(op, inputs, value, act, **blobs)
        if isinstance(module, RPReLU):
            out = self._value(name, Kind.FLOAT, rows, layer.outputs, tap)
            shift, slope, offset = _array(module.shift), _array(module.slope), _array(module.offset)
            value = self._step(Op.RPRELU, (value,), out, Activation.NONE, shift=shift, slope=slope, offset=offset)
        return value

    def real_layer(self, node: fx.Node, layer: AnyLayer) -> None:
        """linear and batch norm folded into one LINEAR; a pool after it is a step of its own."""
        a, b = layer.folded()
        source = self.float_of(self.source(node))
        weight = _array((layer.weight.double() * a.double()[:, None]).float().T.contiguous())
        if isinstance(layer, Layer):
            rows = self.values[source].rows
            self.floats[node.name] = self.affine(Op.LINEAR, node, (source,), rows, layer, weight=weight, bias=_array(b))
            return
        name = str(node.target)
        product = self._value(f"{name}.rows", Kind.FLOAT, Rows.POINT, layer.outputs, None)
        self._step(Op.LINEAR, (source,), product, Activation.NONE, weight=weight, bias=_array(b + layer.delta))
        self._pool(node, layer, product)

    def _pool(self, node: fx.Node, layer: PooledLayer, product: int) -> None:
        op = Op.POOL_MEAN if layer.takes_mean else Op.POOL_MAX
        value = self._value(str(node.target), Kind.FLOAT, Rows.CLOUD, layer.outputs, Tap(node.name))
        self.floats[node.name] = self._step(op, (product,), value, Activation.NONE)

    def binary_layer(self, node: fx.Node, layer: AnyLayer) -> None:
        """A binary layer: bits out where only signs are read, floats where floats are."""
        source, frozen = self.source(node), layer.binarizer.frozen(layer.weight)
        bits = self.bits_of(source, frozen.threshold)
        a, b = layer.folded()
        turned = torch.where(a < 0, -1.0, 1.0)  # weights of falling channels are negated, so that outputs always rise
        weight = pack_weights((frozen.weights * turned[:, None]).numpy())
        rows = self.values[bits].rows
        if layer.binarizer.scales_rows:
            self._row_scaled(node, layer, bits, source, weight, a.abs(), b)
            return
        op, bits_op = Op.BINARY_LINEAR, Op.BINARY_LINEAR_BITS
        if isinstance(layer, PooledLayer):
            rows, b = Rows.CLOUD, b + layer.delta
            op = Op.BINARY_MEAN if layer.takes_mean else Op.BINARY_MAX
            bits_op = Op.BINARY_MEAN_BITS if layer.takes_mean else Op.BINARY_MAX_BITS
        thresholds, floats = self.readers(node)
        folds = _rises(layer)
        if floats or not folds:
            self.floats[node.name] = self.affine(
                op, node, (bits,), rows, layer, weight=weight, scale=_short(a.abs()), bias=_short(b)
            )
        for threshold in thresholds if folds else []:
            value = self._value(f"{node.target}.bits", Kind.BITS, rows, layer.outputs, Tap(node.name, threshold))
            if bits_op is Op.BINARY_MEAN_BITS:
                turn = {"threshold": mean_threshold(layer, turned, threshold)}
            else:
                turn = {"limit": mismatch_limit(layer, turned, threshold)}
            self._step(bits_op, (bits,), value, Activation.NONE, weight=weight, **turn)
            self.bits.setdefault(node.name, []).append((threshold, value))

    def _row_scaled(
        self, node: fx.Node, layer: AnyLayer, bits: int, source: str, weight: Array, a: Tensor, b: Tensor
    ) -> None:
        rows = self.values[bits].rows
        factor = self._value(f"{node.target}.row_scale", Kind.FLOAT, rows, 1, None)
        self._step(Op.ROW_MEAN_ABS, (self.float_of(source),), factor, Activation.NONE)
        if isinstance(layer, Layer):
            blobs = {"weight": weight, "scale": _short(a), "bias": _short(b)}
            self.floats[node.name] = self.affine(Op.BINARY_LINEAR, node, (bits, factor), rows, layer, **blobs)
            return
        product = self._value(f"{node.target}.rows", Kind.FLOAT, Rows.POINT, layer.outputs, None)
        blobs = {"weight": weight, "scale": _short(a), "bias": _short(b + layer.delta)}
        self._step(Op.BINARY_LINEAR, (bits, factor), product, Activation.NONE, **blobs)
        self._pool(node, layer, product)

    def weighted(self, node: fx.Node, layer: AnyLayer) -> None:
        """Layer or PooledLayer."""
        if layer.binarizer is None:
            self.real_layer(node, layer)
        else:
            self.binary_layer(node, layer)

    def transform(self, node: fx.Node, _: nn.Module) -> None:
        """x times (identity + m)."""
        x, m = self.float_of(self.source(node, 0)), self.float_of(self.source(node, 1))
        value = self._value(str(node.target), Kind.FLOAT, Rows.POINT, self.values[x].channels, Tap(node.name))
        self.floats[node.name] = self._step(Op.TRANSFORM, (x, m), value, Activation.NONE)

    def nothing(self, node: fx.Node, _: nn.Module) -> None:
        """Dropout: nothing happens in eval mode."""
        self.alias[node.name] = self.source(node)


EMIT: dict[type[nn.Module], Callable[[_Writer, fx.Node, Any], None]] = {
    Layer: _Writer.weighted,
    PooledLayer: _Writer.weighted,
    Transform: _Writer.transform,
    nn.Dropout: _Writer.nothing,
}


def mismatch_limit(layer: AnyLayer, turned: Tensor, threshold: Tensor) -> Array:
    """Return (outputs,) int32: the largest count of mismatches whose output is not below `threshold`, -1 if none.

    turned  (outputs,) -1 where the packed weights are the negated ones
    The output falls as mismatches m rise (d = K - 2 m), so there is one switch at most, and bisection finds it.
    """
    good = torch.full((layer.outputs,), -1, dtype=torch.int64)
    bad = torch.full_like(good, layer.inputs + 1)
    while bool((bad - good > 1).any()):
        middle = (good + bad) // 2
        d = (layer.inputs - 2 * middle).float() * turned
        stays = (layer.tail(d) >= threshold) & (bad - good > 1)
        falls = ~stays & (bad - good > 1)
        good, bad = torch.where(stays, middle, good), torch.where(falls, middle, bad)
    return good.to(torch.int32).numpy()


def mean_threshold(layer: AnyLayer, turned: Tensor, threshold: Tensor) -> Array:
    """Return (outputs,) float32: the smallest mean d in [-K, K] whose output is not below `threshold`.

    -inf if all are, +inf if none is. Bisection over the float32 numbers themselves, in their order as integers.
    """
    bound = float(layer.inputs)
    low = _ordered(torch.full((layer.outputs,), -bound)) - 1
    high = _ordered(torch.full((layer.outputs,), bound)) + 1
    first, last = low.clone(), high.clone()
    while bool((high - low > 1).any()):
        middle = (low + high) // 2
        passes = layer.tail(_from_ordered(middle) * turned) >= threshold
        open_ = high - low > 1
        high, low = torch.where(passes & open_, middle, high), torch.where(~passes & open_, middle, low)
    found = _from_ordered(high.clamp(max=int(last[0]) - 1))
    found = torch.where(high == last, torch.inf, found)
    return torch.where(high == first + 1, -torch.inf, found).numpy()


def _ordered(x: Tensor) -> Tensor:
    """Return float32 numbers as int64 that sort the same; -0 and +0 both become 0."""
    raw = x.view(torch.int32).long()
    return torch.where(raw < 0, -(raw & 0x7FFFFFFF), raw)


def _from_ordered(i: Tensor) -> Tensor:
    """Invert `_ordered`."""
    magnitude = i.abs().to(torch.int32).view(torch.float32)
    return torch.where(i < 0, -magnitude, magnitude)


def _rises(layer: AnyLayer) -> bool:
    """Return whether the activation never falls, so that a threshold after it is one switch."""
    module = getattr(layer, "activation", None)
    return not isinstance(module, RPReLU) or bool((module.slope >= 0).all())


def _activation(module: nn.Module | None) -> Activation:
    return {nn.ReLU: Activation.RELU, nn.Hardtanh: Activation.HARDTANH}.get(type(module), Activation.NONE)


def _array(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.detach().float().numpy())


def _short(tensor: Tensor) -> Array:
    """Return the constants per channel, or one where all are the same."""
    values = _array(tensor)
    return values[:1].copy() if (values == values[0]).all() else values
