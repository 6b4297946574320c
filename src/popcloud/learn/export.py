"""A trained network -> a Program: torch.fx reads the graph, one table turns layers into steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from popcloud.errors import ExportError
from popcloud.learn import export_layers, export_points, export_sparse
from popcloud.learn.columns import Concat, Pool, Slice
from popcloud.learn.export_writer import Tap, Writer
from popcloud.learn.layers import Layer, PooledLayer, Transform
from popcloud.learn.maps import TensorPyramid
from popcloud.learn.point_layers import (
    Ball,
    Density,
    FarthestPoints,
    Gather,
    GatherSubtract,
    GroupedLayer,
    GroupPool,
    GroupPooled,
    Multiply,
    Nearest,
    NearestFeatures,
    NearestSigns,
    Negated,
    Product,
    Reshape,
    RowNorm,
    Subtract,
    TernaryLayer,
)
from popcloud.learn.shifted import ShiftedConv
from popcloud.learn.sparse_layers import Add, ChildMean, Join, NormAct, SparseConv, Unpool
from popcloud.packed.bits import pack_minus
from popcloud.packed.program import POINT_OPS, Activation, Array, Grid, Kind, Program, Rows, Sampling, Step

__all__ = ["EMIT", "Exported", "Tap", "export", "observe", "trace"]

EMIT: dict[type[nn.Module], Callable[[Writer, fx.Node, Any], None]] = {
    Layer: export_layers.weighted,
    PooledLayer: export_layers.weighted,
    Transform: export_layers.transform,
    nn.Dropout: export_layers.nothing,
    SparseConv: export_sparse.sparse_conv,
    ShiftedConv: export_sparse.sparse_conv,
    NormAct: export_sparse.norm_act,
    ChildMean: export_sparse.child_mean,
    Unpool: export_sparse.unpool,
    Join: export_sparse.join,
    Add: export_sparse.add,
    FarthestPoints: export_points.farthest_points,
    Ball: export_points.ball,
    Nearest: export_points.nearest,
    NearestFeatures: export_points.nearest,
    NearestSigns: export_points.nearest,
    Gather: export_points.gather,
    GatherSubtract: export_points.gather_subtract,
    Subtract: export_points.subtract,
    Multiply: export_points.multiply,
    Concat: export_points.concat,
    Slice: export_points.columns,
    Reshape: export_points.reshape,
    Product: export_points.product,
    Density: export_points.density,
    Negated: export_points.negated,
    RowNorm: export_points.row_norm,
    GroupedLayer: export_points.grouped,
    GroupPooled: export_layers.weighted,
    TernaryLayer: export_points.ternary,
    Pool: export_points.pool,
    GroupPool: export_points.pool,
}


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
    classes: Sequence[str],
    points: int = 0,
    normalize: str = "none",
    meta: dict[str, str] | None = None,
    plan: Grid | Sampling | None = None,
    features: Sequence[str] = (),
) -> Exported:
    """Return the network as a Program; puts it in eval mode, which `observe` needs as well.

    points, normalize  of a network on whole clouds: what happens to a cloud first
    plan, features     of a network on a voxel grid, and the names of the columns it reads
    Raises ExportError naming the layer, where a layer can't be written without changing what the network answers.
    """
    model = model.eval()
    for name, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise ExportError(f"{name}: expected finite numbers, found NaN or infinity; export an earlier checkpoint")
    graph = trace(model)
    writer = Writer(graph, len(features) or 3, Rows.SITES if isinstance(plan, Grid) else Rows.POINT)
    for node in graph.graph.nodes:
        _write(writer, node)
    if plan is None and any(_of_points(step) for step in writer.steps):
        plan, features = Sampling(), ("x", "y", "z")
    if isinstance(plan, Sampling) and writer.ratios:
        plan = Sampling(tuple(writer.ratios[level] for level in sorted(writer.ratios)))
    program = Program(
        tuple(writer.values),
        tuple(writer.steps),
        points,
        normalize,
        tuple(classes),
        dict(meta or {}),
        plan,
        tuple(features),
    )
    return Exported(program, writer.taps, graph)


def _of_points(step: Step) -> bool:
    """Return whether only programs with the plan `Sampling` have such a step."""
    return step.op in POINT_OPS or step.activation is Activation.SIGMOID


def _write(writer: Writer, node: fx.Node) -> None:
    """Write the steps of one node."""
    if node.op == "placeholder":
        if not writer.values:  # the second one is the pyramid
            writer.floats[node.name] = writer.value(node.name, Kind.FLOAT, writer.rows, writer.inputs, Tap(node.name))
    elif node.op == "call_module":
        module = writer.graph.get_submodule(str(node.target))
        emit = EMIT.get(type(module))
        if emit is None:
            raise ExportError(f"{node.target}: {type(module).__name__} has no step; add it to the table in export.py")
        emit(writer, node, module)
    elif node.op == "output":
        writer.answer(node)
    else:
        what = getattr(node.target, "__name__", node.target)
        raise ExportError(f"{node.name}: {node.op} {what} has no step; use the layers of popcloud.learn")


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
def observe(exported: Exported, x: Tensor | Array, at: TensorPyramid | None = None) -> dict[int, Array]:
    """Run PyTorch on one cloud; return its values by the program's indices, signs packed as bits.

    x   (n, 3) points, or rows (S, F) of the finest sites
    at  the pyramid of those
    """
    observer = _Observer(exported.graph)
    rows = torch.as_tensor(x)
    observer.run(*((rows[None],) if at is None else (rows, at)))
    found = {}
    for index, tap in exported.taps.items():
        value = exported.program.values[index]
        result = observer.seen[tap.node].reshape(-1, value.channels)
        if tap.threshold is None:
            found[index] = (result.int() if value.kind is Kind.INDEX else result).contiguous().numpy()
        else:
            found[index] = pack_minus((result < tap.threshold).numpy())
    return found
