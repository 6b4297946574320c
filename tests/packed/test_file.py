"""Model files on the disk: whole or not at all, read in place, and one clear line for each thing that can be wrong."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import pytest

from popcloud.errors import FileError
from popcloud.packed import file as model_file
from popcloud.packed.file import data_offset, read, write
from programs import every_op, random_program, same


@pytest.fixture
def path(tmp_path):
    where = tmp_path / "model.popc"
    write(every_op(3), where)
    return where


def test_read_gives_what_was_written(path):
    assert same(read(path), every_op(3))


def test_arrays_are_views_of_the_mapped_file_and_read_only(path):
    arrays = [blob for step in read(path).steps for blob in step.blobs.values()]
    for array in arrays:
        assert not array.flags.writeable
        assert not array.flags.owndata
        assert array.ctypes.data % 64 == 0
    base = min(array.ctypes.data for array in arrays)
    assert max(array.ctypes.data for array in arrays) - base < path.stat().st_size


def test_program_outlives_its_file(path):
    program = read(path)
    path.unlink()
    assert same(program, every_op(3))


def test_write_replaces_a_model_that_is_being_read(path):
    old = read(path)
    write(random_program(1), path)
    assert same(old, every_op(3))
    assert same(read(path), random_program(1))


def test_write_leaves_nothing_beside_the_file(path):
    assert os.listdir(path.parent) == [path.name]


def test_failed_write_keeps_the_old_file_and_leaves_nothing(path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_file.os, "fsync", full)
    with pytest.raises(FileError, match="no space left"):
        write(random_program(1), path)
    assert os.listdir(path.parent) == [path.name]
    assert same(read(path), every_op(3))


def test_inconsistent_program_is_not_written(tmp_path):
    with pytest.raises(FileError, match="normalize"):
        write(replace(every_op(3), normalize="box"), tmp_path / "model.popc")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["absent/model.popc", "folder", "a\0b", "x" * 300])
def test_unwritable_path_is_one_line(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match=r"can't be written .*name a file") as caught:
        write(every_op(3), f"{tmp_path}/{name}")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match="permission denied"):
        write(every_op(3), tmp_path / "model.popc")


@pytest.mark.parametrize(("name", "cause"), [("absent", "no such file"), ("", "a folder"), ("a\0b", "null byte")])
def test_unreadable_path_is_one_line(tmp_path, name, cause):
    with pytest.raises(FileError, match=cause) as caught:
        read(f"{tmp_path}/{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="not a file"):
        read(tmp_path / "pipe")


@pytest.mark.parametrize("content", [b"", b"POP", b"\x89PNG\r\n\x1a\n" * 99, b"PK\x03\x04" * 99])
def test_other_files_are_no_model_files(tmp_path, content):
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(FileError, match="other: not a model file"):
        read(tmp_path / "other")


def test_data_offset_is_where_the_first_array_lies(path):
    first = read(path).steps[1].blobs["weight"]
    assert path.read_bytes()[data_offset(every_op(3)) :].startswith(first.tobytes())


def test_size_is_a_multiple_of_64(path):
    assert path.stat().st_size % 64 == 0
