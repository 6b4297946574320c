"""Random valid programs on voxel grids, and clouds for them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from popcloud.cloud import PointCloud
from popcloud.packed.bits import pack_weights
from popcloud.packed.program import (
    CONVOLUTIONS,
    GRID_OPS,
    Activation,
    Array,
    Grid,
    Kind,
    Op,
    Program,
    Rows,
    Step,
    Value,
)
from popcloud.packed.validate import ACTIVATED, TO_BITS, may_be_half
from programs import Builder

WIDTHS = (1, 3, 16, 40, 64, 70)
ROW_OPS = {
    Kind.FLOAT: (Op.LINEAR, Op.AFFINE, Op.RPRELU, Op.BINARIZE, Op.ROW_MEAN_ABS),
    Kind.BITS: (Op.BINARY_LINEAR, Op.BINARY_LINEAR_BITS),
}
SITE_OPS = {
    Kind.FLOAT: (Op.SPARSE_CONV, Op.SITE_MEAN, Op.UNPOOL, Op.CONCAT, Op.ADD),
    Kind.BITS: (Op.BINARY_SPARSE_CONV, Op.CONCAT),
}


class GridBuilder(Builder):
    """Grows a program on a grid step by step; every constant comes from `rng`."""

    def __init__(self, rng: np.random.Generator, grid: Grid, features: int):
        super().__init__(rng)
        self.grid = grid
        self.features = tuple(f"feature {i}" for i in range(features))
        self.values = [Value("sites", Kind.FLOAT, Rows.SITES, features)]

    def blob(self, op: Op, name: str, inputs: int, outputs: int) -> Array:
        """Return constants; weights of LINEAR are in float16 half of the time."""
        made = super().blob(op, name, inputs, outputs)
        half = may_be_half(op, name, Rows.SITES) and self.rng.integers(2)
        return made.astype(np.float16) if half else made

    def add(self, op: Op, *inputs: int, channels: int = 0, activation: Activation = Activation.NONE) -> int:
        """Append a step that works row by row."""
        output = super().add(op, *inputs, channels=channels, activation=activation)
        x, y = self.values[inputs[0]], self.values[output]
        self.values[output] = Value(y.name, y.kind, y.rows, y.channels, x.level)
        return output

    def emit(self, op: Op, inputs: tuple[int, ...], kinds: str, channels: int, level: int, **step: object) -> int:
        """Append a step of GRID_OPS and return its first value; `kinds` has an F or a B per output."""
        first = len(self.values)
        for kind in kinds:
            name = f"{op.name.lower()}_{len(self.values)}"
            self.values.append(Value(name, Kind("FB".index(kind)), Rows.SITES, channels, level))
        self.steps.append(Step(op, inputs, first, more=tuple(range(first + 1, len(self.values))), **step))
        return first

    def conv(
        self,
        x: int,
        channels: int,
        *,
        kinds: str = "F",
        step: int = 0,
        shortcut: int | None = None,
        activation: Activation = Activation.NONE,
        groups: int = 0,
    ) -> int:
        """Append a convolution that leads `step` levels up."""
        source = self.values[x]
        offsets = 8 if step else 27
        floats = max(1, kinds.count("F"))
        blobs = {
            "weight": self.weight(source, offsets, channels),
            "scale": self.normal(floats, channels) / np.float32(np.sqrt(source.channels)),
            "bias": self.normal(floats, channels),
        }
        if activation is Activation.RPRELU:
            blobs["prelu"] = self.normal(3, channels)
        if "B" in kinds:
            blobs["thresholds"] = self.normal(kinds.count("B"), channels)
        if groups:
            blobs["shifts"] = self.rng.integers(-1, 1, (groups, 3), endpoint=True).astype(np.int8)
        op = Op.SPARSE_CONV if source.kind is Kind.FLOAT else Op.BINARY_SPARSE_CONV
        inputs = (x,) if shortcut is None else (x, shortcut)
        return self.emit(op, inputs, kinds, channels, source.level + step, activation=activation, blobs=blobs)

    def weight(self, source: Value, offsets: int, channels: int) -> Array:
        """Return the weights of a convolution."""
        if source.kind is Kind.FLOAT:
            return self.normal(offsets * source.channels, channels) / np.float32(3)
        return pack_weights(self.rng.choice([-1, 1], (channels, offsets * source.channels)))

    def normal(self, *shape: int) -> Array:
        """Return floats around 0."""
        return self.rng.normal(size=shape).astype(np.float32)

    def choose(self, *items: object) -> object:
        """Return one of the items."""
        return items[self.rng.integers(len(items))]

    def grow_site(self, x: int) -> None:
        """Append one step that can follow value x, chosen by chance."""
        source = self.values[x]
        ops = ROW_OPS[source.kind] + SITE_OPS[source.kind] * 2
        op = ops[self.rng.integers(len(ops))]
        level, top = source.level, self.grid.levels - 1
        if op in CONVOLUTIONS:
            self.random_conv(x)
        elif op is Op.SITE_MEAN and level < top:
            self.emit(op, (x,), "F", source.channels, level + 1)
        elif op is Op.UNPOOL and level:
            self.emit(op, (x,), "F", source.channels, level - 1)
        elif op is Op.CONCAT:
            beside = [i for i, v in enumerate(self.values) if (v.kind, v.level) == (source.kind, level)]
            parts = (x, *(int(self.rng.choice(beside)) for _ in range(self.rng.integers(1, 4))))
            self.emit(op, parts, "FB"[source.kind], sum(self.values[i].channels for i in parts), level)
        elif op is Op.ADD:
            self.emit(
                op, (x, int(self.rng.choice(self.shortcuts(source.channels, level)))), "F", source.channels, level
            )
        elif op not in GRID_OPS:
            act = Activation(self.rng.integers(3)) if op in ACTIVATED - TO_BITS else Activation.NONE
            self.add(op, x, channels=int(self.rng.choice(WIDTHS)), activation=act)

    def random_conv(self, x: int) -> None:
        """Append a convolution with everything chosen by chance."""
        level, top = self.values[x].level, self.grid.levels - 1
        step = int(self.rng.choice([0, 0, *([1] if level < top else []), *([-1] if level else [])]))
        channels, groups = int(self.rng.choice(WIDTHS)), 0
        if self.grid.size == 5 and not step:
            groups = int(self.choose(0, *(g for g in (1, 2, 4) if channels % g == 0)))
        beside = self.shortcuts(channels, level + step)
        shortcut = int(self.rng.choice(beside)) if beside and self.rng.integers(2) else None
        kinds = str(self.choose("F", "FF", "FB", "B", "FBB", "BBBB"))
        act = Activation(self.rng.integers(4))
        self.conv(x, channels, kinds=kinds, step=step, shortcut=shortcut, activation=act, groups=groups)

    def shortcuts(self, channels: int, level: int) -> list[int]:
        """Return the values that can be added to one of so many channels at a level."""
        return [
            i
            for i, v in enumerate(self.values)
            if v.kind is Kind.FLOAT and v.channels == channels and v.level - level in (0, 1)
        ]

    def program(self, classes: int) -> Program:
        """Return the program, ended by a classifier on the last value of the finest level."""
        x = max(i for i, value in enumerate(self.values) if value.level == 0)
        self.add(Op.LINEAR if self.values[x].kind is Kind.FLOAT else Op.BINARY_LINEAR, x, channels=classes)
        names = tuple(f"class {i}" for i in range(classes))
        values, steps = tuple(self.values), tuple(self.steps)
        return Program(values, steps, 0, "none", names, {"recipe": "none"}, self.grid, self.features)


def random_grid_program(
    seed: int, depth: int = 6, levels: int = 3, size: int = 3, features: int = 3, classes: int = 4
) -> Program:
    """Return a valid program of up to `depth` steps and a classifier."""
    build = GridBuilder(np.random.default_rng(seed), Grid(0.1 + 0.01 * (seed % 7), levels, size), features)
    for _ in range(depth):
        build.grow_site(int(build.rng.integers(len(build.values))))
    return build.program(classes)


def every_grid_op(seed: int, size: int = 5) -> Program:
    """Return one program with every op of grids: two levels, a binary U with its shortcuts, and shifted groups."""
    build = GridBuilder(np.random.default_rng(seed), Grid(0.15, 2, size), 3)
    x = build.conv(0, 16, kinds="FB", activation=Activation.RPRELU)
    groups = 4 if size == 5 else 0
    y = build.conv(x + 1, 16, kinds="FBB", shortcut=x, activation=Activation.RPRELU, groups=groups)
    mean = build.emit(Op.SITE_MEAN, (y,), "F", 16, 1)
    below = build.conv(y + 1, 70, kinds="FB", step=1, shortcut=build.add(Op.LINEAR, mean, channels=70))
    below = build.conv(below + 1, 70, kinds="FB", shortcut=below, activation=Activation.HARDTANH)
    up = build.conv(below + 1, 16, kinds="FB", step=-1, shortcut=build.add(Op.LINEAR, below, channels=16))
    joined = build.emit(Op.CONCAT, (y + 2, up + 1), "B", 32, 0)
    project = build.add(Op.BINARY_LINEAR, joined, channels=16)
    z = build.conv(joined, 16, shortcut=project, activation=Activation.RELU)
    logits = build.add(Op.LINEAR, build.emit(Op.CONCAT, (z, up), "F", 32, 0), channels=5)
    coarse = build.add(Op.LINEAR, below, channels=5)
    logits = build.emit(Op.ADD, (logits, coarse), "F", 5, 0)
    logits = build.emit(Op.ADD, (build.emit(Op.UNPOOL, (coarse,), "F", 5, 0), logits), "F", 5, 0)
    assert {step.op for step in build.steps} >= GRID_OPS
    return build.program(4)


def grid_programs() -> st.SearchStrategy[Program]:
    """Random valid programs on grids for hypothesis."""
    return st.builds(
        random_grid_program,
        seed=st.integers(0, 2**32 - 1),
        depth=st.integers(0, 8),
        levels=st.integers(1, 4),
        size=st.sampled_from([3, 5]),
        features=st.integers(1, 5),
        classes=st.integers(1, 9),
    )


def surface(rng: np.random.Generator, points: int, features: int) -> PointCloud:
    """Return points of a bent sheet with random features: neighbours are there, and are missing."""
    xy = rng.random((points, 2))
    xyz = np.column_stack([xy, 0.3 * np.sin(5 * xy[:, 0])]).astype(np.float32)
    return PointCloud(xyz, rng.normal(size=(points, features)).astype(np.float32))
