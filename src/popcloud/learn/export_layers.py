"""Layers that work row by row, and pools over points: their steps.

Where batch norm, activation and the next layer's binarizer follow a sum of signs, the three become one integer per
channel. No algebra, so no rounding that could differ: the sign turns exactly where it turns in PyTorch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from popcloud.errors import ExportError
from popcloud.learn.binarizers import RealToBinary
from popcloud.learn.export_writer import Signs, Tap, Writer, activation_of, array, as_half, plain, short
from popcloud.learn.layers import Layer, PooledLayer, RPReLU, Weighted
from popcloud.learn.point_layers import GroupPooled
from popcloud.learn.thresholds import mean_threshold, mismatch_limit
from popcloud.packed.bits import pack_weights
from popcloud.packed.program import Activation, Array, Kind, Op, Rows

AnyLayer = Layer | PooledLayer


def weighted(writer: Writer, node: fx.Node, layer: AnyLayer) -> None:
    """Layer or PooledLayer."""
    if layer.binarizer is None:
        _real_layer(writer, node, layer)
    else:
        _binary_layer(writer, node, layer)


def transform(writer: Writer, node: fx.Node, _: nn.Module) -> None:
    """x times (identity + m)."""
    x, m = writer.float_of(writer.source(node, 0)), writer.float_of(writer.source(node, 1))
    value = writer.beside(x, str(node.target), Kind.FLOAT, writer.values[x].channels, Tap(node.name))
    writer.floats[node.name] = writer.step(Op.TRANSFORM, (x, m), value)


def nothing(writer: Writer, node: fx.Node, _: nn.Module) -> None:
    """Dropout: nothing happens in eval mode."""
    writer.alias[node.name] = writer.source(node)


def over(layer: AnyLayer) -> str | None:
    """Return what a layer pools over, as `Writer.beside` has it."""
    if isinstance(layer, Layer):
        return None
    return "neighbours" if isinstance(layer, GroupPooled) else "cloud"


def affine(
    writer: Writer, op: Op, node: fx.Node, inputs: tuple[int, ...], layer: AnyLayer, pools: str | None, **blobs: Array
) -> int:
    """Write a step that ends in act(fma(..)); RPReLU, which needs constants of its own, becomes a second step."""
    module = layer.activation if isinstance(layer, Layer) else None
    curved, name, tap = isinstance(module, RPReLU), str(node.target), Tap(node.name)
    first = (f"{name}.sum", None) if curved else (name, tap)
    value = writer.beside(inputs[0], first[0], Kind.FLOAT, layer.outputs, first[1], pools)
    writer.step(op, inputs, value, Activation.NONE if curved else activation_of(module), **blobs)
    if isinstance(module, RPReLU):
        out = writer.beside(value, name, Kind.FLOAT, layer.outputs, tap)
        shift, slope, offset = array(module.shift), array(module.slope), array(module.offset)
        value = writer.step(Op.RPRELU, (value,), out, shift=shift, slope=slope, offset=offset)
    return value


def _real_layer(writer: Writer, node: fx.Node, layer: AnyLayer) -> None:
    """linear and batch norm folded into one LINEAR; a pool after it is a step of its own."""
    folded, b = layer.folded_weight()
    source, weight = writer.float_of(writer.source(node)), array(folded.T.contiguous())
    if isinstance(layer, Layer):
        kept = as_half(weight) if layer.halved else weight
        value = affine(writer, Op.LINEAR, node, (source,), layer, None, weight=kept, bias=array(b))
        writer.floats[node.name] = value
        return
    product = writer.beside(source, f"{node.target}.rows", Kind.FLOAT, layer.outputs, None)
    writer.step(Op.LINEAR, (source,), product, weight=weight, bias=array(b + layer.delta))
    _pool(writer, node, layer, product)


def _pool(writer: Writer, node: fx.Node, layer: PooledLayer, product: int) -> None:
    op = Op.POOL_MEAN if layer.takes_mean else Op.POOL_MAX
    value = writer.beside(product, str(node.target), Kind.FLOAT, layer.outputs, Tap(node.name), over(layer))
    writer.floats[node.name] = writer.step(op, (product,), value)


def _binary_layer(writer: Writer, node: fx.Node, layer: AnyLayer) -> None:
    """A binary layer: bits out where only signs are read, floats where floats are."""
    check_binary(node, layer)
    if layer.binarizer.bases > 1 or layer.gates:
        (_several_bases if layer.binarizer.bases > 1 else _gated)(writer, node, layer)
        return
    frozen = layer.binarizer.frozen(layer.weight)
    signs = writer.bits_of(writer.source(node), frozen.threshold)
    a, b = layer.folded()
    turned = _turned(layer)
    weight = pack_weights((unflipped(frozen.weights, signs) * turned[:, None]).numpy())
    if layer.binarizer.scales_rows:
        _row_scaled(writer, node, layer, signs.value, weight, a.abs(), b)
        return
    op, bits_op = Op.BINARY_LINEAR, Op.BINARY_LINEAR_BITS
    if isinstance(layer, PooledLayer):
        b = b + layer.delta
        op = Op.BINARY_MEAN if layer.takes_mean else Op.BINARY_MAX
        bits_op = Op.BINARY_MEAN_BITS if layer.takes_mean else Op.BINARY_MAX_BITS
    wanted, folds = writer.wanted(node), rises(layer)
    if wanted.floats or wanted.affines or not folds:
        blobs = {"weight": weight, "scale": short(a.abs()), "bias": short(b)}
        writer.floats[node.name] = affine(writer, op, node, (signs.value,), layer, over(layer), **blobs)
    if wanted.largest:
        blobs = {"weight": weight, "scale": short(a.abs()), "bias": short(b)}
        value = writer.beside(signs.value, f"{node.target}.largest", Kind.FLOAT, layer.outputs, None, "cloud")
        writer.largest[node.name] = writer.step(Op.BINARY_MAX, (signs.value,), value, None, **blobs)
    for threshold in wanted.thresholds if folds else []:
        tap = Tap(node.name, threshold)
        value = writer.beside(signs.value, f"{node.target}.bits", Kind.BITS, layer.outputs, tap, over(layer))
        if bits_op is Op.BINARY_MEAN_BITS:
            turn = {"threshold": mean_threshold(layer, turned, threshold)}
        else:
            turn = {"limit": mismatch_limit(layer, turned, threshold)}
        writer.step(bits_op, (signs.value,), value, None, weight=weight, **turn)
        writer.bits.setdefault(node.name, []).append((threshold, plain(value, layer.outputs)))


def _row_scaled(writer: Writer, node: fx.Node, layer: AnyLayer, bits: int, weight: Array, a: Tensor, b: Tensor) -> None:
    source = writer.float_of(writer.source(node))
    factor = writer.beside(bits, f"{node.target}.row_scale", Kind.FLOAT, 1, None)
    writer.step(Op.ROW_MEAN_ABS, (source,), factor)
    if isinstance(layer, Layer):
        blobs = {"weight": weight, "scale": short(a), "bias": short(b)}
        writer.floats[node.name] = affine(writer, Op.BINARY_LINEAR, node, (bits, factor), layer, None, **blobs)
        return
    product = writer.beside(bits, f"{node.target}.rows", Kind.FLOAT, layer.outputs, None)
    blobs = {"weight": weight, "scale": short(a), "bias": short(b + layer.delta)}
    writer.step(Op.BINARY_LINEAR, (bits, factor), product, None, **blobs)
    _pool(writer, node, layer, product)


def _several_bases(writer: Writer, node: fx.Node, layer: AnyLayer) -> None:
    """A step per sign of the inputs, each of which adds the products with all signs of the weights; then the pool."""
    frozen, source = layer.binarizer.frozen(layer.weight), writer.source(node)
    turned = _turned(layer)
    value: tuple[int, ...] = ()
    for threshold, scale in zip(frozen.threshold, frozen.scale, strict=True):
        signs = writer.bits_of(source, threshold)
        weights = unflipped(frozen.weights.flatten(0, 1), signs).unflatten(0, (-1, layer.outputs)) * turned[:, None]
        total = writer.beside(signs.value, f"{node.target}.sum", Kind.FLOAT, layer.outputs, None)
        blobs: dict[str, Array] = {"weight": pack_weights(weights.flatten(0, 1).numpy())}
        blobs["bias"] = np.zeros(layer.outputs, np.float32)
        blobs["scale"] = array(scale[:, None].repeat(1, layer.outputs))
        value = (writer.step(Op.BINARY_SUM, (signs.value, *value), total, None, **blobs),)
    if isinstance(layer, PooledLayer):
        pooled = writer.beside(value[0], f"{node.target}.pool", Kind.FLOAT, layer.outputs, None, over(layer))
        value = (writer.step(Op.POOL_MEAN if layer.takes_mean else Op.POOL_MAX, value, pooled),)
    tail(writer, node, layer, value[0])


def _gated(writer: Writer, node: fx.Node, layer: AnyLayer) -> None:
    """The bare products or their pool, times the gate of the cloud. A gate is positive, so a maximum may come first."""
    frozen, source = layer.binarizer.frozen(layer.weight), writer.source(node)
    signs = writer.bits_of(source, frozen.threshold)
    weight = pack_weights((unflipped(frozen.weights, signs) * _turned(layer)[:, None]).numpy())
    op = Op.BINARY_LINEAR
    if isinstance(layer, PooledLayer):
        op = Op.BINARY_MEAN if layer.takes_mean else Op.BINARY_MAX
    product = writer.beside(signs.value, f"{node.target}.sum", Kind.FLOAT, layer.outputs, None, over(layer))
    writer.step(
        op, (signs.value,), product, None, weight=weight, scale=np.ones(1, np.float32), bias=np.zeros(1, np.float32)
    )
    gate = _gate(writer, f"{node.target}.gate", writer.float_of(source), layer.binarizer)
    gated = writer.beside(product, f"{node.target}.gated", Kind.FLOAT, layer.outputs, None)
    tail(writer, node, layer, writer.step(Op.MULTIPLY, (product, gate), gated))


def _gate(writer: Writer, name: str, x: int, binarizer: RealToBinary) -> int:
    """sigmoid(W2 relu(W1 mean over the points)), one row."""
    if writer.values[x].rows is Rows.POINT:
        mean = writer.value(f"{name}.mean", Kind.FLOAT, Rows.CLOUD, binarizer.inputs, None)
        x = writer.step(Op.POOL_MEAN, (x,), mean)
    steps = ((binarizer.squeeze, "squeeze", Activation.RELU), (binarizer.excite, "excite", Activation.SIGMOID))
    for linear, part, act in steps:
        value = writer.value(f"{name}.{part}", Kind.FLOAT, Rows.CLOUD, linear.out_features, None)
        x = writer.step(Op.LINEAR, (x,), value, act, weight=array(linear.weight.T), bias=array(linear.bias))
    return x


def _turned(layer: AnyLayer) -> Tensor:
    """Return (outputs,) -1 where the output falls with the sum: there weights are negated, so that all rise."""
    return torch.where(layer.folded()[0] < 0, -1.0, 1.0)


def tail(writer: Writer, node: fx.Node, layer: AnyLayer, value: int) -> None:
    """Scale, batch norm and activation of sums that rise, as a step of their own."""
    a, b = layer.folded()
    b = b + layer.delta if isinstance(layer, PooledLayer) else b
    blobs = {"scale": short(a.abs()), "bias": short(b)}
    writer.floats[node.name] = affine(writer, Op.AFFINE, node, (value,), layer, None, **blobs)


def check_binary(node: fx.Node, layer: Weighted) -> None:
    """Raise ExportError for a layer whose weights are not signs yet."""
    if not layer.weights_binary:
        raise ExportError(f"{node.target}: its weights are real-valued, as in a first stage; export one of the last")


def unflipped(weights: Tensor, signs: Signs) -> Tensor:
    """Return weights (outputs, K * inputs) negated where the signs they meet are the other way round."""
    if not bool(signs.flipped.any()):
        return weights
    turn = torch.where(signs.flipped, -1.0, 1.0)
    return weights * turn.repeat(weights.shape[1] // len(turn))


def rises(layer: Any) -> bool:
    """Return whether the activation never falls, so that a threshold after it is one switch."""
    module = getattr(layer, "activation", None)
    return not isinstance(module, RPReLU) or bool((module.slope >= 0).all())
