"""PCD files written by hand as text, binary and compressed; the LZF decoder."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcloud.data.files import read_cloud
from popcloud.data.files_pcd import lzf_decompress
from popcloud.errors import CloudError

XYZ = np.array([[0, 0, 0], [1.5, -2, 3], [4, 5, 6]], dtype=np.float32)
COLOURS = [0x102030, 0xFF0080, 0x000001]


def write(folder, body: bytes, form: str = "ascii", **changes: str):
    """Write a PCD of three points x y z; `changes` replaces or, for "", removes header lines."""
    lines = {
        "VERSION": ".7", "FIELDS": "x y z", "SIZE": "4 4 4", "TYPE": "F F F", "COUNT": "1 1 1",
        "WIDTH": "3", "HEIGHT": "1", "VIEWPOINT": "0 0 0 1 0 0 0", "POINTS": "3", "DATA": form,
    } | changes  # fmt: skip
    head = "# .PCD v.7\n" + "".join(f"{key} {value}\n" for key, value in lines.items() if value)
    path = folder / "a.pcd"
    path.write_bytes(head.encode() + body)
    return path


def lzf_literals(content: bytes) -> bytes:
    """LZF without a copy: runs of up to 32 bytes, each after its length minus 1."""
    runs = [content[i : i + 32] for i in range(0, len(content), 32)]
    return b"".join(bytes([len(run) - 1]) + run for run in runs)


def test_ascii(tmp_path):
    np.testing.assert_array_equal(read_cloud(write(tmp_path, b"0 0 0\n1.5 -2 3\n4 5 6\n")).xyz, XYZ)


def test_binary(tmp_path):
    np.testing.assert_array_equal(read_cloud(write(tmp_path, XYZ.astype("<f4").tobytes(), "binary")).xyz, XYZ)


def test_compressed_keeps_field_after_field(tmp_path):
    packed = lzf_literals(XYZ.T.astype("<f4").tobytes())
    body = struct.pack("<II", len(packed), 36) + packed
    np.testing.assert_array_equal(read_cloud(write(tmp_path, body, "binary_compressed")).xyz, XYZ)


RICH = {"FIELDS": "z rgb x _ y label n", "SIZE": "8 4 4 1 2 4 4", "TYPE": "F F F U I U F", "COUNT": "1 1 1 3 1 1 2"}


@pytest.mark.parametrize("form", ["binary", "binary_compressed"])
def test_fields_of_any_type_padding_and_packed_colours(tmp_path, form):
    rows = [
        (z, struct.unpack("<f", struct.pack("<I", rgb))[0], x, b"pad", int(y), label, 0.5, 0.25)
        for (x, y, z), rgb, label in zip(XYZ.tolist(), COLOURS, (4, 5, 6), strict=True)
    ]
    kinds = ["d", "f", "f", "3s", "h", "I", "f", "f"]
    if form == "binary":
        body = b"".join(struct.pack("<" + "".join(kinds), *row) for row in rows)
    else:
        columns = zip(*rows, strict=True)
        whole = b"".join(
            b"".join(struct.pack("<" + k, v) for v in column) for k, column in zip(kinds, columns, strict=True)
        )
        packed = lzf_literals(whole)
        body = struct.pack("<II", len(packed), len(whole)) + packed
    cloud = read_cloud(write(tmp_path, body, form, **RICH))
    np.testing.assert_array_equal(cloud.xyz, XYZ)
    np.testing.assert_array_equal(cloud.labels, [4, 5, 6])
    expected = [[16, 32, 48, 0.5, 0.25], [255, 0, 128, 0.5, 0.25], [0, 0, 1, 0.5, 0.25]]
    np.testing.assert_array_equal(cloud.features, expected)


def test_whole_number_colours_as_text(tmp_path):
    body = "".join(f"{x} {y} {z} {c}\n" for (x, y, z), c in zip(XYZ.tolist(), COLOURS, strict=True)).encode()
    path = write(tmp_path, body, FIELDS="x y z rgba", SIZE="4 4 4 4", TYPE="F F F U", COUNT="1 1 1 1")
    np.testing.assert_array_equal(read_cloud(path).features, [[16, 32, 48], [255, 0, 128], [0, 0, 1]])


def test_holes_of_an_organised_cloud_are_left_out(tmp_path):
    path = write(tmp_path, b"0 0 0\nnan nan nan\n4 5 6\n", WIDTH="1", HEIGHT="3", POINTS="")
    np.testing.assert_array_equal(read_cloud(path).xyz, XYZ[[0, 2]])


def test_a_cloud_of_holes_alone_is_refused(tmp_path):
    with pytest.raises(CloudError, match="3 of 3 points are not finite"):
        read_cloud(write(tmp_path, b"nan nan nan\n" * 3))


def test_the_header_may_leave_out_count(tmp_path):
    np.testing.assert_array_equal(read_cloud(write(tmp_path, b"0 0 0\n1.5 -2 3\n4 5 6\n", COUNT="")).xyz, XYZ)


@pytest.mark.parametrize(
    ("changes", "body", "says"),
    [
        ({}, b"0 0 0\n1 2 3\n", "expected 3 points, found 2; it is cut short"),
        ({}, b"0 0 0\n1 2\n4 5 6\n", "line 13: expected the numbers x y z, found '1 2'"),
        ({}, b"0 0 0\n1 2 z\n4 5 6\n", "line 13: expected the numbers x y z, found '1 2 z'"),
        ({"DATA": "text"}, b"", r"line 11: expected DATA ascii, binary, binary_compressed, found \['text'\]"),
        ({"FIELDS": ""}, b"", "expected the header line FIELDS"),
        ({"SIZE": "4 4"}, b"", "don't fit each other"),
        ({"SIZE": "4 4 3"}, b"", "don't fit each other"),
        ({"TYPE": "F F X"}, b"", "don't fit each other"),
        ({"POINTS": "three"}, b"", "expected POINTS and a whole number"),
        ({"POINTS": "-3"}, b"", "expected POINTS and a whole number"),
        ({"POINTS": "", "WIDTH": ""}, b"", "expected WIDTH and a whole number"),
        ({"FIELDS": "x y w"}, b"0 0 0\n" * 3, "expected the columns x, y, z, found x, y, w"),
    ],
)
def test_damage_is_named(tmp_path, changes, body, says):
    with pytest.raises(CloudError, match=says):
        read_cloud(write(tmp_path, body, **changes))


def test_no_pcd_at_all_and_a_header_cut_short(tmp_path):
    (tmp_path / "a.pcd").write_bytes(b"")
    with pytest.raises(CloudError, match="this is no PCD file"):
        read_cloud(tmp_path / "a.pcd")
    (tmp_path / "a.pcd").write_bytes(b"VERSION .7\nFIELDS x y z\nSIZE 4")
    with pytest.raises(CloudError, match=r"line 3: expected the line DATA.*cut short"):
        read_cloud(tmp_path / "a.pcd")


def test_binary_cut_short_names_the_offset(tmp_path):
    path = write(tmp_path, XYZ.tobytes()[:-1], "binary")
    offset = len(path.read_bytes()) - 35
    with pytest.raises(CloudError, match=f"offset {offset}: expected 36 bytes for 3 points, found 35"):
        read_cloud(path)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "cut short"),
        (b"\0\0", "cut short"),
        (struct.pack("<II", 99, 36) + b"abc", "expected 99 compressed bytes, found 3"),
        (struct.pack("<II", 3, 40) + b"abc", "expected 36 bytes for 3 points, found 40"),
        (struct.pack("<II", 3, 36) + b"\x05ab", "literal bytes are missing"),
        (struct.pack("<II", 2, 36) + b"\x20\x00", "a copy reaches before the beginning"),
        (struct.pack("<II", 3, 36) + b"\x00a\xe0", "it ends within a copy"),
        (struct.pack("<II", 2, 36) + b"\x00a", "expected 36 bytes, found 1"),
    ],
)
def test_damaged_compressed_data(tmp_path, body, says):
    with pytest.raises(CloudError, match=says):
        read_cloud(write(tmp_path, body, "binary_compressed"))


# --- LZF ---


def test_lzf_by_hand():
    # "ab", then 3 bytes from 2 back (they overlap themselves), then 9 + 7 + 2 bytes from 1 back.
    assert lzf_decompress(b"\x01ab" + b"\x20\x01", 5) == b"ababa"
    assert lzf_decompress(b"\x00z" + b"\xe0\x09\x00", 19) == b"z" * 19


def lzf_compress(content: bytes) -> bytes:
    """A slow LZF packer: the longest copy at each place, else one literal."""
    out, at = bytearray(), 0
    while at < len(content):
        best, back = 0, 0
        for start in range(max(0, at - 8192), at):
            length = 0
            while length < 264 and at + length < len(content) and content[start + length] == content[at + length]:
                length += 1
            if length > best:
                best, back = length, at - start - 1
        if best < 3:
            out += bytes([0, content[at]])
            at += 1
            continue
        short = best - 2
        out += bytes([(min(short, 7) << 5) | (back >> 8)])
        out += bytes([short - 7]) if short >= 7 else b""
        out += bytes([back & 255])
        at += best
    return bytes(out)


@given(st.lists(st.sampled_from([b"ab", b"abc", b"\0" * 40, b"x", b"yz" * 150]), max_size=12).map(b"".join))
def test_lzf_undoes_a_packer(content):
    assert lzf_decompress(lzf_compress(content), len(content)) == content


@given(st.binary(max_size=60))
def test_lzf_of_any_bytes_ends_well(packed):
    try:
        size = len(lzf_decompress(packed, 100))
    except ValueError:
        size = 100  # said so
    assert size == 100


def test_a_header_that_promises_too_much_takes_no_memory(tmp_path):
    path = tmp_path / "a.pcd"
    path.write_text("FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 99999999999\nPOINTS 1\nDATA ascii\n1 2 3\n")
    with pytest.raises(CloudError, match="don't fit each other"):
        read_cloud(path)
