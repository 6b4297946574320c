"""Layers on neighbourhoods of points: their steps.

Gathered rows are no step until they are read, and then as what they are read: signs are lighter than floats.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, fx, nn

from popcloud.errors import ExportError
from popcloud.learn.columns import Pool, Slice
from popcloud.learn.export_layers import affine, check_binary, rises, tail, unflipped
from popcloud.learn.export_writer import Tap, Writer, array, curved, short, thresholds_of
from popcloud.learn.point_layers import (
    Ball,
    Density,
    FarthestPoints,
    GroupedLayer,
    GroupPool,
    Nearest,
    NearestFeatures,
    NearestSigns,
    Negated,
    Reshape,
    RowNorm,
    TernaryLayer,
)
from popcloud.packed.bits import pack_weights
from popcloud.packed.program import Array, Kind, Op, Rows


def farthest_points(writer: Writer, node: fx.Node, module: FarthestPoints) -> None:
    """The numbers of the next level's points; says how many they are."""
    x = writer.float_of(writer.source(node))
    level = writer.values[x].level + 1
    if writer.ratios.setdefault(level, module.ratio) != module.ratio:
        raise ExportError(
            f"{node.target}: takes {module.ratio:g} of the points of level {level - 1}, another layer "
            f"{writer.ratios[level]:g}; a program has one sampling per level"
        )
    value = writer.value(str(node.target), Kind.INDEX, Rows.POINT, 1, Tap(node.name), level)
    writer.indices[node.name] = writer.step(Op.FARTHEST_POINTS, (x,), value)


def ball(writer: Writer, node: fx.Node, module: Ball) -> None:
    """The first points within a radius."""
    inputs = tuple(writer.float_of(writer.source(node, i)) for i in range(2))
    _search(writer, node, Op.BALL, inputs, module.k, radius=np.array([module.radius], np.float32))


def nearest(writer: Writer, node: fx.Node, module: Nearest) -> None:
    """The nearest positions, features or signs."""
    sources = [writer.source(node, i) for i in range(2)]
    if isinstance(module, NearestSigns):
        signs = [writer.bits_of(source, torch.zeros(writer.widths[source])) for source in sources]
        if not torch.equal(signs[0].flipped, signs[1].flipped):
            raise ExportError(f"{node.target}: one of the two is kept with other signs turned round; search in floats")
        op, inputs = Op.NEAREST_SIGNS, tuple(one.value for one in signs)
    else:
        op = Op.NEAREST_FEATURES if isinstance(module, NearestFeatures) else Op.NEAREST
        inputs = tuple(writer.float_of(source) for source in sources)
    _search(writer, node, op, inputs, module.k, dilation=np.array([module.dilation], np.int32))


def _search(writer: Writer, node: fx.Node, op: Op, inputs: tuple[int, ...], k: int, **blobs: Array) -> None:
    level = writer.values[inputs[0]].level
    value = writer.value(str(node.target), Kind.INDEX, Rows.POINT, k, Tap(node.name), level)
    writer.indices[node.name] = writer.step(op, inputs, value, None, **blobs)


def gather(writer: Writer, node: fx.Node, _: nn.Module) -> None:
    """Rows of points: no step, until they are read."""
    writer.gathers[node.name] = writer.source(node), writer.indices[writer.source(node, 1)]


def gather_subtract(writer: Writer, node: fx.Node, _: nn.Module) -> None:
    """Rows of neighbours, less a row of the point."""
    index = writer.indices[writer.source(node, 1)]
    rows = writer.gathered(writer.float_of(writer.source(node)), index, f"{node.target}.rows", None)
    _elementwise(writer, node, Op.SUBTRACT, rows, writer.float_of(writer.source(node, 2)))


def subtract(writer: Writer, node: fx.Node, _: nn.Module) -> None:
    """One value less the other."""
    _elementwise(writer, node, Op.SUBTRACT, *(writer.float_of(writer.source(node, i)) for i in range(2)))


def multiply(writer: Writer, node: fx.Node, _: nn.Module) -> None:
    """One value times the other."""
    _elementwise(writer, node, Op.MULTIPLY, *(writer.float_of(writer.source(node, i)) for i in range(2)))


