"""Files of the past are still read, and still mean the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from popcloud.packed.file import encode, read
from popcloud.runtime import reference

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module", params=["tiny", "points"])
def name(request):
    return request.param


def test_golden_file_is_written_byte_for_byte_again(name):
    path = GOLDEN / f"{name}.popc"
    assert encode(read(path)) == path.read_bytes()


def test_golden_files_are_small():
    assert sum(path.stat().st_size for path in GOLDEN.iterdir() if path.is_file()) < 200_000


def test_reference_gives_the_golden_values(name):
    program = read(GOLDEN / f"{name}.popc")
    with np.load(GOLDEN / f"{name}.npz") as golden:
        found = reference.values(program, golden["points"])
        for number, (value, array) in enumerate(zip(program.values, found, strict=True)):
            wanted = golden[value.name if number else "cloud"]
            assert array.dtype == wanted.dtype
            np.testing.assert_array_equal(array, wanted, err_msg=value.name)
