"""Random valid programs on points, and clouds for them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from popcloud.packed.bits import pack_weights
from popcloud.packed.points import OPS
from popcloud.packed.program import Activation, Array, Kind, Op, Program, Rows, Sampling, Step, Value
from popcloud.packed.validate import ACTIVATED, POOLED, PROJECT, TO_BITS
from programs import POOL_OPS, Builder

WIDTHS = (1, 2, 3, 8, 63, 64, 65, 100)
MOST = 200  # channels that a step may widen a value to: random programs stay quick
FEWEST = 70  # points of a cloud on which every random program runs: searches look at 9 of the smallest level
ROW_OPS = {
    Kind.FLOAT: (Op.LINEAR, Op.AFFINE, Op.RPRELU, Op.ROW_MEAN_ABS, *[Op.BINARIZE] * 5),
    Kind.BITS: (Op.BINARY_LINEAR, Op.BINARY_LINEAR_BITS),
}


class PointBuilder(Builder):
    """Grows a program on points step by step; every constant comes from `rng`."""

    def __init__(self, rng: np.random.Generator, ratios: tuple[float, ...] = (), features: int = 3):
        super().__init__(rng)
        self.plan = Sampling(ratios)
        self.features = ("x", "y", "z", *(f"feature {i}" for i in range(3, features)))
        self.values = [Value("points", Kind.FLOAT, Rows.POINT, features)]
        self.into: dict[int, int] = {}  # by INDEX value: the level whose rows it has
        self.xyz = {0: 0 if features == 3 else self.slice(0, 0, 3)}  # by level: its positions

    def add(
        self, op: Op, *inputs: int, channels: int = 0, activation: Activation = Activation.NONE, by_point: bool = False
    ) -> int:
        """Append a step that works row by row, or a pool, of the neighbours of each point if `by_point`."""
        output = super().add(op, *inputs, channels=channels, activation=activation)
        x, y = self.values[inputs[0]], self.values[output]
        if op not in POOLED:
            self.values[output] = Value(y.name, y.kind, x.rows, y.channels, x.level, x.each)
        elif by_point:
            self.values[output] = Value(y.name, y.kind, Rows.POINT, y.channels, x.level)
        return output

    def emit(
        self,
        op: Op,
        inputs: tuple[int, ...],
        kind: Kind,
        channels: int,
        like: Value,
        each: int | None = None,
        activation: Activation = Activation.NONE,
        **blobs: object,
    ) -> int:
        """Append a step and return its value, of the rows and the level of `like`."""
        output = len(self.values)
        each = like.each if each is None else each
        self.values.append(Value(f"{op.name.lower()}_{output}", kind, like.rows, channels, like.level, each))
        self.steps.append(Step(op, inputs, output, activation, {name: np.asarray(b) for name, b in blobs.items()}))
        return output

    def normal(self, *shape: int) -> Array:
        """Return floats around 0."""
        return self.rng.normal(size=shape).astype(np.float32)

    def signs(self, inputs: int, outputs: int) -> Array:
        """Return packed weights."""
        return pack_weights(self.rng.choice([-1, 1], (outputs, inputs)))

    def chance(self) -> Activation:
        """Return an activation without constants that any op with one takes."""
        return Activation(self.rng.integers(3))

    def slice(self, x: int, first: int, channels: int) -> int:
        """Append SLICE."""
        columns = np.array([first, channels], np.int32)
        return self.emit(Op.SLICE, (x,), Kind.FLOAT, channels, self.values[x], columns=columns)

    def sample(self, level: int) -> int:
        """Append what makes the positions of level + 1, and return its INDEX value."""
        above = Value("", Kind.INDEX, Rows.POINT, 1, level + 1)
        rows = self.emit(Op.FARTHEST_POINTS, (self.xyz[level],), Kind.INDEX, 1, above)
        self.into[rows] = level
        self.xyz[level + 1] = self.gather(self.xyz[level], rows)
        return rows

    def search(self, op: Op, queries: int, points: int, k: int, number: float = 1) -> int:
        """Append a search; `number` is its dilation or its radius."""
        blobs = (
            {"radius": np.array([number], np.float32)} if op is Op.BALL else {"dilation": np.array([number], np.int32)}
        )
        rows = self.emit(op, (queries, points), Kind.INDEX, k, self.values[queries], **blobs)
        self.into[rows] = self.values[points].level
        return rows

    def gather(self, x: int, rows: int) -> int:
        """Append GATHER."""
        value, index = self.values[x], self.values[rows]
        return self.emit(Op.GATHER, (x, rows), value.kind, value.channels, index, index.channels)

    def reshape(self, x: int, each: int) -> int:
        """Append RESHAPE to another number of rows per point."""
        value = self.values[x]
        return self.emit(Op.RESHAPE, (x,), Kind.FLOAT, value.each * value.channels // each, value, each)

    def product(self, x: int, matrix: int) -> int:
        """Append PRODUCT."""
        channels = self.values[x].channels * self.values[matrix].channels
        return self.emit(Op.PRODUCT, (x, matrix), Kind.FLOAT, channels, self.values[x], 1)

    def density(self, level: int, bandwidth: float) -> int:
        """Append DENSITY."""
        x = self.xyz[level]
        blob = np.array([bandwidth], np.float32)
        return self.emit(Op.DENSITY, (x,), Kind.FLOAT, 1, self.values[x], bandwidth=blob)

    def grouped(self, x: int, groups: int, channels: int) -> int:
        """Append LINEAR_GROUPS or BINARY_GROUPS, as x is of floats or of signs."""
        value = self.values[x]
        terms, count = value.channels // groups, np.array([groups], np.int32)
        if value.kind is Kind.FLOAT:
            op, blobs = Op.LINEAR_GROUPS, {"weight": self.normal(terms, channels), "bias": self.normal(channels)}
        else:
            wide = [channels if self.rng.integers(2) else 1 for _ in range(2)]
            blobs = {"weight": self.signs(terms, channels)}
            op, blobs = Op.BINARY_GROUPS, blobs | {"scale": self.normal(wide[0]), "bias": self.normal(wide[1])}
        return self.emit(op, (x,), Kind.FLOAT, channels, value, activation=self.chance(), **blobs, groups=count)

    def summed(self, x: int, bases: int, channels: int, added: int | None = None) -> int:
        """Append BINARY_SUM."""
        weight = self.signs(self.values[x].channels, bases * channels)
        blobs = {"weight": weight, "scale": self.normal(bases, channels), "bias": self.normal(channels)}
        inputs = (x,) if added is None else (x, added)
        return self.emit(Op.BINARY_SUM, inputs, Kind.FLOAT, channels, self.values[x], activation=self.chance(), **blobs)

    def two(self, op: Op, x: int, other: int) -> int:
        """Append SUBTRACT or MULTIPLY."""
        return self.emit(op, (x, other), Kind.FLOAT, self.values[x].channels, self.values[x])

    def concat(self, *parts: int) -> int:
        """Append CONCAT, in the rows of the part that has most."""
        values = [self.values[i] for i in parts]
        like = max((v for v in values if v.rows is Rows.POINT), key=lambda v: v.each)
        return self.emit(Op.CONCAT, parts, values[0].kind, sum(v.channels for v in values), like)

    def grow_point(self, x: int) -> None:
        """Append one step that can follow value x, chosen by chance; what would be too wide is left out."""
        source = self.values[x]
        if source.kind is Kind.INDEX:
            self.gather(self.one(self.like(level=self.into[x], each=1, rows=Rows.POINT)), x)
            return
        op = self.one([*ROW_OPS[source.kind], *POOL_OPS[source.kind], *GROWN[source.kind] * 2])
        if op in GROWN[source.kind]:
            GROW[op](self, x)
        elif op not in POOLED or source.rows is Rows.POINT:
            inputs = (x,)
            if op is Op.BINARY_LINEAR and self.rng.integers(2) and (scale := self.row_scale(x)) is not None:
                inputs = (x, scale)
            act = self.chance() if op in ACTIVATED else Activation.NONE
            act = Activation.SIGMOID if op is Op.LINEAR and not self.rng.integers(4) else act
            self.add(
                op, *inputs, channels=int(self.rng.choice(WIDTHS)), activation=act, by_point=self.rng.integers(3) > 0
            )

    def one(self, items: object) -> object:
        """Return one of the items."""
        items = list(items)
        return items[self.rng.integers(len(items))]

    def like(self, **fields: object) -> list[int]:
        """Return the FLOAT and BITS values with these fields."""
        return [
            i
            for i, v in enumerate(self.values)
            if v.kind is not Kind.INDEX and all(getattr(v, name) == wanted for name, wanted in fields.items())
        ]

    def program(
        self, classes: int, x: int | None = None, points: int = 0, normalize: str = "none", **more: object
    ) -> Program:
        """Return the program, ended by a classifier on value x, or on the last one that may be the answer's."""
        if x is None:
            x = max(i for i in self.like(level=0, each=1))
        self.add(Op.LINEAR if self.values[x].kind is Kind.FLOAT else Op.BINARY_LINEAR, x, channels=classes)
        names = tuple(f"class {i}" for i in range(classes))
        return Program(
            tuple(self.values),
            tuple(self.steps),
            points,
            normalize,
            names,
            plan=self.plan,
            features=self.features,
            **more,
        )


