"""Random valid programs, for every test that needs one: of the file, of the reference, of the engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from popcloud.packed.bits import pack_weights
from popcloud.packed.layout import checksum
from popcloud.packed.program import BLOBS, Activation, Array, Kind, Op, Program, Rows, Step, Value
from popcloud.packed.validate import ACTIVATED, BINARY, POOLED, PROJECT, TO_BITS, blob_type

FLOAT_TO_FLOAT = (Op.LINEAR, Op.AFFINE, Op.RPRELU, Op.ROW_MEAN_ABS)
POINT_OPS = {
    Kind.FLOAT: (*FLOAT_TO_FLOAT, Op.TRANSFORM, Op.BINARIZE),
    Kind.BITS: (Op.BINARY_LINEAR, Op.BINARY_LINEAR_BITS),
}
POOL_OPS = {
    Kind.FLOAT: (Op.POOL_MAX, Op.POOL_MEAN),
    Kind.BITS: (Op.BINARY_MAX, Op.BINARY_MAX_BITS, Op.BINARY_MEAN, Op.BINARY_MEAN_BITS),
}
CLOUD_OPS = {
    Kind.FLOAT: (*FLOAT_TO_FLOAT, Op.BINARIZE),
    Kind.BITS: (Op.BINARY_LINEAR, Op.BINARY_LINEAR_BITS),
}
PLAIN_OPS = tuple(op for op in Op if op < Op.SPARSE_CONV)  # without a plan
WIDTHS = (1, 2, 63, 64, 65, 100, 128, 129)


class Builder:
    """Grows a program step by step; every constant comes from `rng`."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.values = [Value("cloud", Kind.FLOAT, Rows.POINT, 3)]
        self.steps: list[Step] = []

    def add(self, op: Op, *inputs: int, channels: int = 0, activation: Activation = Activation.NONE) -> int:
        """Append a step and return its value; `channels` is read by the ops that choose their own."""
        x = self.values[inputs[0]]
        channels = channels if op in PROJECT else 1 if op is Op.ROW_MEAN_ABS else x.channels
        kind = Kind.BITS if op in TO_BITS else Kind.FLOAT
        output = len(self.values)
        self.values.append(Value(f"{op.name.lower()}_{output}", kind, Rows.CLOUD if op in POOLED else x.rows, channels))
        blobs = {name: self.blob(op, name, x.channels, channels) for name in BLOBS[op]}
        self.steps.append(Step(op, inputs, output, activation, blobs))
        return output

    def blob(self, op: Op, name: str, inputs: int, outputs: int) -> Array:
        """Return constants that leave signs and floats in a lively range."""
        dtype, shapes = blob_type(op, name, inputs, outputs)
        if dtype == np.uint64:
            return pack_weights(self.rng.choice([-1, 1], (outputs, inputs)))
        shape = shapes[self.rng.integers(len(shapes))]
        if dtype == np.int32:
            return self.rng.integers(-1, inputs, shape, endpoint=True).astype(np.int32)
        return self.rng.normal(size=shape).astype(np.float32) / np.float32(np.sqrt(inputs) if name == "weight" else 1)

    def grow(self, ops: dict[Kind, tuple[Op, ...]], x: int) -> int:
        """Append one step that can follow value x, chosen by chance, with what its second input needs."""
        choices = ops[self.values[x].kind]
        op = choices[self.rng.integers(len(choices))]
        activation = Activation(self.rng.integers(3)) if op in ACTIVATED else Activation.NONE
        channels = int(self.rng.choice(WIDTHS))
        inputs = [x]
        if op is Op.TRANSFORM:
            if self.values[x].channels > 8:
                return self.add(Op.AFFINE, x, activation=Activation.HARDTANH)
            pooled = self.add(Op.POOL_MAX, x)
            inputs.append(self.add(Op.LINEAR, pooled, channels=self.values[x].channels ** 2))
        if op is Op.BINARY_LINEAR and (scale := self.row_scale(x)) is not None and self.rng.integers(2):
            inputs.append(scale)
        return self.add(op, *inputs, channels=channels, activation=activation)

    def row_scale(self, x: int) -> int | None:
        """Return a value (R, 1) with the rows of x, if there is one."""
        same = (
            i
            for i, v in enumerate(self.values)
            if v == replace(self.values[x], name=v.name, kind=Kind.FLOAT, channels=1)
        )
        return next(same, None)


