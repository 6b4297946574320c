"""Layers over active sites: their steps.

A convolution's step ends in what follows it: batch norm, shortcut, activation, and the views its readers want.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from popcloud.errors import ExportError
from popcloud.learn.export_layers import check_binary, unflipped
from popcloud.learn.export_writer import Affine, Tap, Wanted, Writer, activation_of, array, plain
from popcloud.learn.layers import RPReLU
from popcloud.learn.shifted import ShiftedConv
from popcloud.learn.sparse_layers import ChildMean, NormAct, SparseConv, Unpool
from popcloud.packed.bits import pack_weights
from popcloud.packed.program import Activation, Array, Kind, Op, Rows, Step
from popcloud.packed.validate import MOST_OUTPUTS


def sparse_conv(writer: Writer, node: fx.Node, conv: SparseConv) -> None:
    """SparseConv and ShiftedConv: one step, but for a shortcut that is added after the activation."""
    if not conv.exact:
        raise ExportError(f"{node.target}: its shifts are still searched; export a later stage")
    x, blobs = _kernel(writer, node, conv)
    a, b = conv.folded()
    views = _fused_views(writer.wanted(node), conv, len(node.args))
    if views:
        _write_affines(writer, node, conv, x, blobs, views)
        return
    blobs |= {"scale": array(a)[None], "bias": array(b)[None]}
    late = conv.norm is None and len(node.args) == 3 and not isinstance(conv.activation, nn.Identity)
    if late:
        _write_then_add(writer, node, conv, x, blobs)
        return
    shortcut = [writer.shortcut_of(writer.source(node, i)) for i in range(1, len(node.args) - 1)]
    _write(writer, node, conv, (x, *shortcut), blobs, writer.wanted(node))


def norm_act(writer: Writer, node: fx.Node, norm: NormAct) -> None:
    """Batch norm before a layer: no step, until somebody reads it in a way that nobody wrote."""
    writer.norms[node.name] = writer.source(node), norm


def join(writer: Writer, node: fx.Node, _: nn.Module) -> None:
    """Values side by side: no step, until it is read."""
    writer.joins[node.name] = tuple(writer.source(node, i) for i in range(len(node.args)))


def unpool(writer: Writer, node: fx.Node, module: Unpool) -> None:
    """Copies of parents' rows: no step, if all readers add them."""
    writer.copies[node.name] = writer.source(node), module.level


def child_mean(writer: Writer, node: fx.Node, module: ChildMean) -> None:
    """The mean of each site's children."""
    x = writer.float_of(writer.source(node))
    channels, level = writer.values[x].channels, module.level + 1
    value = writer.value(str(node.target), Kind.FLOAT, Rows.SITES, channels, Tap(node.name), level)
    writer.floats[node.name] = writer.step(Op.SITE_MEAN, (x,), value)


def add(writer: Writer, node: fx.Node, _: nn.Module) -> None:
    """A sum of two values; copies of parents' rows are added without a step of their own."""
    first, second = writer.source(node, 0), writer.source(node, 1)
    if first in writer.copies:
        first, second = second, first
    x, y = writer.float_of(first), writer.shortcut_of(second)
    value = writer.beside(x, str(node.target), Kind.FLOAT, writer.values[x].channels, Tap(node.name))
    writer.floats[node.name] = writer.step(Op.ADD, (x, y), value)


def _kernel(writer: Writer, node: fx.Node, conv: SparseConv) -> tuple[int, dict[str, Array]]:
    """Return the value that a convolution reads, and its weights, offset by offset."""
    if conv.binarizer is None:
        x = writer.float_of(writer.source(node))
        return x, {"weight": array(conv.kernel(conv.weight).flatten(0, 1))} | _shifts(conv)
    check_binary(node, conv)
    frozen = conv.binarizer.frozen(conv.weight)
    signs = writer.bits_of(writer.source(node), frozen.threshold)
    return signs.value, {"weight": pack_weights(unflipped(frozen.weights, signs).numpy())} | _shifts(conv)


def _shifts(conv: SparseConv) -> dict[str, Array]:
    """Return the shifts of a convolution that has any but zeros."""
    if not isinstance(conv, ShiftedConv) or not bool(conv.shifts.any()):
        return {}
    return {"shifts": conv.shifts.numpy()}