def _search(build: PointBuilder, x: int) -> None:
    """Search around the points of a level among those of another: positions, x itself, or its signs."""
    source = build.values[x]
    k = int(build.rng.integers(1, 6))
    if source.rows is Rows.CLOUD or source.each > 1:
        return
    if source.kind is Kind.BITS or build.rng.integers(2):
        op = Op.NEAREST_SIGNS if source.kind is Kind.BITS else Op.NEAREST_FEATURES
        among = build.one(build.like(kind=source.kind, channels=source.channels, rows=Rows.POINT, each=1))
        build.search(op, x, among, k, int(build.rng.integers(1, 3)))
        return
    queries, points = build.one(build.xyz), build.one(build.xyz)
    op = build.one([Op.NEAREST, Op.BALL])
    number = 10 if op is Op.BALL else int(build.rng.integers(1, 3))  # a ball that is never empty
    build.search(op, build.xyz[queries], build.xyz[points], k, number)


def _sample(build: PointBuilder, x: int) -> None:
    if len(build.xyz) <= len(build.plan.ratios):
        build.sample(len(build.xyz) - 1)


def _two(op: Op):
    def grow(build: PointBuilder, x: int) -> None:
        source = build.values[x]
        others = [
            i
            for i in build.like(kind=Kind.FLOAT)
            for v in [build.values[i]]
            if (v.rows is source.rows and v.level == source.level and v.each in (1, source.each))
            or (op is Op.MULTIPLY and v.rows is Rows.CLOUD)
            if v.channels == source.channels or (op is Op.MULTIPLY and v.channels == 1)
        ]
        build.two(op, x, build.one(others))

    return grow