def random_program(seed: int, depth: int = 3, classes: int = 4, points: int = 0, normalize: str = "none") -> Program:
    """Return a valid program: `depth` steps per point, a pool, `depth` steps per cloud, and a classifier."""
    build = Builder(np.random.default_rng(seed))
    x = 0
    for ops, count in ((POINT_OPS, depth), (POOL_OPS, 1), (CLOUD_OPS, depth)):
        for _ in range(count):
            x = build.grow(ops, x)
    last = Op.BINARY_LINEAR if build.values[x].kind is Kind.BITS else Op.LINEAR
    build.add(last, x, channels=classes)
    names = tuple(f"class {i} é" for i in range(classes))
    meta = {"recipe": "epochs: 1\n", "licence": ""} if seed % 2 else {}
    return Program(tuple(build.values), tuple(build.steps), points, normalize, names, meta)


def every_op(seed: int) -> Program:
    """Return one program in which every Op occurs but those of grids."""
    build = Builder(np.random.default_rng(seed))
    moved = build.add(Op.LINEAR, build.add(Op.POOL_MEAN, 0), channels=9)
    x = build.add(Op.TRANSFORM, 0, moved)
    x = build.add(Op.LINEAR, x, channels=70, activation=Activation.RELU)
    x = build.add(Op.RPRELU, build.add(Op.AFFINE, x, activation=Activation.HARDTANH))
    row, bits = build.add(Op.ROW_MEAN_ABS, x), build.add(Op.BINARIZE, x)
    bits = build.add(Op.BINARY_LINEAR_BITS, bits, channels=65)
    floats = build.add(Op.BINARY_LINEAR, bits, row, channels=5)
    build.add(Op.POOL_MAX, floats)
    for op in (Op.BINARY_MAX, Op.BINARY_MEAN, Op.BINARY_MEAN_BITS):
        build.add(op, bits, channels=6, activation=Activation.RELU if op in ACTIVATED else Activation.NONE)
    x = build.add(Op.BINARY_MAX_BITS, bits, channels=129)
    build.add(Op.BINARY_LINEAR, x, channels=3)
    assert {step.op for step in build.steps} == set(PLAIN_OPS)
    return Program(
        tuple(build.values), tuple(build.steps), 0, "unit_sphere", ("cone", "cube", "Ø"), {"seed": str(seed)}
    )


def programs() -> st.SearchStrategy[Program]:
    """Random valid programs for hypothesis."""
    return st.builds(
        random_program,
        seed=st.integers(0, 2**32 - 1),
        depth=st.integers(0, 4),
        classes=st.integers(1, 70),
        points=st.integers(0, 2048),
        normalize=st.sampled_from(["none", "unit_sphere"]),
    )


def same(a: Program, b: Program) -> bool:
    """Return whether two programs are equal, constants included, bit for bit."""
    bare = [replace(p, steps=tuple(replace(s, blobs={}) for s in p.steps)) for p in (a, b)]
    pairs = [(s.blobs, t.blobs) for s, t in zip(a.steps, b.steps, strict=False)]
    return bare[0] == bare[1] and all(
        s.keys() == t.keys()
        and all(s[k].dtype == t[k].dtype and s[k].shape == t[k].shape and s[k].tobytes() == t[k].tobytes() for k in s)
        for s, t in pairs
    )


def sealed(data: bytes) -> bytes:
    """Return a file with the checksum its bytes ask for, as someone would who wrote it wrong on purpose."""
    raw = np.frombuffer(data, np.uint8).copy()
    raw[12:16] = np.array([checksum(raw)], "<u4").view(np.uint8)
    return raw.tobytes()


assert set(POOL_OPS[Kind.BITS]) | set(CLOUD_OPS[Kind.BITS]) == BINARY & set(PLAIN_OPS)  # none is forgotten above
