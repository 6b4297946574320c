"""Proof that a packed program computes what PyTorch computes: step by step, and in whole runs.

A step is fed with PyTorch's own values wherever PyTorch has them, so that a difference shows in the layer that makes
it and does not hide the layers behind it. Signs must be equal bit for bit; floats may differ by rounding, since
PyTorch sums in another order. A whole run starts at the cloud and must give the same class: for every cloud, or, of a
network on a voxel grid, for all but one point in a thousand, as a float that lies on a threshold may turn a sign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from popcloud.packed.program import Array, Grid, Kind, Op, Program, Step

TOLERANCE = 1e-5  # of a float, as a share of the largest magnitude in PyTorch's value, which counts as 1 at least

POINTS_AGREEING = 0.999  # the share of points that a whole run on a grid must give PyTorch's class

Stepper = Callable[[int, list[Array], Any], Array | tuple[Array, ...]]
"""(index of a step, its inputs, number of points or the kernel maps of a grid) -> the step's outputs."""

Answerer = Callable[[Array, Any], Array]
"""Value 0 of one cloud (rows, channels), and as above -> its answer, (classes,) or a row per site."""


@dataclass
class Line:
    """What was found about one step, over all clouds so far.

    name       of the value it writes
    op         the Op's name
    kind       "bits", "floats", "rows" that a search found, or "" where PyTorch has no such value and only what follows
               is compared
    compared   how many signs, floats or rows
    differing  how many signs differ; of floats, how many are off by more than the tolerance
    error      of floats, the largest difference as a share of TOLERANCE's unit; 0 for bits
    """

    name: str
    op: str
    kind: str
    compared: int = 0
    differing: int = 0
    error: float = 0.0

    @property
    def ok(self) -> bool:
        """Return whether nothing differs."""
        return self.differing == 0


@dataclass(frozen=True)
class Report:
    """What a verification came to.

    lines     one per value that a step writes, in the program's order
    clouds    how many were compared
    answers   how many answers that is: as many, or their points
    agreeing  how many of them are PyTorch's class in a whole run
    share     how many of them must be
    """

    lines: tuple[Line, ...]
    clouds: int
    answers: int
    agreeing: int
    share: float = 1.0

    @property
    def first(self) -> Line | None:
        """Return the first step that differs, or None."""
        return next((line for line in self.lines if not line.ok), None)

    @property
    def ok(self) -> bool:
        """Return whether at least one cloud was compared, no step differs and enough answers agree."""
        return self.clouds > 0 and self.first is None and self.agreeing >= self.share * self.answers


@dataclass
class Verification:
    """Collects what is found, cloud by cloud.

    program  the one that `step` and `answer` carry out
    step     carries out one step
    answer   a whole run
    """

    program: Program
    step: Stepper
    answer: Answerer
    clouds: int = 0
    answers: int = 0
    agreeing: int = 0
    lines: dict[int, Line] = field(init=False)

    def __post_init__(self) -> None:
        steps = self.program.steps
        self.lines = {o: Line(self.program.values[o].name, s.op.name, "") for s in steps for o in s.outputs}

    def add(
        self, cloud: Array, taps: Mapping[int, Array], at: Any = None, points: Array | None = None, more: bool = False
    ) -> None:
        """Compare one cloud, or some points of one that is dealt out into sets.

        cloud   value 0: (n, 3) float32, resampled and normalised as the program says, or rows of sites
        taps    PyTorch's values by index into Program.values; the answer must be among them
        at      of a network on a grid the kernel maps, as `step` and `answer` take them
        points  of such a one (N,): the row of each point's site
        more    these are further points of the cloud before, which counts once
        """
        known: dict[int, Array] = {0: cloud}
        place = len(cloud) if at is None else at
        for index, step in enumerate(self.program.steps):
            found = self.step(index, [known[i] for i in step.inputs], place)
            outputs = found if isinstance(found, tuple) else (found,)
            for output, array in zip(step.outputs, outputs, strict=True):
                if output in taps:
                    self._compare(output, array, taps[output])
                known[output] = taps.get(output, array)
        wanted = np.atleast_2d(taps[self.program.steps[-1].output])
        same = np.atleast_2d(self.answer(cloud, place)).argmax(axis=1) == wanted.argmax(axis=1)
        same = same if points is None else same[points]
        self.clouds += not more
        self.answers += len(same)
        self.agreeing += int(same.sum())

    def report(self) -> Report:
        """Return what was found so far."""
        share = POINTS_AGREEING if isinstance(self.program.plan, Grid) else 1.0
        return Report(tuple(self.lines.values()), self.clouds, self.answers, self.agreeing, share)

    def _compare(self, output: int, found: Array, wanted: Array) -> None:
        value, line = self.program.values[output], self.lines[output]
        if value.kind is Kind.BITS:
            line.kind = "bits"
            line.compared += len(wanted) * value.channels
            line.differing += differing_bits(found, wanted)
            return
        if value.kind is Kind.INDEX:
            line.kind = "rows"
            line.compared += wanted.size
            line.differing += int((found != wanted).sum())
            return
        errors = float_errors(found, wanted)
        line.kind = "floats"
        line.compared += errors.size
        line.differing += int((errors > TOLERANCE).sum())
        line.error = max(line.error, float(errors.max(initial=0.0)))


