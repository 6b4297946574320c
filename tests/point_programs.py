"""Random valid programs on points, and clouds for them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from point_builder import PointBuilder
from popcloud.packed.points import OPS
from popcloud.packed.program import Activation, Array, Kind, Op, Program, Rows
from popcloud.packed.validate import ACTIVATED, POOLED, PROJECT, TO_BITS
from programs import POOL_OPS

WIDTHS = (1, 2, 3, 8, 63, 64, 65, 100)
MOST = 200  # channels that a step may widen a value to: random programs stay quick
FEWEST = 70  # points of a cloud on which every random program runs: searches look at 9 of the smallest level
ROW_OPS = {
    Kind.FLOAT: (Op.LINEAR, Op.AFFINE, Op.RPRELU, Op.ROW_MEAN_ABS, *[Op.BINARIZE] * 5),
    Kind.BITS: (Op.BINARY_LINEAR, Op.BINARY_LINEAR_BITS),
}


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


def grow(build: PointBuilder, x: int) -> None:
    """Append one step that can follow value x, chosen by chance; what would be too wide is left out."""
    source = build.values[x]
    if source.kind is Kind.INDEX:
        build.gather(build.one(build.like(level=build.into[x], each=1, rows=Rows.POINT)), x)
        return
    op = build.one([*ROW_OPS[source.kind], *POOL_OPS[source.kind], *GROWN[source.kind] * 2])
    if op in GROWN[source.kind]:
        GROW[op](build, x)
    elif op not in POOLED or source.rows is Rows.POINT:
        inputs = (x,)
        if op is Op.BINARY_LINEAR and build.rng.integers(2) and (scale := build.row_scale(x)) is not None:
            inputs = (x, scale)
        act = build.chance() if op in ACTIVATED else Activation.NONE
        act = Activation.SIGMOID if op is Op.LINEAR and not build.rng.integers(4) else act
        build.add(
            op, *inputs, channels=int(build.rng.choice(WIDTHS)), activation=act, by_point=build.rng.integers(3) > 0
        )


def random_point_program(
    seed: int, depth: int = 8, levels: int = 2, features: int = 3, classes: int = 4, points: int = 0
) -> Program:
    """Return a valid program of up to `depth` steps, a search and its neighbours, and a classifier."""
    rng = np.random.default_rng(seed)
    build = PointBuilder(rng, tuple(float(r) for r in rng.uniform(0.6, 1, levels)), features)
    rows = build.search(Op.NEAREST, build.xyz[0], build.xyz[0], int(rng.integers(1, 6)))
    build.gather(0, rows)
    for _ in range(depth):
        grow(build, int(rng.integers(max(0, len(build.values) - 8), len(build.values))))
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


def small_point_program() -> Program:
    """Return one of few bytes, with every op that has constants of its own, and rows of several kinds."""
    build = PointBuilder(np.random.default_rng(0), (0.5,), 4)
    xyz = build.xyz[0]
    sampled = build.sample(0)
    near = build.search(Op.NEAREST, build.xyz[1], xyz, 2, 2)
    offsets = build.two(Op.SUBTRACT, build.gather(xyz, near), build.xyz[1])
    wide = build.concat(offsets, build.gather(xyz, sampled))
    signs = build.add(Op.BINARIZE, wide)
    signs = build.add(Op.BINARY_MAX_BITS, signs, channels=3, by_point=True)
    alike = build.search(Op.NEAREST_SIGNS, signs, signs, 3)
    edges = build.gather(signs, alike)
    floats = build.summed(edges, 2, 3, build.grouped(edges, 3, 3))
    rows = build.product(floats, build.slice(floats, 1, 2))
    rows = build.two(Op.MULTIPLY, build.reshape(rows, 1), build.density(1, 0.5))
    rows = build.gather(rows, build.search(Op.BALL, xyz, build.xyz[1], 1, 10))
    rows = build.gather(build.grouped(rows, 2, 4), build.search(Op.NEAREST_FEATURES, rows, rows, 2))
    rows = build.add(Op.POOL_MAX, rows, by_point=True)
    gate = build.add(Op.LINEAR, build.add(Op.POOL_MEAN, rows), channels=4, activation=Activation.SIGMOID)
    return build.program(3, build.two(Op.MULTIPLY, rows, gate))


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