def _elementwise(writer: Writer, node: fx.Node, op: Op, x: int, y: int) -> None:
    value = writer.beside(x, str(node.target), Kind.FLOAT, writer.values[x].channels, Tap(node.name))
    writer.floats[node.name] = writer.step(op, (x, y), value)


def concat(writer: Writer, node: fx.Node, _: nn.Module) -> None:
    """Values side by side: no step, until it is read."""
    writer.joins[node.name] = tuple(writer.source(node, i) for i in range(len(node.args)))


def reshape(writer: Writer, node: fx.Node, module: Reshape) -> None:
    """The same floats in rows of another length."""
    x = writer.float_of(writer.source(node))
    there = writer.values[x]
    channels = there.each * there.channels // module.each
    value = writer.value(str(node.target), Kind.FLOAT, Rows.POINT, channels, Tap(node.name), there.level, module.each)
    writer.floats[node.name] = writer.step(Op.RESHAPE, (x,), value)


def product(writer: Writer, node: fx.Node, _: nn.Module) -> None:
    """The products of the neighbours' two rows, summed."""
    x, m = (writer.float_of(writer.source(node, i)) for i in range(2))
    channels = writer.values[x].channels * writer.values[m].channels
    value = writer.beside(x, str(node.target), Kind.FLOAT, channels, Tap(node.name), "neighbours")
    writer.floats[node.name] = writer.step(Op.PRODUCT, (x, m), value)


def density(writer: Writer, node: fx.Node, module: Density) -> None:
    """How sparse the points are."""
    x = writer.float_of(writer.source(node))
    value = writer.beside(x, str(node.target), Kind.FLOAT, 1, Tap(node.name))
    bandwidth = np.array([module.bandwidth], np.float32)
    writer.floats[node.name] = writer.step(Op.DENSITY, (x,), value, None, bandwidth=bandwidth)


def negated(writer: Writer, node: fx.Node, module: Negated) -> None:
    """A real-valued layer with its weights' signs turned."""
    weight, bias = module.layer.folded_weight()
    blobs = {"weight": array(-weight.T.contiguous()), "bias": array(-bias)}
    x = writer.float_of(writer.source(node))
    writer.floats[node.name] = affine(writer, Op.LINEAR, node, (x,), module.layer, None, **blobs)


def row_norm(writer: Writer, node: fx.Node, norm: RowNorm) -> None:
    """Batch norm and activation: no step where only signs are read, else the floats."""
    wanted = writer.wanted(node)
    if not curved(norm) or (rises(norm) and not wanted.floats and not wanted.affines):
        writer.norms[node.name] = writer.source(node), norm
        return
    x, channels = writer.float_of(writer.source(node)), norm.channels
    a, b = norm.norm.folded()
    value = writer.beside(x, f"{node.target}.sum", Kind.FLOAT, channels, None)
    writer.step(Op.AFFINE, (x,), value, None, scale=array(a), bias=array(b))
    bend = {name: array(getattr(norm.activation, name)) for name in ("shift", "slope", "offset")}
    out = writer.beside(value, str(node.target), Kind.FLOAT, channels, Tap(node.name))
    writer.floats[node.name] = writer.step(Op.RPRELU, (value,), out, None, **bend)


