"""Law of the file: write then read is the identity; any damage gives a FileError, never a crash."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_programs import GridBuilder, grid_programs
from point_programs import point_programs, small_point_program
from popcloud.errors import FileError
from popcloud.packed.file import decode, encode
from popcloud.packed.layout import VERSIONS
from popcloud.packed.program import Activation, Grid, Op
from programs import every_op, programs, random_program, same, sealed


def small_grid_program():
    """Return a program on a grid with every kind of blob, and not many bytes of them."""
    build = GridBuilder(np.random.default_rng(0), Grid(0.1, 2, 5), 2)
    bits = build.conv(0, 4, kinds="FBB", activation=Activation.RPRELU) + 1
    x = build.conv(bits, 4, kinds="FB", shortcut=bits - 1, groups=2)
    build.add(Op.LINEAR, x, channels=4)
    build.steps[-1].blobs["weight"] = build.steps[-1].blobs["weight"].astype(np.float16)
    return build.program(3)


FILES = [
    encode(every_op(0)),
    *(encode(random_program(seed, depth=1)) for seed in range(3)),
    encode(small_grid_program()),
    encode(small_point_program()),
]


@given(programs() | grid_programs() | point_programs())
def test_round_trip_is_the_identity(program):
    data = encode(program)
    back = decode(data)
    assert same(back, program)
    assert encode(back) == data


@pytest.mark.parametrize("data", FILES, ids=range(len(FILES)))
def test_every_damaged_byte_is_noticed(data, rng):
    bits = rng.integers(0, 8, len(data))
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << bits[at]
        with pytest.raises(FileError):
            decode(bytes(damaged))


@pytest.mark.parametrize("data", FILES, ids=range(len(FILES)))
def test_every_truncation_is_noticed(data):
    for size in range(len(data)):
        with pytest.raises(FileError):
            decode(data[:size])


@given(st.sampled_from(FILES), st.data())
def test_wrong_bytes_with_the_right_checksum_never_crash(data, draw):
    """Past the checksum stand the checks of structure: a program that is written the same again, or a FileError."""
    raw = np.frombuffer(data, np.uint8).copy()
    for _ in range(draw.draw(st.integers(1, 3))):
        # most bytes are constants, so the tables get their share of the damage by half of the draws
        last = draw.draw(st.sampled_from([2048, len(raw) - 1]))
        raw[draw.draw(st.integers(12, min(last, len(raw) - 1)))] = draw.draw(st.integers(0, 255))
    damaged = sealed(raw.tobytes())
    try:
        program = decode(damaged)
    except FileError:
        return
    assert encode(program) == damaged


@given(
    st.binary(max_size=600), st.sampled_from([b"", *(b"POPCLOUD" + bytes([version, 0, 0, 0]) for version in VERSIONS)])
)
def test_foreign_bytes_never_crash(data, magic):
    with pytest.raises(FileError):
        decode(magic + data)
