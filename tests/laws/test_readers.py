"""Law of the two readers: the engine's loads exactly the files that Python's loads, and names the same fault."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from grid_programs import GridBuilder, every_grid_op, grid_programs
from point_programs import PointBuilder, every_point_op, point_programs
from popcloud import native
from popcloud.errors import CloudError, FileError
from popcloud.packed.file import encode, read
from popcloud.packed.layout import BLOB, HEADER, STEP, VALUE
from popcloud.packed.program import Activation, Grid, Kind, Op, Program, Rows, Sampling, Step
from programs import Builder, every_op, programs, random_program, sealed

engine = native.engine()
FAULTS = ("not a model file", "truncated", "newer version", "damaged", "inconsistent")


def small_cloud_program() -> Program:
    """Return a network on clouds of few bytes, with blobs of all types and a second input."""
    build = Builder(np.random.default_rng(0))
    bent = build.add(Op.RPRELU, build.add(Op.LINEAR, 0, channels=4, activation=Activation.RELU))
    bits, row = build.add(Op.BINARIZE, bent), build.add(Op.ROW_MEAN_ABS, bent)
    bits = build.add(Op.BINARIZE, build.add(Op.BINARY_LINEAR, bits, row, channels=5))
    pooled = build.add(Op.BINARY_MAX_BITS, build.add(Op.BINARY_LINEAR_BITS, bits, channels=3), channels=9)
    moved = build.add(Op.TRANSFORM, 0, build.add(Op.BINARY_LINEAR, pooled, channels=9))
    build.add(Op.AFFINE, build.add(Op.POOL_MEAN, moved))
    return Program(tuple(build.values), tuple(build.steps), 7, "unit_sphere", ("a", "b", "c"))


def small_grid_program() -> Program:
    """Return a network on sites of few bytes, with every op of grids and several that are not."""
    build = GridBuilder(np.random.default_rng(0), Grid(0.1, 3, 5), 2)
    x = build.conv(0, 4, kinds="FB", activation=Activation.RPRELU)
    y = build.conv(x + 1, 4, kinds="FBB", shortcut=x, activation=Activation.RELU, groups=2)
    mean = build.emit(Op.SITE_MEAN, (y,), "F", 4, 1)
    below = build.conv(y + 1, 4, kinds="FB", step=1, shortcut=mean)
    up = build.conv(below + 1, 4, kinds="FF", step=-1, shortcut=below)
    joined = build.emit(Op.CONCAT, (y + 1, y + 2, x + 1), "B", 12, 0)
    project = build.add(Op.BINARY_LINEAR, joined, build.add(Op.ROW_MEAN_ABS, up), channels=4)
    z = build.emit(Op.ADD, (project, below), "F", 4, 0)
    z = build.emit(Op.ADD, (z, build.emit(Op.UNPOOL, (below,), "F", 4, 0)), "F", 4, 0)
    z = build.add(Op.LINEAR, z, channels=3)
    build.steps[-1].blobs["weight"] = build.steps[-1].blobs["weight"].astype(np.float16)
    build.add(Op.AFFINE, build.add(Op.RPRELU, z), activation=Activation.HARDTANH)
    return build.program(3)


def small_point_program() -> Program:
    """Return a network on points of few bytes, with every op of points, a pool of neighbours, and a class per point."""
    build = PointBuilder(np.random.default_rng(0), (0.5, 1.0), 4)
    build.sample(0)
    xyz, few = build.xyz[0], build.xyz[1]
    offsets = build.two(Op.SUBTRACT, build.gather(xyz, build.search(Op.BALL, few, xyz, 2, 9)), few)
    wide = build.add(Op.LINEAR, offsets, channels=2, activation=Activation.SIGMOID)
    y = build.two(Op.MULTIPLY, build.product(wide, offsets), build.density(1, 0.5))
    y = build.gather(y, build.search(Op.NEAREST_FEATURES, y, y, 2, 3))
    bits = build.add(Op.BINARIZE, build.add(Op.POOL_MAX, y, by_point=True))
    bits = build.concat(build.gather(bits, build.search(Op.NEAREST_SIGNS, bits, bits, 2)), bits)
    y = build.grouped(bits, 2, 4)
    y = build.reshape(build.summed(bits, 2, 4, y), 1)
    y = build.gather(y, build.search(Op.NEAREST, xyz, few, 2))
    y = build.add(Op.POOL_MEAN, build.grouped(y, 4, 4), by_point=True)
    return build.program(3, y)


# Without meta, which the engine does not read.
IDS = ["clouds", "grid", "points"]
SMALL = [replace(program, meta={}) for program in (small_cloud_program(), small_grid_program(), small_point_program())]
FILES = [
    encode(replace(program, meta={}))
    for program in (
        every_op(0),
        random_program(1, depth=1),
        *SMALL,
        every_grid_op(0),
        every_grid_op(1, 3),
        every_point_op(0),
        every_point_op(1, by_point=True),
    )
]
META_COUNT = range(48, 52)


def outcome(reader, path):
    """Return what a reader finds, or the fault it names in one line."""
    try:
        return reader(path)
    except FileError as error:
        (line,) = str(error).splitlines()
        return next(word for word in FAULTS if word in line.removeprefix(str(path)))


def reference_reads(path):
    program = read(path)
    values = [(v.name, int(v.kind), int(v.rows), v.channels, v.level, v.each) for v in program.values]
    steps = [(list(step.inputs), list(step.outputs)) for step in program.steps]
    plan = program.plan
    if isinstance(plan, Grid):
        plan = (plan.edge, plan.levels, plan.size)
    elif isinstance(plan, Sampling):
        plan = list(plan.ratios)
    return values, steps, list(program.classes), program.points, program.normalize, plan, list(program.features)


def engine_reads(path):
    one = engine.Engine(path, threads=1)
    if one.grid is not None:
        run_on_sites(one)
    elif one.sampling is not None:
        run_on_points(one)
    else:
        one.run([np.zeros((3, 3), np.float32)])
    plan = one.sampling if one.grid is None else one.grid
    return one.values, one.steps, one.classes, one.points, one.normalize, plan, one.features


def run_on_points(one):
    """Run a few points; an altered search may ask for more than there are, which is the cloud's fault."""
    with suppress(CloudError):
        one.run([np.random.default_rng(0).uniform(-1, 1, (24, len(one.features))).astype(np.float32)])


