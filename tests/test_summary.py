"""The summary adds up to the file, and its figures are those of a layer counted by hand."""

from __future__ import annotations

import pytest
from hypothesis import given

from grid_programs import every_grid_op
from point_programs import point_programs, small_point_program
from popcloud.errors import FileError
from popcloud.packed.file import encode
from popcloud.packed.program import Op
from popcloud.summary import Row, operations, summarize, table
from programs import every_op, programs


@given(programs() | point_programs())
def test_bytes_add_up_to_the_file(program):
    size = len(encode(program))
    *rows, total = summarize(program, 1024, size)
    assert total.bytes == sum(row.bytes for row in rows) == size


def test_file_of_another_size_is_refused():
    program = every_op(0)
    with pytest.raises(FileError, match=r"expected a file of .* bytes"):
        summarize(program, 10, len(encode(program)) + 64)


@pytest.mark.parametrize(
    ("op", "expected"),
    [  # channels in and out as in every_op; ten points
        (Op.LINEAR, (0, 3 * 9 + 9, 0, 3 * 9)),  # after the pool: one row
        (Op.POOL_MEAN, (0, 0, 0, 0)),
        (Op.TRANSFORM, (0, 0, 0, 10 * 3 * 3)),
        (Op.RPRELU, (0, 3 * 70, 0, 10 * 70)),
        (Op.ROW_MEAN_ABS, (0, 0, 0, 0)),
        (Op.BINARIZE, (0, 70, 0, 0)),
        (Op.BINARY_LINEAR_BITS, (70 * 65, 65, 10 * 70 * 65, 0)),
        (Op.BINARY_MAX_BITS, (65 * 129, 129, 10 * 65 * 129, 0)),
        (Op.BINARY_MEAN_BITS, (65 * 6, 6, 10 * 65 * 6, 0)),
    ],
)
def test_figures_of_a_step(op, expected):
    row = next(row for row in summarize(every_op(0), 10) if row.op == op.name)
    assert (row.binary, row.floats, row.binary_macs, row.float_macs) == expected


def test_binary_linear_with_row_scale_multiplies_each_output_twice():
    program = every_op(0)
    row = next(row for row in summarize(program, 10) if row.op == "BINARY_LINEAR")
    step = next(step for step in program.steps if step.op is Op.BINARY_LINEAR)
    assert row.binary == 65 * 5
    assert row.floats == step.blobs["scale"].size + step.blobs["bias"].size
    assert (row.binary_macs, row.float_macs) == (10 * 65 * 5, 2 * 10 * 5)


@given(programs())
def test_points_of_the_program_come_first(program):
    asked = summarize(program, 77)[-1].binary_macs
    assert asked == summarize(program, program.points or 77)[-1].binary_macs


def test_operations_count_a_binary_product_as_a_64th():
    assert operations(Row("x", "", 0, 0, 640, 5, 0)) == 15


def test_table_has_a_line_per_row_and_the_operations():
    rows = summarize(every_op(0), 1000)
    lines = table(rows).splitlines()
    assert len(lines) == len(rows) + 4  # heads, two rules, OPs
    assert len({len(line) for line in lines[:-1]}) == 1
    for row, line in zip(rows[:-1], lines[2:], strict=False):
        assert line.startswith(row.name)
        assert line.endswith(f" {row.bytes:,}")
    assert lines[-1].endswith(f"{operations(rows[-1]):,.0f}")


def test_network_on_a_grid_counts_the_operations_of_a_scene_of_surfaces():
    program, sites = every_grid_op(2), 1000
    rows = summarize(program, sites, len(encode(program)))
    found = {}
    for row, step in zip(rows, program.steps, strict=False):
        levels = tuple(program.values[i].level for i in (step.inputs[0], step.output))
        found.setdefault((step.op, *levels), row)
    same = found[Op.BINARY_SPARSE_CONV, 0, 0]
    assert same.binary == 27 * 16 * 16
    assert same.floats == (1 + 1 + 3 + 2) * 16 + 4 * 3  # scale, bias, RPReLU, two thresholds, four shifts
    assert (same.binary_macs, same.float_macs) == (12 * sites * 16 * 16, sites * 16)
    assert found[Op.BINARY_SPARSE_CONV, 0, 1].binary_macs == sites * 16 * 70  # each child has a parent
    assert found[Op.BINARY_SPARSE_CONV, 0, 1].float_macs == sites // 4 * 70
    assert found[Op.BINARY_SPARSE_CONV, 1, 0].binary_macs == sites * 70 * 16
    assert found[Op.BINARY_SPARSE_CONV, 1, 1].binary_macs == 12 * sites // 4 * 70 * 70
    assert found[Op.SPARSE_CONV, 0, 0].float_macs == 12 * sites * 3 * 16 + sites * 16
    assert found[Op.LINEAR, 1, 1].float_macs == sites // 4 * 16 * 70
    assert found[Op.SITE_MEAN, 0, 1].float_macs == 0
    assert rows[-1].bytes == len(encode(program))
    assert f"OPs per scene of 1,000 sites on surfaces = float MAC + binary MAC / 64 = {operations(rows[-1]):,.0f}" in (
        table(rows, sites)
    )


@pytest.mark.parametrize(
    ("op", "expected"),
    [  # channels as in small_point_program; ten points, and five of the level above
        (Op.FARTHEST_POINTS, (0, 0, 0, 5 * 10 * 3)),
        (Op.NEAREST, (0, 0, 0, 5 * 10 * 3)),
        (Op.NEAREST_SIGNS, (0, 0, 5 * 5 * 3, 0)),
        (Op.NEAREST_FEATURES, (0, 0, 0, 10 * 10 * 6)),
        (Op.BALL, (0, 0, 0, 10 * 5 * 3)),
        (Op.DENSITY, (0, 0, 0, 5 * 5 * 3)),
        (Op.GATHER, (0, 0, 0, 0)),
        (Op.SLICE, (0, 0, 0, 0)),
        (Op.PRODUCT, (0, 0, 0, 5 * 3 * 3 * 2)),
        (Op.MULTIPLY, (0, 0, 0, 5 * 6)),
        (Op.LINEAR_GROUPS, (0, 3 * 4 + 4, 0, 10 * 3 * 4)),
        (Op.BINARY_SUM, (3 * 2 * 3, 2 * 3 + 3, 5 * 3 * 3 * 2 * 3, 5 * 3 * 2 * 3)),
    ],
)
def test_figures_of_a_step_on_points(op, expected):
    row = next(row for row in summarize(small_point_program(), 10) if row.op == op.name)
    assert (row.binary, row.floats, row.binary_macs, row.float_macs) == expected


def test_groups_of_signs_count_their_own_inputs_alone():
    row = next(row for row in summarize(small_point_program(), 10) if row.op == "BINARY_GROUPS")
    assert (row.binary, row.binary_macs, row.float_macs) == (3, 5 * 3 * 3, 5 * 3 * 3)
