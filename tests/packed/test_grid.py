"""Each rule of a program on a grid, broken alone, is named; so is what its bytes may not be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from grid_programs import GridBuilder, every_grid_op, grid_programs
from popcloud.errors import FileError
from popcloud.geometry.plan import MAX_LEVELS
from popcloud.packed.bits import words
from popcloud.packed.file import decode, encode
from popcloud.packed.layout import HEADER
from popcloud.packed.program import BLOBS, CONVOLUTIONS, Activation, Grid, Kind, Op, Rows
from popcloud.packed.validate import LEVELS, validate
from programs import every_op, sealed


@pytest.fixture
def program():
    return every_grid_op(5)


def refused(program, words):
    with pytest.raises(FileError, match=words) as caught:
        validate(program)
    assert str(caught.value).startswith("inconsistent: ")
    assert "\n" not in str(caught.value)


def with_step(program, index, **changes):
    steps = list(program.steps)
    steps[index] = replace(steps[index], **changes)
    return replace(program, steps=tuple(steps))


def with_blob(program, index, name, blob):
    return with_step(program, index, blobs=program.steps[index].blobs | {name: blob})


def with_value(program, index, **changes):
    values = list(program.values)
    values[index] = replace(values[index], **changes)
    return replace(program, values=tuple(values))


def step_of(program, op):
    return next(i for i, step in enumerate(program.steps) if step.op is op)


@given(grid_programs())
def test_valid_programs_pass(program):
    validate(program)


def test_as_many_levels_as_geometry_builds():
    assert LEVELS == MAX_LEVELS


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"plan": None}, "features: expected none without a plan"),
        ({"plan": None, "features": ()}, "rows of value 0 'sites'"),
        ({"plan": Grid(0.0, 2, 5)}, "plan: expected edge > 0"),
        ({"plan": Grid(float("nan"), 2, 5)}, "plan: expected edge > 0"),
        ({"plan": Grid(float("inf"), 2, 5)}, "plan: expected edge > 0"),
        ({"plan": Grid(0.1, 0, 5)}, "plan: .*1 to 16 levels"),
        ({"plan": Grid(0.1, 17, 5)}, "plan: .*1 to 16 levels"),
        ({"plan": Grid(0.1, 2, 4)}, "plan: .*size 3 or 5"),
        ({"plan": Grid(0.1, 1, 5)}, "level of value"),
        ({"plan": Grid(0.1, 2, 3)}, "shifts of step 1"),
        ({"points": 8}, "plan: expected all points"),
        ({"normalize": "unit_sphere"}, "plan: expected all points"),
        ({"features": ()}, "features: expected a name per channel"),
        ({"features": ("a", "b", "a")}, "feature: .*'a'"),
        ({"features": ("a", "b")}, "value 0 'sites': expected FLOAT, SITES, 2 channels"),
        ({"classes": ("a", "b")}, "the answer .*FLOAT, SITES, 2 classes"),
    ],
)
def test_settings(program, changes, words):
    refused(replace(program, **changes), words)


def test_grid_op_needs_a_plan(program):
    plain = every_op(0)
    add = next(step for step in program.steps if step.op is Op.ADD)
    step = replace(plain.steps[-1], op=Op.ADD, inputs=(0, 0), blobs=add.blobs)
    refused(replace(plain, steps=(*plain.steps[:-1], step)), "expected an op for clouds")


@pytest.mark.parametrize(
    ("index", "changes", "words"),
    [
        (0, {"kind": Kind.BITS}, "value 0 'sites'"),
        (0, {"level": 1}, "value 0 'sites'"),
        (3, {"rows": Rows.POINT}, "rows of value 3"),
        (3, {"rows": Rows.CLOUD}, "rows of value 3"),
        (3, {"level": -1}, "level of value 3"),
        (3, {"level": 2}, "level of value 3"),
        (2, {"channels": 17}, "outputs of step 0 .*all as FLOAT, SITES, 16 channels, found BITS, SITES, 17"),
        (2, {"level": 1}, "outputs of step 0 .*all as"),
        (1, {"kind": Kind.BITS}, r"thresholds of step 0 .*\(2, 16\), found"),
        (2, {"kind": Kind.FLOAT}, "blobs of step 0 .*no thresholds"),
        (4, {"kind": Kind.FLOAT}, "outputs of step 1 .*floats once at most"),
    ],
)
def test_values(program, index, changes, words):
    refused(with_value(program, index, **changes), words)


@pytest.mark.parametrize(
    ("op", "changes", "words"),
    [
        (Op.SPARSE_CONV, {"inputs": (0, 0, 0)}, "inputs of step 0 .*1 or 2, found 3"),
        (Op.SPARSE_CONV, {"inputs": (0, 0)}, "shortcut of step 0 .*FLOAT, 16 channels"),
        (Op.BINARY_SPARSE_CONV, {"inputs": (1, 1)}, "input of step 1 .*BITS"),
        (Op.BINARY_SPARSE_CONV, {"inputs": (2, 2)}, "shortcut of step 1 .*FLOAT"),
        (Op.SPARSE_CONV, {"more": (3,)}, "blobs of step 0 .*no thresholds"),
        (Op.SPARSE_CONV, {"more": (1,)}, "outputs of step 0 .*each once"),
        (Op.SPARSE_CONV, {"more": (2, 3, 4, 5)}, "outputs of step 0 .*1 to 4"),
        (Op.SPARSE_CONV, {"more": (0,)}, "output of step 0"),
        (Op.SITE_MEAN, {"more": (9,)}, "outputs of step 2 .*1 to 1"),
        (Op.SITE_MEAN, {"inputs": (4,)}, "input 0 of step 2 .*FLOAT"),
        (Op.SITE_MEAN, {"activation": Activation.RELU}, "activation of step 2"),
        (Op.CONCAT, {"inputs": (4,)}, "inputs of step .*2 or 3 or 4"),
        (Op.ADD, {"inputs": (3, 3)}, "output of step .*FLOAT, 16 channels"),
        (Op.SPARSE_CONV, {"activation": Activation.NONE}, "blobs of step 0 .*no prelu"),
        (Op.LINEAR, {"activation": Activation.RPRELU}, "activation of step .*without constants"),
    ],
)
def test_steps(program, op, changes, words):
    refused(with_step(program, step_of(program, op), **changes), words)


@pytest.mark.parametrize(("op", "name"), [(op, name) for op in sorted(CONVOLUTIONS) for name in BLOBS[op]])
def test_blobs_of_another_dtype_or_shape_or_missing(program, op, name):
    index = next(i for i, s in enumerate(program.steps) if s.op is op and (name in s.blobs or op is Op.SPARSE_CONV))
    step = program.steps[index]
    if name not in step.blobs:
        return
    blob = step.blobs[name]
    refused(with_blob(program, index, name, blob.astype(np.float64)), f"{name} of step {index} .* float64")
    refused(with_blob(program, index, name, np.concatenate([blob, blob[:1]])), f"{name} of step {index} ")
    refused(with_blob(program, index, name, blob[:, :-1]), f"{name} of step {index} ")
    if name != "shifts":
        refused(with_step(program, index, blobs={k: b for k, b in step.blobs.items() if k != name}), "blobs of step")


@pytest.mark.parametrize("step", [0, 1, -1])
@pytest.mark.parametrize("bits", [False, True])
def test_weight_has_rows_for_the_offsets_between_its_levels(step, bits, rng):
    build = GridBuilder(rng, Grid(0.1, 2, 5), 3)
    x = build.emit(Op.SITE_MEAN, (0,), "F", 3, 1) if step < 0 else 0
    build.conv(build.add(Op.BINARIZE, x) if bits else x, 4, step=step)
    program, wrong = build.program(2), 27 if step else 8
    index = len(program.steps) - 2
    shape, dtype = ((words(3 * wrong), 4), np.uint64) if bits else ((3 * wrong, 4), np.float32)
    refused(with_blob(program, index, "weight", np.zeros(shape, dtype)), f"weight of step {index} ")


def test_sums_are_not_longer_than_float32_counts():
    program = GridBuilder(np.random.default_rng(0), Grid(0.1, 1, 3), 1 << 20).program(2)
    wide = replace(program.values[1], channels=1)
    step = replace(program.steps[0], op=Op.SPARSE_CONV, blobs=dict.fromkeys(("weight", "scale", "bias"), np.zeros(1)))
    refused(replace(program, values=(program.values[0], wide), steps=(step,), classes=("a",)), "terms in a sum")


def test_groups_divide_the_channels(program):
    index = step_of(program, Op.BINARY_SPARSE_CONV)
    refused(
        with_blob(program, index, "shifts", np.zeros((3, 3), np.int8)), "shifts of step 1 .*3 groups of 16 channels"
    )
    shifts = program.steps[index].blobs["shifts"].copy()
    shifts[0, 0] = 2
    refused(with_blob(program, index, "shifts", shifts), "shifts of step 1 .*-1 to 1, found")


def test_tail_bits_are_zero(program):
    index = next(i for i, s in enumerate(program.steps) if s.op is Op.BINARY_SPARSE_CONV)
    weight = program.steps[index].blobs["weight"].copy()
    weight[-1, 3] |= np.uint64(1 << 48)  # 27 * 16 signs leave a quarter of the last word
    refused(with_blob(program, index, "weight", weight), "weight of step 1 .*zeros beyond sign 432")


@pytest.mark.parametrize("name", ["weight", "scale", "bias", "prelu", "thresholds"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_floats_are_finite_but_thresholds_may_be_infinite(program, name, number):
    blob = program.steps[0].blobs[name].copy()
    blob.flat[-1] = number
    if name == "thresholds" and np.isinf(number):
        validate(with_blob(program, 0, name, blob))
    else:
        refused(with_blob(program, 0, name, blob), f"{name} of step 0 .*finite numbers, found 1")


@pytest.fixture
def halved(rng):
    """A program whose first LINEAR has its weight in float16."""
    build = GridBuilder(rng, Grid(0.1, 1, 3), 3)
    build.add(Op.LINEAR, 0, channels=6)
    build.steps[0].blobs["weight"] = build.steps[0].blobs["weight"].astype(np.float16)
    x = build.conv(1, 4, kinds="FB", activation=Activation.RPRELU)
    build.conv(x + 1, 4)
    build.add(Op.BINARIZE, x)
    return build.program(2)


def test_float16_is_version_3_and_comes_back_as_it_was(halved):
    data = encode(halved)
    assert data[8] == 3
    assert decode(data).steps[0].blobs["weight"].dtype == np.float16
    assert encode(decode(data)) == data


def test_without_float16_the_version_is_2(halved):
    steps = [
        replace(s, blobs={k: b.astype(np.float32) if b.dtype == np.float16 else b for k, b in s.blobs.items()})
        for s in halved.steps
    ]
    assert encode(replace(halved, steps=tuple(steps)))[8] == 2


@pytest.mark.parametrize("version", [2, 3])
def test_float16_in_version_3_and_only_there(halved, version):
    """Version 2 with float16, version 3 without."""
    found = halved if version == 2 else every_grid_op(1)
    if version == 3:
        weights = [(i, s.blobs["weight"]) for i, s in enumerate(found.steps) if s.op is Op.LINEAR]
        for index, weight in weights:
            found = with_blob(found, index, "weight", weight.astype(np.float32))
    raw = np.frombuffer(encode(found), np.uint8).copy()
    raw[: HEADER.itemsize].view(HEADER)["version"] = version
    with pytest.raises(FileError, match=r"^inconsistent: blobs: expected float16 in version 3, and only there"):
        decode(sealed(raw.tobytes()))


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_float16_is_finite(halved, number):
    weight = halved.steps[0].blobs["weight"].copy()
    weight[-1, -1] = number
    refused(with_blob(halved, 0, "weight", weight), "weight of step 0 .*finite numbers, found 1")


def test_float16_is_for_weights_of_linear_on_a_grid_alone(halved):
    for index, step in enumerate(halved.steps):
        for name, blob in step.blobs.items():
            if (step.op, name) == (Op.LINEAR, "weight"):
                validate(with_blob(halved, index, name, blob.astype(np.float16)))
            else:
                words = f"{name} of step {index} .*expected (float32|uint64) .*found float16"
                refused(with_blob(halved, index, name, np.zeros(blob.shape, np.float16)), words)
    cloud = every_op(0)
    index = step_of(cloud, Op.LINEAR)
    weight = cloud.steps[index].blobs["weight"].astype(np.float16)
    refused(with_blob(cloud, index, "weight", weight), "weight of step .*expected float32 .*found float16")


def test_value_that_nobody_writes(rng):
    build = GridBuilder(rng, Grid(0.1, 1, 3), 3)
    build.add(Op.AFFINE, 0)
    program = build.program(2)
    last = program.steps[-1]
    refused(replace(program, steps=(*program.steps[:-2], replace(last, inputs=(0,)))), "steps: expected to write all")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 1),
        ("plan_name", b"none"),
        ("plan_name", b"grid\0x"),
        ("plan_name", b"ball"),
        ("plan_integers", [2, 5, 1, 0, 0, 0, 0, 0]),
        ("plan_integers", [-2, 5, 0, 0, 0, 0, 0, 0]),
        ("plan_floats", [0.1, 0, 0, 1e-300]),
        ("plan_floats", [-0.1, 0, 0, 0]),
        ("plan_floats", [0.1, -0.0, 0, 0]),
        ("feature_count", 0),
        ("feature_count", 4),
        ("points", 1),
        ("normalize", 1),
        ("step_count", 0),
        ("step_count", 1000),
        ("reserved_a", 1),
        ("reserved_b", 1),
    ],
)
def test_wrong_header_with_the_right_checksum_is_inconsistent(field, value):
    raw = np.frombuffer(encode(every_grid_op(1)), np.uint8).copy()
    raw[: HEADER.itemsize].view(HEADER)[field] = value
    with pytest.raises(FileError, match=r"^inconsistent"):
        decode(sealed(raw.tobytes()))


def test_edge_keeps_all_its_digits():
    program = replace(every_grid_op(2), plan=Grid(0.1 + 0.2, 2, 5))
    assert decode(encode(program)).plan == program.plan