def differing_bits(found: Array, wanted: Array) -> int:
    """Return in how many bits two arrays of words differ; the tails count, as they must be 0 in both."""
    return int(np.bitwise_count(found ^ wanted).sum())


def float_errors(found: Array, wanted: Array) -> Array:
    """Return |found - wanted| / max(1, max |wanted|), float64.

    Equal values, NaN and infinities too, have no error; where one alone is not finite it is infinite.
    """
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    unit = max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0.0)))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        return np.where(same, 0.0, np.where(finite, np.abs(a - b) / unit, np.inf))


def mismatch(found: Program, wanted: Program) -> str | None:
    """Return in words where two programs first differ in what they are made of, so that they can't be compared.

    What is compared: points, normalisation, classes, grid, features, the values, the wiring of the steps; no constants.
    """
    for name in ("points", "normalize", "classes", "plan", "features"):
        a, b = getattr(found, name), getattr(wanted, name)
        if a != b:
            return f"{name}: the file has {_short(a)}, the checkpoint {_short(b)}"
    pairs = zip(found.steps, wanted.steps, strict=False)
    for index, (a, b) in enumerate(pairs):
        mine, theirs = _wiring(found, a), _wiring(wanted, b)
        if mine != theirs:
            return f"step {index}: the file has {_say(found, a)}, the checkpoint {_say(wanted, b)}"
    if len(found.steps) != len(wanted.steps):
        return f"the file has {len(found.steps)} steps, the checkpoint {len(wanted.steps)}"
    return None


def changed_constant(found: Program, wanted: Program) -> str | None:
    """Return in words the first constant in which two programs of the same steps differ, bit for bit, or None."""
    for index, (a, b) in enumerate(zip(found.steps, wanted.steps, strict=True)):
        if a.blobs.keys() != b.blobs.keys():
            return f"step {index}, {_say(found, a)}: has {', '.join(a.blobs)}, the checkpoint's {', '.join(b.blobs)}"
        for name, blob in b.blobs.items():
            mine = a.blobs[name]
            if mine.shape != blob.shape:
                return f"step {index}, {_say(found, a)}: {name} has shape {mine.shape}, the checkpoint's {blob.shape}"
            count = int((mine.view(_bits(mine)) != blob.view(_bits(blob))).sum())
            if count:
                return f"step {index}, {_say(found, a)}: {name} differs in {count} of {blob.size} elements"
    return None


def _wiring(program: Program, step: Step) -> tuple[object, ...]:
    values = [program.values[i] for i in (*step.inputs, *step.outputs)]
    kinds = [(v.kind, v.rows, v.channels, v.level) for v in values]
    return step.op, step.inputs, step.outputs, step.activation, kinds


def _say(program: Program, step: Step) -> str:
    value = program.values[step.output]
    return f"{value.name} ({Op(step.op).name}, {value.channels} channels)"


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} ({', '.join(map(str, value[:3]))}{', ...' if len(value) > 3 else ''})"
    return repr(value)


def _bits(array: Array) -> str:
    """Return the unsigned type of the same width: NaN equals itself there, and -0 differs from 0."""
    return f"u{array.dtype.itemsize}"


def table(report: Report) -> str:
    """Return a report as text: a line per step, then the answers and the first difference."""
    heads = ("step", "op", "compared", "differing", "largest error", "")
    cells = [heads] + [_cells(line) for line in report.lines]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    lines = [_aligned(row, widths) for row in cells]
    lines.insert(1, "-" * max(map(len, lines)))
    whole = "clouds" if report.share == 1.0 else "scenes"
    what = whole if report.answers == report.clouds else f"points of {report.clouds:,} {whole}"
    lines.append(f"answers: {report.agreeing:,} of {report.answers:,} {what} get PyTorch's class")
    if report.first is not None:
        lines.append(f"first layer that differs: {report.first.name} ({report.first.op})")
    return "\n".join(lines)


def _cells(line: Line) -> tuple[str, ...]:
    if not line.kind:
        return line.name, line.op, "-", "-", "-", "seen through the next step"
    compared = f"{line.compared:,} {line.kind}"
    error = "-" if line.kind == "bits" else f"{line.error:.1e}"
    return line.name, line.op, compared, f"{line.differing:,}", error, "ok" if line.ok else "DIFFERS"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    text = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    numbers = [cell.rjust(width) for cell, width in zip(row[2:5], widths[2:5], strict=True)]
    return "  ".join([*text, *numbers, row[5]]).rstrip()