def _reshape(build: PointBuilder, x: int) -> None:
    source = build.values[x]
    total = source.each * source.channels
    if source.rows is Rows.POINT:
        build.reshape(x, build.one(each for each in range(1, 7) if total % each == 0))


def _product(build: PointBuilder, x: int) -> None:
    source = build.values[x]
    beside = build.like(kind=Kind.FLOAT, rows=Rows.POINT, level=source.level, each=source.each)
    narrow = [i for i in beside if build.values[i].channels * source.channels <= MOST]
    if narrow and source.rows is Rows.POINT:
        build.product(x, build.one(narrow))


def _density(build: PointBuilder, x: int) -> None:
    build.density(build.one(build.xyz), 0.05 + float(build.rng.random()))


def _slice(build: PointBuilder, x: int) -> None:
    channels = build.values[x].channels
    first = int(build.rng.integers(channels))
    build.slice(x, first, int(build.rng.integers(1, channels - first + 1)))


def _grouped(build: PointBuilder, x: int) -> None:
    groups = build.one(g for g in range(1, 9) if build.values[x].channels % g == 0)
    build.grouped(x, groups, groups * int(build.rng.integers(1, 12)))


def _summed(build: PointBuilder, x: int) -> None:
    source, channels = build.values[x], int(build.rng.choice(WIDTHS))
    same = build.like(kind=Kind.FLOAT, rows=source.rows, level=source.level, each=source.each, channels=channels)
    added = build.one(same) if same and build.rng.integers(2) else None
    build.summed(x, int(build.rng.integers(1, 5)), channels, added)


