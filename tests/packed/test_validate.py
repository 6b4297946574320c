"""Each rule of a Program, broken alone, is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from popcloud.cloud import NORMALIZATIONS
from popcloud.errors import FileError
from popcloud.packed.program import BLOBS, Activation, Kind, Op, Rows, Value
from popcloud.packed.validate import ACTIVATED, BINARY, LIMIT, NORMALIZE, validate
from programs import PLAIN_OPS, every_op, programs

INTEGERS = [(op, "weight") for op in PLAIN_OPS if op in BINARY] + [(op, "limit") for op in PLAIN_OPS]
FLOATS = [(op, name) for op in PLAIN_OPS for name in BLOBS[op] if (op, name) not in INTEGERS]


@pytest.fixture
def program():
    return every_op(5)


def with_step(program, op, **changes):
    """Return the program with the first step of `op` changed, and its index."""
    index = next(i for i, step in enumerate(program.steps) if step.op is op)
    steps = list(program.steps)
    steps[index] = replace(steps[index], **changes)
    return replace(program, steps=tuple(steps))


def with_blob(program, op, name, blob):
    step = next(step for step in program.steps if step.op is op)
    return with_step(program, op, blobs=step.blobs | {name: blob})


def with_value(program, index, **changes):
    values = list(program.values)
    values[index] = replace(values[index], **changes)
    return replace(program, values=tuple(values))


def output_of(program, op):
    return next(step.output for step in program.steps if step.op is op)


def blob_of(program, op, name):
    return next(step.blobs[name] for step in program.steps if step.op is op).copy()


def refused(program, words):
    with pytest.raises(FileError, match=words) as caught:
        validate(program)
    assert str(caught.value).startswith("inconsistent: ")
    assert "\n" not in str(caught.value)


@given(programs())
def test_valid_programs_pass(program):
    validate(program)


def test_normalizations_are_those_of_the_cloud():
    assert (*NORMALIZATIONS, "blocks") == NORMALIZE


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"points": -1}, "points"),
        ({"points": LIMIT + 1}, "points"),
        ({"normalize": "unit_cube"}, "normalize: .*unit_cube"),
        ({"classes": ()}, "classes: expected at least one"),
        ({"classes": ("a", "a", "b")}, "class: .*'a'"),
        ({"classes": ("a", "", "b")}, "class: .*''"),
        ({"classes": ("a", "b\0", "c")}, "class: "),
        ({"classes": ("a", "b\ud800", "c")}, "class: .*UTF-8"),
        ({"classes": ("a", "b")}, "the answer .*2 classes, found FLOAT, CLOUD, 3"),
        ({"meta": {"": "x"}}, "meta key"),
        ({"meta": {"x": "\udc00"}}, "meta text of 'x'"),
        ({"steps": ()}, "steps: expected one for each"),
        ({"features": ("red",)}, "features: expected none without a plan"),
        ({"values": ()}, "values: "),
    ],
)
def test_settings(program, changes, words):
    refused(replace(program, **changes), words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ""}, "value name"),
        ({"name": "linear_2"}, "value name: .*'linear_2'"),
        ({"kind": Kind.BITS}, "value 0 'cloud'"),
        ({"rows": Rows.CLOUD}, "value 0 'cloud'"),
        ({"channels": 4}, "value 0 'cloud': .*4 channels"),
        ({"channels": 0}, "channels of value 0"),
        ({"channels": LIMIT + 1}, "channels of value 0"),
    ],
)
def test_cloud_value(program, changes, words):
    refused(with_value(program, 0, **changes), words)


def test_one_step_too_many(program):
    refused(replace(program, steps=program.steps + program.steps[-1:]), "steps: expected one for each")


@pytest.mark.parametrize(
    ("op", "inputs", "words"),
    [
        (Op.LINEAR, (), "inputs of step 1 .LINEAR.: expected 1, found 0"),
        (Op.LINEAR, (0, 0), "expected 1, found 2"),
        (Op.TRANSFORM, (0,), "expected 2, found 1"),
        (Op.BINARY_LINEAR, (0, 0, 0), "expected 1 or 2, found 3"),
        (Op.LINEAR, (-1,), "found value -1"),
        (Op.LINEAR, (5,), "found value 5"),
        (Op.LINEAR, (999,), "found value 999"),
        (Op.BINARIZE, (8,), "found value 8"),  # its own output
    ],
)
def test_inputs(program, op, inputs, words):
    refused(with_step(program, op, inputs=inputs), words)


@pytest.mark.parametrize("output", [0, 1, -1, 999])
def test_output_is_a_value_not_written_yet(program, output):
    refused(with_step(program, Op.TRANSFORM, output=output), f"output of step 2 .TRANSFORM.: .*value {output}")


@pytest.mark.parametrize("op", PLAIN_OPS)
@pytest.mark.parametrize("change", ["kind", "rows"])
def test_output_kind_and_rows(program, op, change):
    index = output_of(program, op)
    flipped = {"kind": Kind(1 - program.values[index].kind), "rows": Rows(1 - program.values[index].rows)}[change]
    refused(with_value(program, index, **{change: flipped}), f"output of step .*{op.name}")


@pytest.mark.parametrize("op", [Op.BINARIZE, Op.AFFINE, Op.RPRELU, Op.TRANSFORM, Op.POOL_MAX, Op.ROW_MEAN_ABS])
def test_channels_that_must_stay(program, op):
    refused(with_value(program, output_of(program, op), channels=2), f"output of step .*{op.name}")


@pytest.mark.parametrize("op", [op for op in PLAIN_OPS if op not in (Op.POOL_MAX, Op.POOL_MEAN, Op.ROW_MEAN_ABS)])
def test_input_kind(program, op):
    wrong = output_of(program, Op.POOL_MEAN if op.name.startswith("BINARY") else Op.BINARIZE)
    steps = list(program.steps)
    last = steps.pop()  # a new last step reads a value of the wrong kind
    second = next(step for step in steps if step.op is Op.TRANSFORM).inputs[1:] if op is Op.TRANSFORM else ()
    blobs = next(step.blobs for step in program.steps if step.op is op)
    steps.append(replace(last, op=op, inputs=(wrong, *second), blobs=blobs))
    refused(replace(program, steps=tuple(steps)), f"^inconsistent: input of step .*{op.name}")


@pytest.mark.parametrize("op", [Op.POOL_MAX, Op.POOL_MEAN])
def test_pools_take_points(program, op):
    cloud_row = output_of(program, Op.POOL_MEAN)
    steps = (*program.steps[:-1], replace(program.steps[-1], op=op, inputs=(cloud_row,), blobs={}))
    refused(replace(program, steps=steps), "input of step .*expected FLOAT, POINT")


def test_second_input_of_transform(program):
    refused(with_step(program, Op.TRANSFORM, inputs=(0, 1)), "second input of step 2 .*9 channels")


def test_row_scale_of_binary_linear(program):
    bits = next(step for step in program.steps if step.op is Op.BINARY_LINEAR).inputs[0]
    refused(with_step(program, Op.BINARY_LINEAR, inputs=(bits, 0)), "second input of step .*POINT, 1 channels")


@pytest.mark.parametrize("op", [op for op in PLAIN_OPS if op not in ACTIVATED])
def test_activation_where_none_is_read(program, op):
    refused(with_step(program, op, activation=Activation.RELU), f"activation of step .*{op.name}.*NONE, found RELU")


@pytest.mark.parametrize(("op", "name"), [(op, name) for op in PLAIN_OPS for name in BLOBS[op]])
def test_blob_that_is_missing(program, op, name):
    blobs = next(step.blobs for step in program.steps if step.op is op)
    missing = {key: blob for key, blob in blobs.items() if key != name}
    refused(with_step(program, op, blobs=missing), f"blobs of step .*{op.name}")


@pytest.mark.parametrize(("op", "name"), [(op, name) for op in PLAIN_OPS for name in BLOBS[op]])
def test_blob_of_another_dtype_or_shape(program, op, name):
    blob = blob_of(program, op, name)
    refused(with_blob(program, op, name, blob.astype(np.float64)), f"{name} of step .*{op.name}.* float64")
    refused(with_blob(program, op, name, np.concatenate([blob, blob])), f"{name} of step .*{op.name}")
    refused(with_blob(program, op, name, blob[None]), f"{name} of step .*{op.name}")


def test_blob_too_many(program):
    refused(with_step(program, Op.POOL_MAX, blobs={"weight": np.ones(3, np.float32)}), "expected none, found weight")


@pytest.mark.parametrize(("op", "name"), FLOATS)
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_floats_are_finite_but_thresholds_may_be_infinite(program, op, name, number):
    blob = blob_of(program, op, name)
    blob.flat[-1] = number
    if name == "threshold" and np.isinf(number):
        validate(with_blob(program, op, name, blob))
    else:
        refused(with_blob(program, op, name, blob), f"{name} of step .*finite numbers, found 1")


@pytest.mark.parametrize("op", [Op.BINARY_LINEAR_BITS, Op.BINARY_MAX_BITS])
def test_limits_end_at_the_number_of_inputs(program, op):
    limit = blob_of(program, op, "limit")
    inputs = program.values[next(step for step in program.steps if step.op is op).inputs[0]].channels
    limit[:2] = -1, inputs
    validate(with_blob(program, op, "limit", limit))
    for beyond in (-2, inputs + 1):
        limit[0] = beyond
        refused(with_blob(program, op, "limit", limit), f"limit of step .*-1 to {inputs}, found")


def test_tail_bits_are_zero(program):
    weight = blob_of(program, Op.BINARY_LINEAR, "weight")  # 65 inputs: one bit of the second word
    assert weight.shape[0] == 2
    weight[1, 3] |= np.uint64(2)
    refused(with_blob(program, Op.BINARY_LINEAR, "weight", weight), "weight of step .*zeros beyond sign 65")


@pytest.mark.parametrize("answer", [{"rows": Rows.POINT}, {"kind": Kind.BITS}, {"channels": 4}])
def test_answer(program, answer):
    value = replace(Value("x", Kind.FLOAT, Rows.CLOUD, 3), **answer)
    refused(with_value(program, len(program.values) - 1, **answer, name=value.name), "'x'")
