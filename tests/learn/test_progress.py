from __future__ import annotations

import io

import pytest

from popcloud.learn.progress import Bar, Lines, Reporter, Silent, clock, reporter

LINE = {"epoch": 1, "loss": 0.75, "train": 0.5, "validation": 0.25, "best": 0.25, "seconds": 3.0}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drive(target: Reporter) -> None:
    target.start(epochs=2, batches=3, done=1)
    target.batch(0, 1, 0.8, 0.4)
    target.batch(0, 2, 0.75, 0.5)
    target.epoch(LINE)
    target.close()


def test_plain_lines_for_a_file():
    stream = io.StringIO()
    drive(reporter(stream))
    (line,) = stream.getvalue().splitlines()
    for word in ["epoch 1/2", "loss 0.750", "train 50.0%", "validation 25.0% (best 25.0%)", "left"]:
        assert word in line


def test_a_bar_for_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    stream = Terminal()
    assert isinstance(reporter(stream), Bar)
    drive(reporter(stream))
    for word in ["epoch 1/2", "0.750", "50.0%", "validation 25.0%"]:
        assert word in stream.getvalue()


def test_lines_without_validation():
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start(1, 1, 0)
    lines.epoch({"epoch": 1, "loss": 0.5, "train": 1.0, "seconds": 1.0})
    assert "validation" not in stream.getvalue()


def test_silence(capsys):
    drive(Silent())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05"), (90000, "25:00:00")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text