def _concat(build: PointBuilder, x: int) -> None:
    source = build.values[x]
    if source.rows is Rows.CLOUD:
        return
    fits = [
        i
        for i in build.like(kind=source.kind)
        for v in [build.values[i]]
        if v.rows is Rows.CLOUD or (v.level == source.level and v.each in (1, source.each))
        if v.channels <= MOST
    ]
    if fits and source.channels <= MOST:
        build.concat(x, *(build.one(fits) for _ in range(build.rng.integers(1, 4))))


GROW = {
    Op.NEAREST: _search,  # and the other searches
    Op.FARTHEST_POINTS: _sample,
    Op.SUBTRACT: _two(Op.SUBTRACT),
    Op.MULTIPLY: _two(Op.MULTIPLY),
    Op.RESHAPE: _reshape,
    Op.PRODUCT: _product,
    Op.DENSITY: _density,
    Op.SLICE: _slice,
    Op.LINEAR_GROUPS: _grouped,
    Op.BINARY_GROUPS: _grouped,
    Op.BINARY_SUM: _summed,
    Op.CONCAT: _concat,
}
GROWN = {
    Kind.FLOAT: tuple(op for op in GROW if not op.name.startswith("BINARY_")),
    Kind.BITS: (Op.NEAREST, Op.BINARY_GROUPS, Op.BINARY_SUM, Op.CONCAT),
}


def random_point_program(
    seed: int, depth: int = 8, levels: int = 2, features: int = 3, classes: int = 4, points: int = 0
) -> Program:
    """Return a valid program of up to `depth` steps, a search and its neighbours, and a classifier."""
    rng = np.random.default_rng(seed)
    build = PointBuilder(rng, tuple(float(r) for r in rng.uniform(0.6, 1, levels)), features)
    rows = build.search(Op.NEAREST, build.xyz[0], build.xyz[0], int(rng.integers(1, 6)))
    build.gather(0, rows)
    for _ in range(depth):
        build.grow_point(int(rng.integers(max(0, len(build.values) - 8), len(build.values))))
    normalize = ("none", "unit_sphere", "blocks")[seed % 3]
    whole = build.like(rows=Rows.CLOUD)
    x = build.one(whole) if whole and seed % 2 else None
    return build.program(classes, x, points=points, normalize=normalize, meta={"recipe": "none"})