def _fused_views(wanted: Wanted, conv: SparseConv, arguments: int) -> list[Affine]:
    """Return the batch norms that can end a bare real convolution, all it is read through; else none."""
    bare = conv.binarizer is None and arguments == 2 and isinstance(conv.activation, nn.Identity)
    only = not wanted.floats and not wanted.thresholds and len(wanted.affines) <= MOST_OUTPUTS
    alike = len({view.activation for view in wanted.affines}) == 1
    return wanted.affines if bare and only and alike else []


def _write_affines(
    writer: Writer, node: fx.Node, conv: SparseConv, x: int, blobs: dict[str, Array], views: list[Affine]
) -> None:
    """Write a real convolution and the batch norms that read it."""
    a, b = (part.double() for part in conv.folded())
    blobs["scale"] = array(torch.stack([a * view.a for view in views]))
    blobs["bias"] = array(torch.stack([b * view.a + view.b for view in views]))
    outputs = [_output(writer, node, conv, f"{node.target}.affine", Kind.FLOAT, _tap(view)) for view in views]
    writer.affines[node.name] = list(zip(views, outputs, strict=True))
    _append(writer, (x,), outputs, views[0].activation, blobs)


def _write_then_add(writer: Writer, node: fx.Node, conv: SparseConv, x: int, blobs: dict[str, Array]) -> None:
    """Write act(conv(x)), then the sum with the shortcut."""
    bare = _output(writer, node, conv, f"{node.target}.bare", Kind.FLOAT, None)
    _append(writer, (x,), [bare], *_activation(conv, blobs))
    value = _output(writer, node, conv, str(node.target), Kind.FLOAT, Tap(node.name))
    shortcut = writer.shortcut_of(writer.source(node, 1))
    writer.floats[node.name] = writer.step(Op.ADD, (bare, shortcut), value)


def _write(
    writer: Writer,
    node: fx.Node,
    conv: SparseConv,
    inputs: tuple[int, ...],
    blobs: dict[str, Array],
    wanted: Wanted,
) -> None:
    """Write a convolution with its floats, if they are read, and the signs that are read."""
    floats = wanted.floats or bool(wanted.affines) or not wanted.thresholds or len(wanted.thresholds) > MOST_OUTPUTS
    outputs = []
    if floats:
        outputs.append(_output(writer, node, conv, str(node.target), Kind.FLOAT, Tap(node.name)))
        writer.floats[node.name] = outputs[0]
    thresholds = wanted.thresholds[: MOST_OUTPUTS - len(outputs)]
    for threshold in thresholds:
        tap = Tap(node.name, threshold)
        outputs.append(_output(writer, node, conv, f"{node.target}.bits", Kind.BITS, tap))
        writer.bits.setdefault(node.name, []).append((threshold, plain(outputs[-1], conv.outputs)))
    if thresholds:
        blobs["thresholds"] = array(torch.stack(thresholds))
    _append(writer, inputs, outputs, *_activation(conv, blobs))


def _activation(conv: SparseConv, blobs: dict[str, Array]) -> tuple[Activation, dict[str, Array]]:
    """Return the activation of a convolution's step, and its blobs with those of the activation."""
    module = conv.activation
    if not isinstance(module, RPReLU):
        return activation_of(module), blobs
    constants: list[Tensor] = [module.shift, module.slope, module.offset]
    return Activation.RPRELU, blobs | {"prelu": array(torch.stack(constants))}


def _append(
    writer: Writer, inputs: tuple[int, ...], outputs: list[int], act: Activation, blobs: dict[str, Array]
) -> None:
    bits = writer.values[inputs[0]].kind is Kind.BITS
    op = Op.BINARY_SPARSE_CONV if bits else Op.SPARSE_CONV
    writer.steps.append(Step(op, inputs, outputs[0], act, blobs, tuple(outputs[1:])))


def _output(writer: Writer, node: fx.Node, conv: SparseConv, name: str, kind: Kind, tap: Tap | None) -> int:
    level = conv.level + (conv.kind == "down")
    return writer.value(name, kind, Rows.SITES, conv.outputs, tap, level)


def _tap(view: Affine) -> Tap | None:
    return None if view.node is None else Tap(view.node)
