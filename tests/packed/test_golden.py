"""A file of the past is still read, and still means the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from popcloud.packed.file import encode, read
from popcloud.runtime import reference

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def program():
    return read(GOLDEN / "tiny.popc")


def test_golden_file_is_written_byte_for_byte_again(program):
    assert encode(program) == (GOLDEN / "tiny.popc").read_bytes()


def test_golden_files_are_small():
    assert sum(path.stat().st_size for path in GOLDEN.iterdir() if path.is_file()) < 100_000


def test_reference_gives_the_golden_values(program):
    with np.load(GOLDEN / "tiny.npz") as golden:
        found = reference.values(program, golden["points"])
        for value, array in zip(program.values, found, strict=True):
            assert array.dtype == golden[value.name].dtype
            np.testing.assert_array_equal(array, golden[value.name], err_msg=value.name)
