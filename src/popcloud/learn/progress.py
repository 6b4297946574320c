"""What a person sees while a run trains. `train` knows the protocol only; a caller passes one of these, or its own."""

from __future__ import annotations

import time
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class Reporter(Protocol):
    """Who is told how a run goes."""

    def start(self, epochs: int, batches: int, done: int) -> None:
        """Training starts: so many epochs of so many batches, `done` batches of all of them already behind."""

    def batch(self, epoch: int, batch: int, loss: float, accuracy: float) -> None:
        """Batch `batch` of epoch `epoch`, both from 0, is done; loss and accuracy are means over the epoch so far."""

    def epoch(self, line: dict[str, Any]) -> None:
        """An epoch is done; `line` is what the log holds, see popcloud.learn.train."""

    def close(self) -> None:
        """Training is over, or broken off."""


class Silent:
    """Tells nobody."""

    def start(self, epochs: int, batches: int, done: int) -> None:
        """Nothing."""

    def batch(self, epoch: int, batch: int, loss: float, accuracy: float) -> None:
        """Nothing."""

    def epoch(self, line: dict[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Bar:
    """A bar with loss, accuracy and time left, for a terminal."""

    def __init__(self, stream: TextIO):
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=None),
            TextColumn("loss {task.fields[loss]:.3f}  train {task.fields[accuracy]:.1%}"),
            TextColumn("{task.fields[validation]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=Console(file=stream),
            speed_estimate_period=120,
        )
        self.epochs = self.batches = 0

    def start(self, epochs: int, batches: int, done: int) -> None:
        """Show the bar."""
        self.epochs, self.batches = epochs, batches
        fields: dict[str, Any] = {"epoch": f"1/{epochs}", "loss": float("nan"), "accuracy": 0.0, "validation": ""}
        self.task = self.bar.add_task("train", total=epochs * batches, completed=done, **fields)
        self.bar.start()

    def batch(self, epoch: int, batch: int, loss: float, accuracy: float) -> None:
        """Move the bar."""
        done = epoch * self.batches + batch + 1
        label = f"{epoch + 1}/{self.epochs}"
        self.bar.update(self.task, completed=done, epoch=label, loss=loss, accuracy=accuracy)

    def epoch(self, line: dict[str, Any]) -> None:
        """Show the validation accuracy of the last epoch and of the best."""
        if "validation" in line:
            text = f"{line.get('stage', '')} validation {line['validation']:.1%} (best {line['best']:.1%})".lstrip()
            self.bar.update(self.task, validation=text)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.stop()


class Lines:
    """One plain line an epoch, for a file or a pipe."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.epochs = self.first = 0
        self.began = 0.0

    def start(self, epochs: int, batches: int, done: int) -> None:
        """Note the time."""
        self.epochs, self.began, self.first = epochs, time.monotonic(), done // batches

    def batch(self, epoch: int, batch: int, loss: float, accuracy: float) -> None:
        """Nothing: a line a batch would be too many."""

    def epoch(self, line: dict[str, Any]) -> None:
        """Write the epoch's line."""
        done = line["epoch"]
        left = (time.monotonic() - self.began) / max(done - self.first, 1) * (self.epochs - done)
        checked = f"  validation {line['validation']:.1%} (best {line['best']:.1%})" if "validation" in line else ""
        stage = f"  {line['stage']}" if "stage" in line else ""
        print(
            f"epoch {done}/{self.epochs}{stage}  loss {line['loss']:.3f}  train {line['train']:.1%}{checked}"
            f"  {line['seconds']:.0f} s  {clock(left)} left",
            file=self.stream,
            flush=True,
        )

    def close(self) -> None:
        """Nothing."""


def reporter(stream: TextIO) -> Reporter:
    """Return a bar for a terminal, plain lines for anything else."""
    return Bar(stream) if stream.isatty() else Lines(stream)


def clock(seconds: float) -> str:
    """Return seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
