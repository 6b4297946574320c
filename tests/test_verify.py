"""verify: what is equal passes, and each kind of difference is found where it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from grid_programs import every_grid_op, surface
from popcloud import native
from popcloud.cloud import prepare
from popcloud.packed.file import write
from popcloud.packed.program import Grid, Kind, Op, Program
from popcloud.runtime import reference, sites
from popcloud.verify import (
    TOLERANCE,
    Line,
    Report,
    Verification,
    changed_constant,
    differing_bits,
    float_errors,
    mismatch,
    table,
)
from programs import Builder, every_op, random_program


def small(points: int = 0, normalize: str = "none") -> Program:
    """Return a program built as PointNets are: float, then bits, pooled, and floats for the answer."""
    build = Builder(np.random.default_rng(11))
    x = build.add(Op.BINARIZE, build.add(Op.LINEAR, 0, channels=64))
    x = build.add(Op.BINARY_MAX_BITS, build.add(Op.BINARY_LINEAR_BITS, x, channels=70), channels=130)
    build.add(Op.LINEAR, build.add(Op.BINARY_LINEAR, x, channels=20), channels=4)
    return Program(tuple(build.values), tuple(build.steps), points, normalize, ("a", "b", "c", "d"))


def stepper(program: Program):
    return lambda index, inputs, rows: reference.step(program, index, inputs, rows)


def answerer(program: Program):
    return lambda cloud, _: reference.run(replace(program, points=0, normalize="none"), cloud)


def evidence(program: Program, rng, points: int = 30) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Return a ready cloud and all values of the reference, which stand for PyTorch's here."""
    cloud = prepare(rng.normal(size=(points, 3)), program.points, program.normalize)
    values = reference.values(replace(program, points=0, normalize="none"), cloud)
    return cloud, dict(enumerate(values))


def changed(program: Program, index: int, name: str, change) -> Program:
    """Return the program with one constant of one step changed by a function."""
    steps = list(program.steps)
    blob = steps[index].blobs[name].copy()
    change(blob)
    steps[index] = replace(steps[index], blobs=steps[index].blobs | {name: blob})
    return replace(program, steps=tuple(steps))


def first_step(program: Program, *ops: Op) -> int:
    return next(i for i, step in enumerate(program.steps) if step.op in ops)


@pytest.mark.parametrize("kernels", ["reference", *native.engine().available()])
@pytest.mark.parametrize("seed", range(3))
def test_the_same_program_passes(kernels, seed, rng, tmp_path):
    program = every_op(seed) if seed else small(points=20, normalize="unit_sphere")
    if kernels == "reference":
        verification = Verification(program, stepper(program), answerer(program))
    else:
        write(program, tmp_path / "model.popc")
        engine = native.engine().Engine(tmp_path / "model.popc", kernels=kernels)
        verification = Verification(program, engine.step, lambda cloud, _: engine.run([cloud])[0])
    for _ in range(3):
        verification.add(*evidence(program, rng))
    report = verification.report()
    assert report.ok
    assert (report.clouds, report.agreeing, report.first) == (3, 3, None)
    assert [line.op for line in report.lines] == [step.op.name for step in program.steps]
    for line, step in zip(report.lines, program.steps, strict=True):
        value = program.values[step.output]
        assert line.kind == ("bits" if value.kind is Kind.BITS else "floats")
        assert line.compared % (3 * value.channels) == 0
        assert line.compared > 0
        assert line.error == 0


def test_a_wrong_limit_is_found_in_its_own_step_alone(rng):
    program = small()
    index = first_step(program, Op.BINARY_LINEAR_BITS, Op.BINARY_MAX_BITS)
    wrong = changed(program, index, "limit", lambda limit: np.copyto(limit, -1 - limit))
    verification = Verification(program, stepper(wrong), answerer(program))
    verification.add(*evidence(program, rng))
    report = verification.report()
    assert not report.ok
    assert [i for i, line in enumerate(report.lines) if not line.ok] == [index]
    assert report.first is report.lines[index]
    assert f"first layer that differs: {report.first.name} ({report.first.op})" in table(report)


def test_floats_may_be_off_by_rounding_and_no_more(rng):
    program = small()
    cloud, taps = evidence(program, rng)
    index = first_step(program, Op.LINEAR)
    unit = max(1.0, float(np.abs(taps[program.steps[index].output]).max()))
    for share, ok in ((0.5, True), (4.0, False)):

        def step(i, inputs, rows, share=share):
            found = reference.step(program, i, inputs, rows)
            return found + np.float32(share * TOLERANCE * unit) if i == index else found

        verification = Verification(program, step, answerer(program))
        verification.add(cloud, taps)
        line = verification.report().lines[index]
        assert line.ok is ok
        assert line.error == pytest.approx(share * TOLERANCE, rel=0.2)
        assert line.differing == (0 if ok else line.compared)


