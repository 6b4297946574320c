"""Programs on points, put together step by step."""

from __future__ import annotations

import numpy as np

from popcloud.packed.bits import pack_weights
from popcloud.packed.program import Activation, Array, Kind, Op, Program, Rows, Sampling, Step, Value
from popcloud.packed.validate import POOLED
from programs import Builder


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
