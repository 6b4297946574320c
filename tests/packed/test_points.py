"""Each rule of a Program on points, broken alone, is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from point_builder import PointBuilder
from point_programs import every_point_op, point_programs, small_point_program
from popcloud.errors import FileError
from popcloud.packed.file import decode, encode
from popcloud.packed.layout import HEADER, VALUE
from popcloud.packed.points import ACTIVATED, OPS
from popcloud.packed.program import Activation, Grid, Kind, Op, Rows, Sampling
from popcloud.packed.validate import LIMIT, POOLED, validate
from programs import every_op, sealed

SMALL = small_point_program()
EVERY = every_point_op(1)


def refused(program, words):
    with pytest.raises(FileError, match=words) as caught:
        validate(program)
    assert str(caught.value).startswith("inconsistent: ")
    assert "\n" not in str(caught.value)


def index_of(program, op):
    return next(i for i, step in enumerate(program.steps) if step.op is op)


def with_step(program, op, **changes):
    """Return the program with the first step of `op` changed."""
    index = index_of(program, op)
    steps = (*program.steps[:index], replace(program.steps[index], **changes), *program.steps[index + 1 :])
    return replace(program, steps=steps)


def with_blob(op, name, *numbers):
    """Return the small program with other numbers in a blob."""
    blobs = SMALL.steps[index_of(SMALL, op)].blobs
    return with_step(SMALL, op, blobs=blobs | {name: np.array(numbers, blobs[name].dtype)})


def with_value(program, index, **changes):
    values = list(program.values)
    values[index] = replace(values[index], **changes)
    return replace(program, values=tuple(values))


def with_output(program, op, place=None, **changes):
    """Return the program with the output of the first step of `op` changed, or its input at `place`."""
    step = program.steps[index_of(program, op)]
    return with_value(program, step.output if place is None else step.inputs[place], **changes)


@given(point_programs())
def test_valid_programs_pass(program):
    validate(program)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"plan": Sampling((0.5,) * 5)}, "plan: expected at most 4 ratios"),
        ({"plan": Sampling((0.0,))}, "plan: .*more than 0"),
        ({"plan": Sampling((1.5,))}, "plan: .*at most 1"),
        ({"plan": Sampling((np.nan,))}, "plan: "),
        ({"plan": Sampling(())}, "level of value"),
        ({"plan": None}, "features: expected none"),
        ({"plan": None, "features": ()}, "level of value"),
        ({"plan": Grid(0.1, 2, 3)}, "rows of value 0"),
        ({"features": ()}, "features: expected x, y, z first, found none"),
        ({"features": ("x", "z", "y", "more")}, "features: expected x, y, z first"),
        ({"features": ("x", "y", "z")}, "value 0 'points': expected FLOAT, POINT, 3 channels"),
        ({"features": ("x", "y", "z", "x")}, "feature: .*'x'"),
        ({"normalize": "unit_cube"}, "normalize: "),
        ({"classes": ("a",)}, "the answer .*expected FLOAT, CLOUD or POINT, 1 classes"),
    ],
)
def test_settings(changes, words):
    refused(replace(SMALL, **changes), words)


def test_blocks_are_of_points_alone():
    validate(replace(SMALL, normalize="blocks"))
    refused(replace(every_op(0), normalize="blocks"), "normalize: expected blocks on points alone")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": Rows.SITES}, "rows of value 0"),
        ({"rows": Rows.CLOUD}, "value 0 'points': expected FLOAT, POINT, 4"),
        ({"level": 1}, "value 0 'points'"),
        ({"level": 2}, "level of value 0"),
        ({"each": 2}, "value 0 'points'"),
        ({"each": 0}, "rows per point of value 0"),
        ({"each": 1 << 16}, "rows per point of value 0 .*1 to 65535"),
        ({"channels": LIMIT, "each": 2}, "rows per point of value 0 .*1 to 1,"),
        ({"kind": Kind.INDEX, "each": 2}, "INDEX per point, each 1"),
        ({"kind": Kind.INDEX, "channels": 1 << 16}, "INDEX per point"),
    ],
)
def test_values(changes, words):
    refused(with_value(SMALL, 0, **changes), words)


@pytest.mark.parametrize("op", sorted(OPS))
@pytest.mark.parametrize("changes", [{"level": 2}, {"channels": 199}, {"each": 7}], ids=str)
def test_outputs(op, changes):
    of_index = EVERY.values[EVERY.steps[index_of(EVERY, op)].output].kind is Kind.INDEX
    if of_index and "channels" in changes and op is not Op.FARTHEST_POINTS:
        return  # how many a search finds is its own choice; what reads it does not fit
    refused(
        with_output(EVERY, op, **changes), "INDEX per point" if of_index and "each" in changes else f"of .*{op.name}"
    )


@pytest.mark.parametrize("op", sorted(OPS))
def test_inputs_of_another_kind(op):
    step = EVERY.steps[index_of(EVERY, op)]
    index = next(step.output for step in EVERY.steps if step.op is Op.FARTHEST_POINTS)
    for place in range(len(step.inputs)):
        inputs = (*step.inputs[:place], index, *step.inputs[place + 1 :])
        written = {0} | {one.output for one in EVERY.steps[: index_of(EVERY, op)]}
        if index in written and EVERY.values[step.inputs[place]].kind is not Kind.INDEX:
            refused(with_step(EVERY, op, inputs=inputs), f"input {place} of .*{op.name}")


@pytest.mark.parametrize("op", sorted(POOLED))
def test_pools_give_one_row_per_point_of_their_level_or_one(op):
    refused(with_output(EVERY, op, each=2), f"output of .*{op.name}")
    refused(with_output(EVERY, op, level=1), f"output of .*{op.name}")


def test_gathered_rows_are_of_the_level_that_was_searched(rng):
    build = PointBuilder(rng, (0.5,))
    build.sample(0)
    near = build.search(Op.NEAREST, 0, build.xyz[1], 2)
    build.gather(0, near)
    refused(
        build.program(3), "index of step .*GATHER.*expected rows of level 0, those of its first, found rows of level 1"
    )


@pytest.mark.parametrize("op", [op for op in Op if op <= Op.BINARY_MEAN_BITS or op in OPS])
@pytest.mark.parametrize("act", [Activation.RELU, Activation.RPRELU, Activation.SIGMOID])
def test_activations(op, act):
    program = with_step(EVERY, op, activation=act)
    plain = (Op.LINEAR, Op.AFFINE, Op.BINARY_LINEAR, Op.BINARY_MAX, Op.BINARY_MEAN)
    takes = op is Op.LINEAR if act is Activation.SIGMOID else act is Activation.RELU and op in {*plain, *ACTIVATED}
    if takes:
        validate(program)
    else:
        refused(program, f"activation of .*{op.name}")


def test_sigmoid_and_ops_of_points_need_the_plan():
    refused(with_step(every_op(0), Op.LINEAR, activation=Activation.SIGMOID), "activation of .*on points alone")
    bare = replace(EVERY, plan=None, features=())
    flat = tuple(replace(v, level=0, each=1, kind=Kind(min(v.kind, 1))) for v in bare.values)
    flat = (replace(flat[0], channels=3), *flat[1:])
    refused(replace(bare, values=flat), "an op for clouds or for grids, without the plan of points, found SLICE")


@pytest.mark.parametrize("op", [Op.SITE_MEAN, Op.UNPOOL, Op.ADD])
def test_ops_of_grids_have_no_place_here(op):
    step = SMALL.steps[0]
    inputs = (0, 0) if op is Op.ADD else (0,)
    changed = replace(SMALL, steps=(replace(step, op=op, inputs=inputs, blobs={}), *SMALL.steps[1:]))
    refused(changed, f"step 0 .{op.name}.*expected an op for clouds")


@pytest.mark.parametrize(
    ("op", "name", "numbers"),
    [
        (Op.NEAREST, "dilation", [0]),
        (Op.NEAREST, "dilation", [LIMIT]),  # of the second neighbour
        (Op.NEAREST, "dilation", [1, 1]),
        (Op.NEAREST_SIGNS, "dilation", [-1]),
        (Op.BALL, "radius", [0]),
        (Op.BALL, "radius", [-1]),
        (Op.BALL, "radius", [np.nan]),
        (Op.BALL, "radius", [np.inf]),
        (Op.BALL, "radius", [1e20]),  # its square is too large for float32
        (Op.DENSITY, "bandwidth", [1e-30]),  # too small
        (Op.SLICE, "columns", [-1, 3]),
        (Op.SLICE, "columns", [2, 3]),
        (Op.SLICE, "columns", [0, 2]),
        (Op.SLICE, "columns", [0]),
        (Op.LINEAR_GROUPS, "groups", [0]),
        (Op.LINEAR_GROUPS, "groups", [4]),
        (Op.BINARY_GROUPS, "groups", [-1]),
        (Op.BINARY_GROUPS, "groups", [2]),
        (Op.BINARY_GROUPS, "groups", [1, 3]),
        (Op.BINARY_GROUPS, "weight", [1, 2, 0]),  # bits beyond the one input of a group
    ],
)
def test_numbers(op, name, numbers):
    refused(with_blob(op, name, *numbers), f"{name} of .*{op.name}")


@pytest.mark.parametrize("op", sorted(ACTIVATED))
def test_shapes(op):
    blobs = SMALL.steps[index_of(SMALL, op)].blobs
    for name in ("weight", "scale", "bias"):
        if name in blobs:
            refused(
                with_step(SMALL, op, blobs=blobs | {name: blobs[name].repeat(2, axis=-1)}), f"{name} of .*{op.name}"
            )
            refused(with_step(SMALL, op, blobs=blobs | {name: blobs[name].astype(np.int32)}), f"{name} of .*{op.name}")


def test_a_sum_has_a_base_at_least():
    blobs = SMALL.steps[index_of(SMALL, Op.BINARY_SUM)].blobs
    none = {"weight": blobs["weight"][:, :0], "scale": blobs["scale"][:0]}
    refused(with_step(SMALL, Op.BINARY_SUM, blobs=blobs | none), r"weight of .*BINARY_SUM.*expected")


def test_versions_are_those_of_the_plan():
    assert encode(SMALL)[8] == 4
    assert encode(every_op(0))[8] == 1


def written(program, at, number):
    data = bytearray(encode(program))
    data[at : at + len(number)] = number
    return sealed(bytes(data))


def test_one_row_per_point_is_written_as_zero():
    header = np.frombuffer(encode(SMALL), HEADER, 1)[0]
    table = np.frombuffer(encode(SMALL), VALUE, len(SMALL.values), int(header["values_offset"]))
    assert table["each"].tolist() == [value.each if value.each > 1 else 0 for value in SMALL.values]
    with pytest.raises(FileError, match="rows per point of 'points': expected 0 for one, or several, found 1"):
        decode(written(SMALL, int(header["values_offset"]) + VALUE.fields["each"][1], b"\1\0"))


@pytest.mark.parametrize(
    ("at", "number", "words"),
    [
        (144, b"\5", "at most 4 ratios"),
        (147, b"\x80", "at most 4 ratios"),
        (144, b"\0", "zeros where nothing is said"),
        (148, b"\1", "zeros where nothing is said"),
        (184, b"\1", "zeros where nothing is said"),
        (176, bytes(8), "plan: .*more than 0"),
        (128, b"grid\0\0", "the plan b'points' in version 4"),
        (8, b"\1", "the plan b'none' in version 1"),
        (28, b"\3", "known points and normalisation"),
    ],
)
def test_header(at, number, words):
    with pytest.raises(FileError, match=words):
        decode(written(SMALL, at, number))