def test_points_of_one_cloud_count_as_one(rng):
    program = small()
    verification = Verification(program, stepper(program), answerer(program))
    for more in (False, True, True, False):
        verification.add(*evidence(program, rng), more=more)
    assert (verification.report().clouds, verification.report().answers) == (2, 4)


def test_another_answer_is_counted(rng):
    program = small()
    verification = Verification(program, stepper(program), lambda cloud, at: -answerer(program)(cloud, at))
    for _ in range(2):
        verification.add(*evidence(program, rng))
    report = verification.report()
    assert (report.clouds, report.agreeing, report.first) == (2, 0, None)
    assert not report.ok
    assert "answers: 0 of 2 clouds" in table(report)


def test_a_value_that_pytorch_lacks_is_seen_through_the_next_step(rng):
    program = small()
    index = first_step(program, Op.BINARY_LINEAR_BITS)
    hidden = program.steps[index].output
    reader = next(i for i, step in enumerate(program.steps) if hidden in step.inputs)
    wrong = changed(program, index, "limit", lambda limit: np.copyto(limit, -1 - limit))
    for one, ok in ((program, True), (wrong, False)):
        verification = Verification(program, stepper(one), answerer(program))
        cloud, taps = evidence(program, rng)
        del taps[hidden]
        verification.add(cloud, taps)
        lines = verification.report().lines
        assert (lines[index].kind, lines[index].compared, lines[index].ok) == ("", 0, True)
        assert lines[reader].ok is ok
        assert "seen through the next step" in table(verification.report())


def test_no_cloud_is_no_proof():
    program = small()
    assert not Verification(program, stepper(program), answerer(program)).report().ok


def test_bits_are_counted_one_by_one():
    wanted = np.array([[0b1010, 0], [2**63, 1]], np.uint64)
    assert differing_bits(wanted, wanted) == 0
    assert differing_bits(wanted ^ np.uint64(0b11), wanted) == 8


def test_float_errors_know_the_scale_and_what_is_not_finite():
    wanted = np.array([[0.5, -100.0, np.inf, np.nan, 0.0, 1.0]], np.float32)
    found = np.array([[0.5, -101.0, np.inf, np.nan, 0.25, np.nan]], np.float32)
    np.testing.assert_allclose(float_errors(found, wanted), [[0, 0.01, 0, 0, 0.0025, np.inf]])
    assert float_errors(np.float32([[0.5]]), np.float32([[0.25]]))[0, 0] == 0.25  # the unit is 1 at least
    assert float_errors(np.float32([[-np.inf]]), np.float32([[np.inf]]))[0, 0] == np.inf


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: replace(p, points=77), "points: the file has 77, the checkpoint 0"),
        (lambda p: replace(p, normalize="unit_sphere"), "normalize: the file has 'unit_sphere', the checkpoint 'none'"),
        (lambda p: replace(p, classes=("x", *p.classes[1:])), "classes: the file has 4 (x, b, c, ...)"),
        (lambda p: replace(p, steps=p.steps[:-1]), "the file has 5 steps, the checkpoint 6"),
        (lambda p: replace(random_program(5), classes=p.classes), "step 0: the file has "),
    ],
    ids=["points", "normalize", "classes", "fewer steps", "other steps"],
)
def test_other_programs_are_told_apart(change, words):
    program = small()
    assert mismatch(program, program) is None
    assert words in mismatch(change(program), program)


def test_a_changed_constant_is_named():
    program = small()
    assert changed_constant(program, small()) is None
    index = first_step(program, Op.BINARY_LINEAR_BITS)

    def flip(limit):
        limit[:2] += 1

    found = changed_constant(changed(program, index, "limit", flip), program)
    size = program.steps[index].blobs["limit"].size
    assert found.startswith(f"step {index}, ")
    assert found.endswith(f"limit differs in 2 of {size} elements")


def test_constants_are_compared_bit_for_bit():
    program = every_op(1)
    index = first_step(program, Op.LINEAR)
    zero = changed(program, index, "bias", lambda bias: bias.fill(0.0))
    minus = changed(program, index, "bias", lambda bias: bias.fill(-0.0))
    nan = changed(program, index, "bias", lambda bias: bias.fill(np.nan))
    assert changed_constant(minus, zero) is not None
    assert changed_constant(nan, nan) is None


