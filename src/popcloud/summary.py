"""What a program costs, step by step: parameters, multiply-adds, bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from popcloud.errors import FileError
from popcloud.packed.file import data_offset
from popcloud.packed.grid import offsets_of
from popcloud.packed.layout import up
from popcloud.packed.points import SETTINGS, group_inputs
from popcloud.packed.program import CONVOLUTIONS, Op, Program, Rows, Sampling, Step, Value
from popcloud.packed.validate import BINARY

FILE_ROW = "header, tables, names"
TOTAL_ROW = "total"
ACTIVE = 12  # neighbours of 27 that a site of a surface has: 7 to 16 in scans of rooms and towns, fewest at fine voxels
SHRINK_BITS = 2  # each level has 2^2 times fewer sites of a surface
SEARCHES = frozenset(  # that take the distance of every row of the answer to every row of the last input
    (Op.FARTHEST_POINTS, Op.NEAREST, Op.NEAREST_FEATURES, Op.NEAREST_SIGNS, Op.BALL, Op.DENSITY)
)
PRODUCTS = frozenset((Op.LINEAR, Op.TRANSFORM, Op.SPARSE_CONV, Op.LINEAR_GROUPS, Op.PRODUCT))  # of floats


@dataclass(frozen=True)
class Row:
    """One line of a summary.

    name         of the value that the step writes
    op           the Op's name; empty for what is no step
    binary       1-bit parameters: weights, without the padding of their words
    floats       32-bit parameters: float weights, scales, biases, thresholds, limits; no radii or other settings
    binary_macs  multiply-adds of signs for one cloud; of a network on a grid for one scene of surfaces
    float_macs   float multiply-adds for one cloud: products and per-channel scales; pooling and sums have none. A
                 search counts as if it took all distances, a multiply-add per channel of each
    bytes        in the file, the padding of arrays to 64 bytes included
    """

    name: str
    op: str
    binary: int
    floats: int
    binary_macs: int
    float_macs: int
    bytes: int


def summarize(program: Program, points: int, file_bytes: int | None = None) -> list[Row]:
    """Return a row per step, a row for the rest of the file, and the total.

    points      of a cloud, for the multiply-adds; a program that resamples has its own number instead. Of a network
                on a grid: sites of level 0 of a scene, of which each site has ACTIVE neighbours, itself included, and
                each level a quarter of those of the one below
    file_bytes  the size of the program's file, if there is one
    The bytes add up to the file's size. Raises FileError if `file_bytes` is another size.
    """
    rows = [_row(program, step, program.points or points) for step in program.steps]
    rows.append(Row(FILE_ROW, "", 0, 0, 0, 0, data_offset(program)))
    total = Row(TOTAL_ROW, "", *(sum(getattr(row, f.name) for row in rows) for f in fields(Row)[2:]))
    if file_bytes is not None and file_bytes != total.bytes:
        raise FileError(f"expected a file of {total.bytes} bytes for this program, found {file_bytes}; pack it again")
    return [*rows, total]


def operations(row: Row) -> float:
    """Return OPs = FLOPs + BOPs / 64, in multiply-adds, as Bi-Real Net (Liu et al. 2018) counts them."""
    return row.float_macs + row.binary_macs / 64


def table(rows: Sequence[Row], sites: int | None = None) -> str:
    """Return the rows of `summarize` as text: aligned columns, OPs below the total.

    sites  of level 0, of a network on a grid
    """
    heads = ("step", "op", "1-bit", "32-bit", "binary MAC", "float MAC", "bytes")
    cells = [(row.name, row.op, *(f"{getattr(row, f.name):,}" for f in fields(Row)[2:])) for row in rows]
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(heads))]
    lines = [_line(line, widths) for line in [heads, *cells]]
    rule = "-" * len(lines[0])
    what = "cloud" if sites is None else f"scene of {sites:,} sites on surfaces"
    share = f"OPs per {what} = float MAC + binary MAC / 64 = {operations(rows[-1]):,.0f}"
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], share])


def _row(program: Program, step: Step, points: int) -> Row:
    blobs, y = step.blobs, program.values[step.output]
    x = program.values[step.inputs[0]]
    binary = step.op in BINARY or step.op is Op.BINARY_SPARSE_CONV
    signs = binary or step.op is Op.NEAREST_SIGNS
    macs = _multiply_adds(program, step, points)
    offsets = offsets_of(x, y) if step.op in CONVOLUTIONS else 1
    return Row(
        name=y.name,
        op=step.op.name,
        binary=offsets * _weights(x, y, step) if binary else 0,
        floats=sum(b.size for name, b in blobs.items() if name not in SETTINGS and not (binary and name == "weight")),
        binary_macs=macs if signs else 0,
        float_macs=(0 if signs else macs) + _scales(step) * _rows(program, y, points) * y.channels,
        bytes=sum(up(blob.nbytes) for blob in blobs.values()),
    )


def _multiply_adds(program: Program, step: Step, points: int) -> int:
    """Return how many multiply-adds a step has, of signs or of floats, without its scales."""
    x, y = program.values[step.inputs[0]], program.values[step.output]
    if step.op in SEARCHES:
        among = program.values[step.inputs[-1]]
        return _rows(program, y, points) * _rows(program, among, points) * among.channels
    if step.op in CONVOLUTIONS:
        return _pairs(program, x, y, points) * _weights(x, y, step)
    if step.op not in BINARY | PRODUCTS:
        return 0
    return _rows(program, x, points) * (y.channels if step.op is Op.PRODUCT else _weights(x, y, step))


def _weights(x: Value, y: Value, step: Step) -> int:
    """Return how many weights a row is multiplied with; of a convolution, at one kernel offset."""
    columns = step.blobs["scale"].size if step.op is Op.BINARY_SUM else y.channels
    return group_inputs(y.name, step, x.channels, y.channels) * columns


def _rows(program: Program, value: Value, points: int) -> int:
    """Return how many rows a value has; of sites, on a scene of surfaces."""
    if value.rows is Rows.CLOUD:
        return 1
    if isinstance(program.plan, Sampling):
        return program.plan.count(points, value.level) * value.each
    return -(-points // (1 << SHRINK_BITS * value.level))


def _pairs(program: Program, x: Value, y: Value, points: int) -> int:
    """Return how many pairs of rows a convolution has: ACTIVE a site, or one per site of the finer level."""
    rows = max(_rows(program, x, points), _rows(program, y, points))
    return rows * ACTIVE if x.level == y.level else rows


def _scales(step: Step) -> int:
    """Return how many multiplications each element of the output takes on top of the products."""
    if step.op in CONVOLUTIONS or step.op is Op.BINARY_SUM:
        return len(step.blobs["scale"])
    scaled = "scale" in step.blobs or step.op in (Op.RPRELU, Op.MULTIPLY)
    return int(scaled) + int(step.op is Op.BINARY_LINEAR and len(step.inputs) == 2)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return text to the left, numbers to the right."""
    text = [cell.ljust(width) for cell, width in zip(cells[:2], widths[:2], strict=True)]
    return "  ".join(text + [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)])
