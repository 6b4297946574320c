"""docs/format.md and the code say the same bytes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from popcloud.packed.layout import BLOB, HEADER, STEP, VALUE, checksum, sections
from popcloud.packed.program import BLOBS, GRID_OPS, OPTIONAL, POINT_OPS, Op
from popcloud.packed.validate import BINARY, POOLED, TO_BITS

FORMAT = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
RECORDS = {"Header": HEADER, "Value record": VALUE, "Step record": STEP, "Blob record": BLOB}


def rows(title: str) -> list[list[str]]:
    """Return the cells of the first table below a heading that begins with `title`."""
    section = re.split(rf"^## {title}.*$", FORMAT, flags=re.M)[1]
    lines = re.search(r"(?:^\|.*\n)+", section, flags=re.M)[0].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


@pytest.mark.parametrize("title", RECORDS)
def test_record_is_as_the_page_says(title):
    dtype = RECORDS[title]
    said = [(name, int(offset), int(size)) for name, offset, size, *_ in rows(title)]
    assert said == [(name, field[1], field[0].itemsize) for name, field in dtype.fields.items()]
    assert re.search(rf"^## {title}, {dtype.itemsize} bytes$", FORMAT, flags=re.M)


@pytest.mark.parametrize("dtype", RECORDS.values(), ids=RECORDS)
def test_record_needs_no_packing_in_c(dtype):
    aligned = np.dtype([(name, dtype[name]) for name in dtype.names], align=True)
    assert aligned.itemsize == dtype.itemsize
    assert [aligned.fields[name][1] for name in dtype.names] == [dtype.fields[name][1] for name in dtype.names]


def test_ops_are_as_the_page_says():
    for name, number, inputs, output, blobs in rows("Steps and their blobs"):
        op = Op[name]
        assert op == int(number)
        assert inputs.startswith("BITS" if op in BINARY or op is Op.BINARY_SPARSE_CONV else "FLOAT")
        assert output.startswith("BITS" if op in TO_BITS else "FLOAT")
        assert output.endswith("SITES") == (op in GRID_OPS)
        assert output.endswith("CLOUD") == (op in POOLED)
        assert tuple(re.findall(r"(\w+) (?:f32|i32|u64|i8)", blobs)) == BLOBS[op]
        assert set(re.findall(r"\[(\w+)", blobs)) == OPTIONAL & set(BLOBS[op])
        assert op not in POINT_OPS
    assert len(rows("Steps and their blobs")) == len(Op) - len(POINT_OPS)


def test_ops_on_points_are_as_the_page_says():
    named = {Op[row[0]]: row for row in rows("Steps on points")}
    assert set(named) == POINT_OPS | {Op.CONCAT}
    for op, (_, number, inputs, output, blobs) in named.items():
        assert op == int(number)
        assert inputs.startswith("BITS") == (op in BINARY or op is Op.NEAREST_SIGNS)
        assert output.startswith("INDEX") == (Op.FARTHEST_POINTS <= op <= Op.BALL)
        assert tuple(re.findall(r"(\w+) (?:f32|i32|u64)", blobs)) == BLOBS[op]


def test_checksum_is_zlibs_and_skips_itself():
    raw = np.frombuffer(b"123456789".ljust(300, b"\0"), np.uint8).copy()
    before = checksum(raw)
    raw[12:16] = 255
    assert checksum(raw) == before
    raw[16] = 1
    assert checksum(raw) != before


def test_sections_follow_each_other_on_multiples_of_64():
    starts = sections(values=5, steps=4, blobs=2, names_bytes=65, meta_bytes=0)
    assert starts == {"values": 256, "steps": 384, "blobs": 640, "names": 768, "meta": 896, "data": 896}
