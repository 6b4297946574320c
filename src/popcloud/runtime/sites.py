"""What a program on a voxel grid means: points to sites, one plain numpy function per Op, sites to points.

As in `reference.py`, order is the business here, not speed: sums run over kernel offsets, then channels, as
`packed/program.py` says. Ops that know nothing of sites are those of `reference.py`, a row per site.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from popcloud.cloud import PointCloud, check_xyz
from popcloud.errors import CloudError
from popcloud.geometry.inputs import point_columns
from popcloud.geometry.kernel_map import KernelMap, neighbour_rows
from popcloud.geometry.plan import PLANS, GridPlan
from popcloud.geometry.pyramid import Pyramid
from popcloud.geometry.voxels import Voxels, mean_features
from popcloud.packed.bits import mismatches, pack, pack_minus, pack_weights, unpack, unpack_weights
from popcloud.packed.grid import offsets_of
from popcloud.packed.program import (
    GRID_OPS,
    NEIGHBOURS,
    Activation,
    Array,
    Grid,
    Kind,
    Op,
    Program,
    Sampling,
    Step,
    Value,
)
from popcloud.runtime import reference
from popcloud.runtime.arithmetic import Floats, accumulate, activate, rprelu

Words = NDArray[np.uint64]
Outputs = tuple[Array, ...]


@dataclass(frozen=True)
class Site:
    """A step as its function sees it: the step, what its inputs and outputs are, and all kernel maps."""

    step: Step
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    at: Pyramid


def run(program: Program, cloud: PointCloud | ArrayLike) -> Floats:
    """Return the answer (N, classes): a point's is that of its site. Raises CloudError as `ready`."""
    return of_sites(program, *ready(program, cloud))


def of_sites(program: Program, first: Floats, at: Pyramid) -> Floats:
    """Return the answer (N, classes) from what `ready` or `of_columns` gives."""
    answer: Floats = values(program, first, at)[program.steps[-1].output][at.point_to_site]
    return answer


def values(program: Program, first: Floats, at: Pyramid) -> list[Array]:
    """Return all values of a run in the order of Program.values, from what `ready` gives."""
    found: dict[int, Array] = {0: first}
    for index, each in enumerate(program.steps):
        found |= dict(zip(each.outputs, step(program, index, [found[i] for i in each.inputs], at), strict=True))
    return [found[i] for i in range(len(program.values))]


def ready(program: Program, cloud: PointCloud | ArrayLike) -> tuple[Floats, Pyramid]:
    """Return value 0 of a cloud, a row of means of features per finest site, and the pyramid of its sites.

    Raises CloudError if the cloud is empty or not finite, does not fit the grid, or has other features.
    """
    xyz = check_xyz(cloud.xyz if isinstance(cloud, PointCloud) else cloud)
    features = cloud.features if isinstance(cloud, PointCloud) else None
    return of_columns(program, xyz, point_columns(PointCloud(xyz, features), program.features))


def of_columns(program: Program, xyz: Floats, columns: Floats) -> tuple[Floats, Pyramid]:
    """Return the same from points (N, 3) and all that the network reads of each, (N, F)."""
    plan = plan_of(program.plan)
    at = plan.build(xyz, fast=False)
    return mean_features(Voxels(at.levels[0].sites, at.point_to_site, plan.edge), columns), at


def plan_of(grid: Grid | Sampling | None) -> GridPlan:
    """Return a program's plan as geometry knows it. Raises CloudError if it has none."""
    if not isinstance(grid, Grid):
        raise CloudError("expected a model with a voxel grid, found one for whole clouds; run it as such")
    return PLANS["grid"](grid.edge, grid.levels, grid.size)


def step(program: Program, index: int, inputs: Sequence[Array], at: Pyramid) -> Outputs:
    """Return the outputs of step `index` alone. Raises CloudError if an input is not as Program.values says."""
    this = program.steps[index]
    for number, x in zip(this.inputs, inputs, strict=True):
        value = program.values[number]
        reference.check(value, x, len(at.levels[value.level].sites))
    read, written = ([program.values[i] for i in indices] for indices in (this.inputs, this.outputs))
    with np.errstate(all="ignore"):
        if this.op in GRID_OPS:
            return OPS[this.op](Site(this, tuple(read), tuple(written), at), *inputs)
        layer = reference.Layer(this.blobs, this.activation, read[0].channels)
        return (reference.OPS[this.op](layer, *inputs),)


def sparse_conv(this: Site, x: Floats, shortcut: Floats | None = None) -> Outputs:
    """SPARSE_CONV: float products, over offsets, then over channels, one after the other."""
    weight, channels = this.step.blobs["weight"], this.inputs[0].channels
    total = np.zeros((_rows(this), weight.shape[1]), np.float32)
    for columns, pairs in _groups(this):
        for offset, (begin, end) in enumerate(pairs.ranges):
            part = weight[offset * channels : (offset + 1) * channels, columns]
            rows = pairs.outputs[begin:end]
            total[rows, columns] = accumulate(x[pairs.inputs[begin:end]], part, total[rows, columns])
    return finished(this, total, shortcut)


