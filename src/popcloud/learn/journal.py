"""What a run writes while it trains: one JSON line per epoch, and TensorBoard events if asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from popcloud.errors import FileError, RecipeError
from popcloud.learn.checkpoint import write_atomically

LOG = "log.jsonl"

Line = dict[str, Any]


class Journal:
    """The log of a run, `log.jsonl` in its folder, and TensorBoard events beside it.

    A line is appended before the epoch's checkpoint is saved; a run that is killed in between repeats the epoch, and
    `Journal(..., keep=epochs)` drops the lines that will be written again. Epochs count from 1 in the log.
    """

    def __init__(self, folder: Path, *, keep: int, tensorboard: bool):
        """Open the log of `folder` and keep its lines of the first `keep` epochs. Raises FileError, RecipeError."""
        self.path = folder / LOG
        kept = [line for line in read(self.path) if line["epoch"] <= keep]
        write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self.events = _events(folder, keep + 1) if tensorboard else None

    def add(self, line: Line) -> None:
        """Append an epoch's line; the file is on the disk when this returns."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FileError(f"{self.path}: can't be written ({error.strerror}); free space, then resume") from error
        if self.events is not None:
            for name, value in _scalars(line):
                self.events.add_scalar(name, value, line["epoch"])
            self.events.flush()

    def close(self) -> None:
        """Close what is open."""
        if self.events is not None:
            self.events.close()


def read(path: Path) -> list[Line]:
    """Return the lines of a log in order; a line that a kill left half written, and what follows it, is left out."""
    if not path.exists():
        return []
    lines: list[Line] = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            break
        lines.append(line)
    return lines


def check_tensorboard() -> None:
    """Raise RecipeError if TensorBoard's package is missing."""
    _writer()


def _writer() -> Any:
    """Return the class that writes events."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RecipeError(
            "tensorboard: the package is not installed; pip install 'popcloud[tensorboard]', or set tensorboard=false"
        ) from error
    return SummaryWriter


def _events(folder: Path, first: int) -> Any:
    """Return a writer whose steps from `first` on replace older ones."""
    return _writer()(log_dir=str(folder / "tensorboard"), purge_step=first)


def _scalars(line: Line, prefix: str = "") -> list[tuple[str, float]]:
    """Return (name, value) of each number of a line, those of nested tables under "table/name"."""
    found: list[tuple[str, float]] = []
    for name, value in line.items():
        if isinstance(value, dict):
            found += _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "epoch":
            found.append((prefix + name, float(value)))
    return found