def test_a_scale_per_channel_is_not_one_for_all():
    program = every_op(1)
    index = first_step(program, Op.AFFINE)
    steps = list(program.steps)
    scale = steps[index].blobs["scale"]
    steps[index] = replace(steps[index], blobs=steps[index].blobs | {"scale": np.repeat(scale, 2)})
    assert "scale has shape" in changed_constant(replace(program, steps=tuple(steps)), program)


def test_the_table_has_a_line_per_step():
    lines = (
        Line("conv1", "LINEAR", "floats", 1200, 0, 3e-7),
        Line("conv2.rows", "BINARY_LINEAR", ""),
        Line("conv2.bits", "BINARIZE", "bits", 64, 3),
    )
    text = table(Report(lines, 2, 2, 2)).splitlines()
    assert len(text) == 7
    assert "1,200 floats" in text[2]
    assert "3.0e-07" in text[2]
    assert text[2].endswith("ok")
    assert text[4].split() == ["conv2.bits", "BINARIZE", "64", "bits", "3", "-", "DIFFERS"]


@pytest.fixture
def scene(rng):
    """A program on a grid, and what stands for PyTorch's values of one scene."""
    program = every_grid_op(3)
    first, at = sites.ready(program, surface(rng, 4000, 3))
    return program, first, at, dict(enumerate(sites.values(program, first, at)))


def on_grid(program: Program, run: Program) -> Verification:
    last = run.steps[-1].output
    return Verification(
        program,
        lambda index, inputs, at: sites.step(run, index, inputs, at),
        lambda first, at: sites.values(run, first, at)[last],
    )


def test_network_on_a_grid_passes_with_a_line_per_value(scene):
    program, first, at, taps = scene
    verification = on_grid(program, program)
    verification.add(first, taps, at, at.point_to_site)
    report = verification.report()
    assert report.ok
    assert (report.clouds, report.answers, report.agreeing) == (1, 4000, 4000)
    assert [line.name for line in report.lines] == [value.name for value in program.values[1:]]
    assert "answers: 4,000 of 4,000 points of 1 scenes" in table(report)


def test_one_changed_sign_of_a_grid_s_weights_is_found_in_its_step(scene):
    program, first, at, taps = scene
    index = first_step(program, Op.BINARY_SPARSE_CONV)
    other = changed(program, index, "weight", lambda w: np.bitwise_xor(w, 1, out=w))
    verification = on_grid(program, other)
    verification.add(first, taps, at, at.point_to_site)
    report = verification.report()
    assert not report.ok
    assert report.first.name == program.values[program.steps[index].output].name
    assert "weight differs in" in changed_constant(program, other)


@pytest.mark.parametrize(("wrong", "ok"), [(0, True), (4, True), (5, False)])
def test_one_point_in_a_thousand_may_get_another_class(scene, wrong, ok):
    program, first, at, taps = scene
    answer = taps[program.steps[-1].output]
    turned = np.zeros(len(answer), bool)
    turned[0] = True
    points = np.concatenate([np.zeros(wrong, int), np.ones(4000 - wrong, int)])
    verification = Verification(
        program,
        lambda index, inputs, at: sites.step(program, index, inputs, at),
        lambda first, at: np.where(turned[:, None], -answer, answer),
    )
    verification.add(first, taps, at, points)
    assert verification.report().agreeing == 4000 - wrong
    assert verification.report().ok == ok


def test_other_grid_or_features_can_t_be_compared():
    program = every_grid_op(3)
    assert mismatch(program, program) is None
    assert mismatch(program, replace(program, plan=Grid(0.2, 2, 5))).startswith("plan: the file has Grid(edge=0.15")
    assert mismatch(program, replace(program, features=("a", "b", "c"))).startswith("features: the file has 3 (feature")
    less = [replace(s, blobs={k: b for k, b in s.blobs.items() if k != "shifts"}) for s in program.steps]
    assert "the checkpoint's" in changed_constant(program, replace(program, steps=tuple(less)))


@pytest.mark.parametrize(
    ("answers", "share", "words"),
    [
        (3, 1.0, "answers: 3 of 3 clouds get"),
        (90, 1.0, "answers: 90 of 90 points of 3 clouds get"),
        (90, 0.999, "answers: 90 of 90 points of 3 scenes get"),
    ],
)
def test_a_table_says_what_it_counted(answers, share, words):
    assert words in table(Report((Line("a", "LINEAR", "floats"),), 3, answers, answers, share))