def binary_sparse_conv(this: Site, x: Words, shortcut: Floats | None = None) -> Outputs:
    """BINARY_SPARSE_CONV: exact sums of products of signs; a neighbour that is absent adds nothing."""
    channels, kernels = this.inputs[0].channels, _kernels(this)
    total = np.zeros((_rows(this), this.outputs[0].channels), np.int64)
    for columns, pairs in _groups(this):
        for kernel, (begin, end) in zip(kernels, pairs.ranges, strict=True):
            found = mismatches(x[pairs.inputs[begin:end]], kernel[:, columns])
            total[pairs.outputs[begin:end], columns] += channels - 2 * found
    return finished(this, total.astype(np.float32), shortcut)


def finished(this: Site, total: Floats, shortcut: Floats | None) -> Outputs:
    """Return what a convolution writes of its sums (S, C): floats, then signs. Each operation rounds."""
    blobs, outputs = this.step.blobs, []
    for scale, bias in zip(blobs["scale"], blobs["bias"], strict=True):
        y = total * scale + bias
        if shortcut is not None:
            y = y + _placed(this, shortcut, this.inputs[1].level)
        if this.step.activation is Activation.RPRELU:
            y = rprelu(y, *blobs["prelu"])
        outputs.append(activate(y, this.step.activation))
    floats = sum(value.kind is Kind.FLOAT for value in this.outputs)
    signs = [pack(outputs[0], threshold) for threshold in blobs.get("thresholds", ())]
    return (*outputs[:floats], *signs)


def site_mean(this: Site, x: Floats) -> Outputs:
    """SITE_MEAN: the mean of each site's children, summed in float32 in their order."""
    down = this.at.down[this.inputs[0].level]
    total = np.zeros((down.output_sites, x.shape[1]), np.float32)
    count = np.zeros((down.output_sites, 1), np.float32)
    for begin, end in down.ranges:
        total[down.outputs[begin:end]] += x[down.inputs[begin:end]]
        count[down.outputs[begin:end]] += 1
    return (total / count,)


def unpool(this: Site, x: Floats) -> Outputs:
    """UNPOOL: each site's row is its parent's."""
    return (_placed(this, x, this.inputs[0].level),)


def concat(this: Site, *parts: Array) -> Outputs:
    """CONCAT: channels side by side, of floats or of signs."""
    if this.inputs[0].kind is Kind.FLOAT:
        return (np.concatenate(parts, axis=1),)
    signs = [unpack(part, value.channels) for part, value in zip(parts, this.inputs, strict=True)]
    return (pack_minus(np.concatenate(signs, axis=1) < 0),)


def add(this: Site, x: Floats, y: Floats) -> Outputs:
    """ADD: the sum of two values, the second one perhaps of the parents."""
    return (x + _placed(this, y, this.inputs[1].level),)


OPS: dict[Op, Callable[..., Outputs]] = {
    Op.SPARSE_CONV: sparse_conv,
    Op.BINARY_SPARSE_CONV: binary_sparse_conv,
    Op.SITE_MEAN: site_mean,
    Op.UNPOOL: unpool,
    Op.CONCAT: concat,
    Op.ADD: add,
}


def _groups(this: Site) -> list[tuple[slice, KernelMap]]:
    """Return the columns of the answer that see the same pairs, and these pairs."""
    level, into = this.inputs[0].level, this.outputs[0].level
    if into != level:
        return [(slice(None), this.at.down[level] if into > level else this.at.down[into].transposed())]
    same, size = this.at.levels[level].same, len(this.at.levels[level].same.offsets)
    if size == NEIGHBOURS:
        return [(slice(None), same)]
    shifts = this.step.blobs.get("shifts", np.zeros((1, 3), np.int8)).tolist()
    width = this.outputs[0].channels // len(shifts)
    columns = [slice(group * width, (group + 1) * width) for group in range(len(shifts))]
    return [(each, same.picked(neighbour_rows(shift))) for each, shift in zip(columns, shifts, strict=True)]


def _kernels(this: Site) -> list[Words]:
    """Return the packed weights (words(inputs), C) of each offset of a binary convolution."""
    channels = this.inputs[0].channels
    terms = channels * offsets_of(this.inputs[0], this.outputs[0])
    signs = unpack_weights(this.step.blobs["weight"], terms)
    return [pack_weights(signs[:, first : first + channels]) for first in range(0, terms, channels)]


def _rows(this: Site) -> int:
    return len(this.at.levels[this.outputs[0].level].sites)


def _placed(this: Site, x: Floats, level: int) -> Floats:
    """Return x, of the answer's level or of the one above, as a row per site of the answer."""
    into = this.outputs[0].level
    if level == into:
        return x
    down = this.at.down[into]
    placed = np.empty((down.input_sites, x.shape[1]), np.float32)
    placed[down.inputs] = x[down.outputs]
    return placed
