from __future__ import annotations

import json
import sys

import pytest

from popcloud.errors import FileError, RecipeError
from popcloud.learn.journal import LOG, Journal, check_tensorboard, read


def fill(folder, epochs: int, **extra) -> None:
    log = Journal(folder, keep=0, tensorboard=False)
    for epoch in range(1, epochs + 1):
        log.add({"epoch": epoch, "loss": 1 / epoch, **extra})
    log.close()


def test_lines_come_back_in_order(tmp_path):
    fill(tmp_path, 3)
    assert [line["epoch"] for line in read(tmp_path / LOG)] == [1, 2, 3]
    assert read(tmp_path / LOG)[1]["loss"] == 0.5


def test_epochs_that_come_again_are_dropped(tmp_path):
    fill(tmp_path, 5)
    Journal(tmp_path, keep=2, tensorboard=False).add({"epoch": 3, "loss": 0})
    assert [line["epoch"] for line in read(tmp_path / LOG)] == [1, 2, 3]
    assert read(tmp_path / LOG)[2]["loss"] == 0


def test_a_half_written_line_is_dropped(tmp_path):
    fill(tmp_path, 2)
    with (tmp_path / LOG).open("a") as file:
        file.write('{"epoch": 3, "lo')
    Journal(tmp_path, keep=9, tensorboard=False)
    assert [json.loads(line)["epoch"] for line in (tmp_path / LOG).read_text().splitlines()] == [1, 2]


def test_a_new_log_is_empty(tmp_path):
    Journal(tmp_path, keep=0, tensorboard=False)
    assert (tmp_path / LOG).read_text() == ""


def test_a_folder_that_is_gone_is_named(tmp_path):
    with pytest.raises(FileError, match=LOG):
        Journal(tmp_path / "none", keep=0, tensorboard=False)


def test_tensorboard_events_are_written(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    log = Journal(tmp_path, keep=0, tensorboard=True)
    log.add({"epoch": 1, "loss": 0.25, "positive": {"conv2": 0.5}})
    log.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"loss" in content
    assert b"positive/conv2" in content


def test_missing_tensorboard_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RecipeError, match=r"popcloud\[tensorboard\]"):
        check_tensorboard()
