"""What a program costs, step by step: parameters, multiply-adds, bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from popcloud.errors import FileError
from popcloud.packed.file import data_offset
from popcloud.packed.grid import offsets_of
from popcloud.packed.layout import up
from popcloud.packed.program import CONVOLUTIONS, Op, Program, Rows, Step
from popcloud.packed.validate import BINARY

FILE_ROW = "header, tables, names"
TOTAL_ROW = "total"


@dataclass(frozen=True)
class Row:
    """One line of a summary.

    name         of the value that the step writes
    op           the Op's name; empty for what is no step
    binary       1-bit parameters: weights, without the padding of their words
    floats       32-bit parameters: float weights, scales, biases, thresholds, limits
    binary_macs  multiply-adds of signs for one cloud; of a network on a grid 0, as they depend on the scene
    float_macs   float multiply-adds for one cloud: products and per-channel scales; pooling has none; as above
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

    points      of a cloud, for the multiply-adds; a program that resamples has its own number instead
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


def table(rows: Sequence[Row]) -> str:
    """Return the rows of `summarize` as text: aligned columns, OPs below the total."""
    heads = ("step", "op", "1-bit", "32-bit", "binary MAC", "float MAC", "bytes")
    cells = [(row.name, row.op, *(f"{getattr(row, f.name):,}" for f in fields(Row)[2:])) for row in rows]
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(heads))]
    lines = [_line(line, widths) for line in [heads, *cells]]
    rule = "-" * len(lines[0])
    share = f"OPs per cloud = float MAC + binary MAC / 64 = {operations(rows[-1]):,.0f}"
    if not operations(rows[-1]):
        share = "OPs depend on how many neighbours the sites of a scene have"
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], share])


def _row(program: Program, step: Step, points: int) -> Row:
    blobs = step.blobs
    x, y = program.values[step.inputs[0]], program.values[step.output]
    counts = {Rows.POINT: points, Rows.CLOUD: 1, Rows.SITES: 0}
    rows_in, rows_out = counts[x.rows], counts[y.rows]
    terms = x.channels * (offsets_of(x, y) if step.op in CONVOLUTIONS else 1)
    product = rows_in * terms * y.channels
    binary = step.op in BINARY or step.op is Op.BINARY_SPARSE_CONV
    return Row(
        name=y.name,
        op=step.op.name,
        binary=terms * y.channels if binary else 0,
        floats=sum(blob.size for name, blob in blobs.items() if not (binary and name == "weight")),
        binary_macs=product if binary else 0,
        float_macs=(product if step.op in (Op.LINEAR, Op.TRANSFORM) else 0) + _scales(step) * rows_out * y.channels,
        bytes=sum(up(blob.nbytes) for blob in blobs.values()),
    )


def _scales(step: Step) -> int:
    """Return how many multiplications each element of the output takes on top of the products."""
    scaled = "scale" in step.blobs or step.op is Op.RPRELU
    return int(scaled) + int(step.op is Op.BINARY_LINEAR and len(step.inputs) == 2)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return text to the left, numbers to the right."""
    text = [cell.ljust(width) for cell, width in zip(cells[:2], widths[:2], strict=True)]
    return "  ".join(text + [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)])