def every_point_op(seed: int, by_point: bool = False) -> Program:
    """Return one program with every op of points, each pool by points and over all, and an answer of either kind."""
    build = PointBuilder(np.random.default_rng(seed), (0.5, 0.5), 5)
    xyz = build.xyz[0]
    sampled = build.sample(0)
    build.sample(1)
    near = build.search(Op.NEAREST, xyz, xyz, 4, 2)
    features = build.add(Op.LINEAR, 0, channels=12, activation=Activation.SIGMOID)
    alike = build.search(Op.NEAREST_FEATURES, features, features, 3)
    edges = build.gather(features, alike)
    edges = build.concat(build.two(Op.SUBTRACT, edges, features), features)
    signs = build.add(Op.BINARIZE, edges)
    pooled = [
        build.add(op, edges if op in POOL_OPS[Kind.FLOAT] else signs, channels=12, by_point=True)
        for op in (*POOL_OPS[Kind.FLOAT], *POOL_OPS[Kind.BITS])
    ]
    bits = next(i for i in pooled if build.values[i].kind is Kind.BITS)
    hamming = build.gather(bits, build.search(Op.NEAREST_SIGNS, bits, bits, 4))
    floats = build.grouped(build.concat(hamming, build.gather(bits, near)), 2, 8)
    offsets = build.two(Op.SUBTRACT, build.gather(xyz, near), xyz)
    matrix = build.reshape(build.grouped(build.reshape(offsets, 1), 3, 12), 4)
    rows = build.product(floats, matrix)
    rows = build.two(Op.MULTIPLY, rows, build.density(0, 0.5))
    rows = build.add(Op.RPRELU, build.add(Op.AFFINE, rows, activation=Activation.HARDTANH))
    packed = build.add(Op.BINARIZE, rows)
    rows = build.summed(packed, 3, 24, rows)
    balls = build.search(Op.BALL, build.xyz[1], build.xyz[0], 6, 10)
    fine = build.add(Op.BINARIZE, build.gather(rows, balls))
    coarse = build.add(Op.BINARY_MAX_BITS, fine, channels=70, by_point=True)
    coarse = build.add(Op.BINARY_LINEAR, build.add(Op.BINARY_LINEAR_BITS, coarse, channels=65), channels=9)
    coarse = build.concat(coarse, build.gather(rows, sampled))
    whole = [build.add(op, coarse) for op in POOL_OPS[Kind.FLOAT]]
    signs = build.add(Op.BINARIZE, coarse)
    for op in POOL_OPS[Kind.BITS]:
        pool = build.add(op, signs, channels=33)
        whole.append(pool if op not in TO_BITS else build.add(Op.BINARY_LINEAR, pool, channels=33))
    gate = build.add(Op.LINEAR, whole[0], channels=24, activation=Activation.SIGMOID)
    moved = build.add(Op.TRANSFORM, xyz, build.add(Op.LINEAR, whole[1], channels=9))
    back = build.gather(coarse, build.search(Op.NEAREST, build.xyz[0], build.xyz[1], 1))
    rows = build.concat(build.two(Op.MULTIPLY, rows, gate), back, moved, whole[2])
    row = build.add(Op.ROW_MEAN_ABS, rows)
    rows = build.add(Op.BINARY_LINEAR, build.add(Op.BINARIZE, rows), row, channels=20)
    if not by_point:
        rows = build.two(Op.MULTIPLY, whole[3], build.slice(gate, 3, 1))
    assert {step.op for step in build.steps} >= OPS | POOLED | PROJECT
    return build.program(3, rows, meta={"seed": str(seed)})


def point_programs() -> st.SearchStrategy[Program]:
    """Random valid programs on points for hypothesis."""
    return st.builds(
        random_point_program,
        seed=st.integers(0, 2**32 - 1),
        depth=st.integers(0, 16),
        levels=st.integers(0, 4),
        features=st.integers(3, 6),
        classes=st.integers(1, 9),
        points=st.sampled_from([0, 0, 300]),
    )


def cloud_of(rng: np.random.Generator, points: int, program: Program) -> Array:
    """Return points (points, features) in a cube, some of them twice: neighbours at equal distances are there."""
    rows = rng.uniform(-1, 1, (points, len(program.features))).astype(np.float32)
    rows[points // 2 :: 5] = rows[: len(rows[points // 2 :: 5])]
    return rows