def run_on_sites(one):
    """Run a few points; an altered edge may ask for more sites than there are numbers, which is the cloud's fault."""
    xyz = np.array([[0, 0, 0], [0.1, 0, 0.1], [0.5, 0.4, 0.3]], np.float32)
    with suppress(CloudError):
        one.answers(xyz, np.ones((3, len(one.features)), np.float32), ready=True)


@pytest.fixture(scope="module")
def put(tmp_path_factory):
    """Write bytes to a file that no one has mapped, and return its path."""
    path = tmp_path_factory.mktemp("readers") / "model.popc"

    def write(data):
        path.unlink(missing_ok=True)  # an array may still have the old one mapped
        path.write_bytes(data)
        return path

    return write


def some(items, rng, count=500):
    """Return so many of the items, in their order: all of them hold, and take a minute."""
    items = list(items)
    return [items[i] for i in np.sort(rng.permutation(len(items))[:count])]


def agree(path):
    """Return what both readers say, which must be the same."""
    found = outcome(engine_reads, path)
    assert outcome(reference_reads, path) == found
    return found


@settings(max_examples=100)
@given(programs() | grid_programs() | point_programs())
def test_both_readers_load_every_program(put, program):
    assert not isinstance(agree(put(encode(program))), str)


@pytest.mark.parametrize("data", FILES, ids=range(len(FILES)))
def test_truncated_files_are_refused(data, put, rng):
    for size in [*range(0, 260, 7), *rng.integers(256, len(data), 50)]:
        assert agree(put(data[:size])) == ("truncated" if size >= 8 else "not a model file")
    assert agree(put(data[:8] + b"\5" + data[9:])) == "newer version"
    assert agree(put(b"PK" + data)) == "not a model file"
    assert agree(put(data + bytes(64))) == "damaged"