def ternary(writer: Writer, node: fx.Node, layer: TernaryLayer) -> None:
    """A binary layer whose inputs may be 0: half the products with the signs below 0 and with those up to it."""
    check_binary(node, layer)
    zero = torch.zeros(layer.inputs)
    if layer.gates or layer.binarizer.bases > 1 or any(bool(one.any()) for one in thresholds_of(layer)):
        name = type(layer.binarizer).__name__
        raise ExportError(f"{node.target}: {name} has more than signs around 0; a layer with zeros takes plain ones")
    source, turned = writer.source(node), torch.where(layer.folded()[0] < 0, -1.0, 1.0)
    weights = layer.binarizer.frozen(layer.weight).weights * turned[:, None]
    half = {"scale": np.full((1, layer.outputs), 0.5, np.float32), "bias": np.zeros(layer.outputs, np.float32)}
    total: tuple[int, ...] = ()
    for threshold in (zero, zero + layer.TINY):
        signs = writer.bits_of(source, threshold)
        weight = pack_weights(unflipped(weights, signs).numpy())
        value = writer.beside(signs.value, f"{node.target}.sum", Kind.FLOAT, layer.outputs, None)
        total = (writer.step(Op.BINARY_SUM, (signs.value, *total), value, None, weight=weight, **half),)
    if layer.binarizer.scales_rows:
        factor = writer.beside(total[0], f"{node.target}.row_scale", Kind.FLOAT, 1, None)
        writer.step(Op.ROW_MEAN_ABS, (writer.float_of(source),), factor)
        scaled = writer.beside(total[0], f"{node.target}.scaled", Kind.FLOAT, layer.outputs, None)
        total = (writer.step(Op.MULTIPLY, (*total, factor), scaled),)
    tail(writer, node, layer, total[0])


def grouped(writer: Writer, node: fx.Node, layer: GroupedLayer) -> None:
    """A layer in groups of channels."""
    groups = np.array([layer.groups], np.int32)
    if layer.binarizer is None:
        weight, bias = layer.folded_weight()
        x = writer.float_of(writer.source(node))
        blobs = {"weight": array(weight.T.contiguous()), "bias": array(bias), "groups": groups}
        writer.floats[node.name] = affine(writer, Op.LINEAR_GROUPS, node, (x,), layer, None, **blobs)
        return
    check_binary(node, layer)
    if layer.binarizer.bases > 1:
        name = type(layer.binarizer).__name__
        raise ExportError(f"{node.target}: {name} has several signs a weight, a layer in groups one; use another one")
    signs = writer.bits_of(writer.source(node), thresholds_of(layer)[0])
    a, b = layer.folded()
    turned = torch.where(a < 0, -1.0, 1.0)
    weights = _unflipped(layer, layer.binarizer.frozen(layer.weight).weights, signs.flipped) * turned[:, None]
    blobs = {"weight": pack_weights(weights.numpy()), "scale": short(a.abs()), "bias": short(b), "groups": groups}
    writer.floats[node.name] = affine(writer, Op.BINARY_GROUPS, node, (signs.value,), layer, None, **blobs)


def _unflipped(layer: GroupedLayer, weights: Tensor, flipped: Tensor) -> Tensor:
    """Return weights (outputs, inputs) negated where the signs they meet are the other way round."""
    turn = torch.where(flipped, -1.0, 1.0).view(layer.groups, 1, layer.inputs)
    return (weights.view(layer.groups, -1, layer.inputs) * turn).view(weights.shape)


def columns(writer: Writer, node: fx.Node, module: Slice) -> None:
    """Some of the channels."""
    x = writer.float_of(writer.source(node))
    value = writer.beside(x, str(node.target), Kind.FLOAT, module.outputs, Tap(node.name))
    taken = np.array([module.first, module.outputs], np.int32)
    writer.floats[node.name] = writer.step(Op.SLICE, (x,), value, None, columns=taken)


def pool(writer: Writer, node: fx.Node, module: Pool) -> None:
    """A pool of floats, or of sums of signs that were pooled already; the largest plus delta."""
    source, name, tap = writer.source(node), str(node.target), Tap(node.name)
    if source in writer.largest:
        value = writer.largest[source]
        if not module.delta:
            writer.taps[value] = tap
    else:
        x = writer.float_of(source)
        op = Op.POOL_MEAN if module.takes_mean else Op.POOL_MAX
        over = "neighbours" if isinstance(module, GroupPool) else "cloud"
        first = (f"{name}.largest", None) if module.delta else (name, tap)
        value = writer.step(op, (x,), writer.beside(x, first[0], Kind.FLOAT, writer.widths[source], first[1], over))
    writer.floats[node.name] = value
    if module.delta:
        moved = writer.beside(value, name, Kind.FLOAT, writer.widths[source], tap)
        blobs = {"scale": np.ones(1, np.float32), "bias": np.array([module.delta], np.float32)}
        writer.floats[node.name] = writer.step(Op.AFFINE, (value,), moved, None, **blobs)
