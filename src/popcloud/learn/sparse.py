"""Sparse convolution and pooling over active sites, with exact gradients.

On the CPU in float32 the engine's kernels do the work: sums run over offsets, then input channels, in that order, so
that an answer has the same bits for any number of threads. Elsewhere plain PyTorch does the same one offset at a time:
never are all pairs gathered at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from popcloud import native
from popcloud.learn.maps import TensorMap, TensorPyramid


def sparse_conv(x: Tensor, weight: Tensor, *maps: TensorMap) -> Tensor:
    """Return y[outputs] = sum over offsets k of x[inputs] W[k], zero where a site has no pair.

    x       (input sites, cin)
    weight  (K, cin, cout)
    maps    each of K offsets: of one all columns of y arise, of G the g-th group of cout / G columns is the g-th's
    """
    return _SparseConv.apply(x, weight, maps)


class _SparseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, maps: tuple[TensorMap, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.maps = maps
        y = x.new_zeros(maps[0].output_sites, weight.shape[2])
        for columns, at in _groups(maps, weight.shape[2]):
            _add_products(x, weight[:, :, columns], at, y[:, columns])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        d_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        d_weight = torch.zeros_like(weight, memory_format=torch.contiguous_format) if ctx.needs_input_grad[1] else None
        for columns, at in _groups(ctx.maps, weight.shape[2]):
            if d_x is not None:
                _add_products(grad[:, columns], weight[:, :, columns].mT, at.transposed, d_x)
            if d_weight is not None:
                _add_weight_gradient(x, grad[:, columns], at, d_weight[:, :, columns])
        return d_x, d_weight, None


def _groups(maps: Sequence[TensorMap], channels: int) -> Iterator[tuple[slice, TensorMap]]:
    width = channels // len(maps)
    for group, at in enumerate(maps):
        yield slice(group * width, (group + 1) * width), at


def _by_engine(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and native.available()


def _add_products(x: Tensor, weight: Tensor, at: TensorMap, y: Tensor) -> None:
    """y[outputs] += x[inputs] W[k], in place; y may be a slice of columns."""
    if _by_engine(x):
        operands = (x.contiguous().numpy(), weight.contiguous().numpy(), at.inputs.numpy(), at.outputs.numpy())
        native.engine().sparse_conv(*operands, at.ranges.numpy(), y.numpy(), torch.get_num_threads())
        return
    for k, (begin, end) in enumerate(at.ranges.tolist()):
        if end > begin:
            y.index_add_(0, at.outputs[begin:end], x.index_select(0, at.inputs[begin:end]) @ weight[k])


def _add_weight_gradient(x: Tensor, grad: Tensor, at: TensorMap, d_weight: Tensor) -> None:
    """dW[k] += x[inputs]^T grad[outputs], in place; grad and d_weight may be slices of columns."""
    if _by_engine(x):
        sums = d_weight if d_weight.is_contiguous() else torch.zeros(d_weight.shape)
        operands = (x.contiguous().numpy(), grad.numpy(), at.inputs.numpy(), at.outputs.numpy(), at.ranges.numpy())
        native.engine().sparse_conv_weight_grad(*operands, sums.numpy(), torch.get_num_threads())
        if sums is not d_weight:
            d_weight.add_(sums)
        return
    for k, (begin, end) in enumerate(at.ranges.tolist()):
        if end > begin:
            seen = x.index_select(0, at.inputs[begin:end])
            d_weight[k].addmm_(seen.T, grad.index_select(0, at.outputs[begin:end]))


def child_mean(x: Tensor, at: TensorPyramid, level: int) -> Tensor:
    """Return the mean over each coarser site's active children: rows of `level` -> rows of `level` + 1."""
    total = _Gather.apply(x, at.parents[level], at.children[level])
    return total / at.children[level].to(x.dtype)[:, None]


def unpool(x: Tensor, at: TensorPyramid, level: int) -> Tensor:
    """Copy each site's row to its active children: rows of `level` + 1 -> rows of `level`."""
    return _Spread.apply(x, at.parents[level], at.children[level])


def _sum_of_children(x: Tensor, children: Tensor) -> Tensor:
    # Children lie next to each other, so their sums are those of bags of rows: one thread a bag, one order of sums.
    rows = torch.arange(len(x), device=x.device)
    return F.embedding_bag(rows, x, children.cumsum(0) - children, mode="sum")


class _Gather(torch.autograd.Function):
    """Sums over children."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parents: Tensor, children: Tensor) -> Tensor:
        ctx.parents = parents
        return _sum_of_children(x, children)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(0, ctx.parents), None, None


class _Spread(torch.autograd.Function):
    """The transpose of _Gather."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parents: Tensor, children: Tensor) -> Tensor:
        ctx.children = children
        return x.index_select(0, parents)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _sum_of_children(grad, ctx.children), None, None