@pytest.mark.parametrize("program", SMALL, ids=IDS)
def test_every_damaged_byte_is_refused(program, put, rng):
    data = encode(program)
    for at, bit in enumerate(rng.integers(0, 8, len(data))):
        damaged = bytearray(data)
        damaged[at] ^= 1 << bit
        assert outcome(engine_reads, put(damaged)) in FAULTS, at


# Half of the damage goes to the tables at the front: most bytes are constants.
CHANGES = st.tuples(st.booleans(), st.integers(0, 2**20), st.sampled_from([0, 1, 2, 3, 64, 127, 255, -1, +256]))


@settings(max_examples=400)
@given(st.sampled_from(range(len(FILES))), st.lists(CHANGES, min_size=1, max_size=3))
def test_wrong_bytes_under_a_right_checksum(put, file, changes):
    """Both readers refuse, or both load and the engine runs."""
    raw = np.frombuffer(FILES[file], np.uint8).copy()
    for front, at, byte in changes:
        at = 12 + at % (min(2048, len(raw)) - 12 if front else len(raw) - 12)
        raw[at] = byte if 0 <= byte < 256 else (int(raw[at]) + byte // abs(byte)) % 256
        assume(at not in META_COUNT)
    agree(put(sealed(raw.tobytes())))


def altered_fields(data: bytes) -> Iterator[bytes]:
    """Yield the file with each number of each record changed to several others, one at a time."""
    header = np.frombuffer(data, HEADER, 1)[0]
    tables = [(16, HEADER, 1)]  # behind the checksum
    for name, dtype in (("value", VALUE), ("step", STEP), ("blob", BLOB)):
        tables.append((int(header[f"{name}s_offset"]), dtype, int(header[f"{name}_count"])))
    for start, dtype, count in tables:
        end = start + dtype.itemsize * count if start > 16 else dtype.itemsize
        for at in range(start, end, 4):
            old = int.from_bytes(data[at : at + 4], "little")
            for new in {0, 1, 2, 3, 4, 5, 16, 17, 21, 1 << 24, 2**31, 2**32 - 1, old + 1, old - 1} - {old}:
                if at not in META_COUNT:
                    yield sealed(data[:at] + (new % 2**32).to_bytes(4, "little") + data[at + 4 :])


@pytest.mark.parametrize("program", SMALL, ids=IDS)
def test_altered_fields(program, put, rng):
    found = [isinstance(agree(put(data)), str) for data in some(altered_fields(encode(program)), rng)]
    assert len(found) * 0.9 < sum(found) < len(found)  # few fields may be another number, as the points of a cloud


def altered_numbers(data: bytes) -> Iterator[bytes]:
    """Yield the file with the first and the last element of each blob changed to several others, one at a time."""
    header = np.frombuffer(data, HEADER, 1)[0]
    others = {1: [np.nan, np.inf, -np.inf, -0.0], 2: [-2, -1, 2**31 - 1], 3: [0, 2**64 - 1], 4: [-2, -1, 1, 2]}
    others[5] = others[1]
    for blob in np.frombuffer(data, BLOB, int(header["blob_count"]), int(header["blobs_offset"])):
        dtype = np.dtype({1: "<f4", 2: "<i4", 3: "<u8", 4: "i1", 5: "<f2"}[int(blob["dtype"])])
        for at in (0, int(blob["bytes"]) - dtype.itemsize):
            for new in others[int(blob["dtype"])]:
                place = int(blob["offset"]) + at
                yield sealed(data[:place] + np.array(new, dtype).tobytes() + data[place + dtype.itemsize :])


@pytest.mark.parametrize("program", SMALL, ids=IDS)
def test_blobs_with_other_numbers(program, put):
    found = [isinstance(agree(put(data)), str) for data in altered_numbers(encode(program))]
    assert 0 < sum(found) < len(found)


def with_step(program: Program, index: int, step: Step) -> Program:
    return replace(program, steps=(*program.steps[:index], step, *program.steps[index + 1 :]))


def altered_settings(program: Program) -> Iterator[Program]:
    """Yield the program with another plan, other names, or one value changed."""
    yield replace(program, classes=(*program.classes, "one more"))
    yield replace(program, classes=(*program.classes[1:], "é"))
    yield replace(program, classes=(*program.classes[1:], program.classes[1]))
    yield replace(program, features=(*program.features, "one more"))
    yield replace(program, features=program.features[:1] * len(program.features))
    yield replace(program, plan=None, features=())
    for ratios in ((), (0.5,), (1.0, 1e-300), (0.5, 1.5), (0.0, 0.5), (np.nan, 0.5), (0.5,) * 4):
        yield replace(program, plan=Sampling(ratios))
    yield replace(program, features=program.features[::-1])
    for normalize in ("none", "unit_sphere", "blocks"):
        yield replace(program, normalize=normalize)
    for edge, levels, size in ((0.1, 3, 3), (0.1, 2, 5), (0.1, 16, 5), (0.1, 17, 5), (np.inf, 3, 5), (5e-324, 3, 5)):
        yield replace(program, plan=Grid(edge, levels, size))
    for index, value in enumerate(program.values):
        changes = [{"kind": kind} for kind in Kind if kind != value.kind]
        changes += [{"name": program.values[index - 1].name}, {"name": "é"}]
        changes += [{"rows": rows} for rows in Rows]
        changes += [{"channels": value.channels + more} for more in (-1, 1, 4, 60)]
        changes += [{"level": level} for level in range(4)] + [{"each": each} for each in (1, 2, 3, 65535)]
        for change in changes:
            other = replace(value, **change)
            yield replace(program, values=(*program.values[:index], other, *program.values[index + 1 :]))


def altered_steps(program: Program) -> Iterator[Program]:
    """Yield the program with one step changed: its op, activation, wires or blobs."""
    values = range(len(program.values))
    for index, step in enumerate(program.steps):
        changes = [{"op": op} for op in Op] + [{"activation": act} for act in Activation]
        changes += [{"inputs": step.inputs[:-1]}, {"inputs": (step.inputs * 2)[:4]}]
        changes += [{"inputs": (v, *step.inputs[1:])} for v in values] + [
            {"inputs": (step.inputs[0], v)} for v in values
        ]
        changes += [{"output": v} for v in values] + [{"more": (v,)} for v in values]
        changes += [{"more": step.more[:-1]}, {"more": step.more[::-1]}, {"more": (*step.more, *step.more)[:3]}]
        for name, blob in step.blobs.items():
            rest = {key: b for key, b in step.blobs.items() if key != name}
            others = [blob[:-1], blob[..., :-1], np.repeat(blob, 2, 0), blob[:1], blob[..., :1], blob.reshape(-1)]
            others += [blob[:, None] if blob.ndim == 1 else blob.T]
            others += [blob.astype(dtype) for dtype in (np.float32, np.int32, np.uint64, np.int8, np.float16)]
            changes += [{"blobs": rest}] + [{"blobs": step.blobs | {name: b}} for b in others if b.size]
        for extra in ("prelu", "thresholds", "shifts"):
            shape = (3, program.values[step.output].channels) if extra != "shifts" else (2, 3)
            blob = np.ones(shape, np.int8 if extra == "shifts" else np.float32)
            changes.append({"blobs": step.blobs | {extra: blob}})
        for change in changes:
            yield with_step(program, index, replace(step, **change))
    yield replace(program, steps=program.steps[:-1])
    yield replace(program, steps=program.steps[:-2] + program.steps[-1:])


def written_unchecked(program: Program) -> bytes:
    with patch("popcloud.packed.file.validate"):
        return encode(program)


@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered in cast")
@pytest.mark.parametrize("alter", [altered_settings, altered_steps])
@pytest.mark.parametrize("program", SMALL, ids=IDS)
def test_broken_rules(program, alter, put, rng):
    """Rules of the program as such: the bytes are laid out well and say something impossible, or something else."""
    found = [isinstance(agree(put(written_unchecked(other))), str) for other in some(alter(program), rng)]
    assert len(found) / 2 < sum(found) < len(found)
