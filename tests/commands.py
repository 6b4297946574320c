"""What the tests of the command line share: the settings of a small network, and how a complaint looks."""

from __future__ import annotations

import re

COMMANDS = ("train", "eval", "import", "pack", "verify", "run", "show", "bench", "summary")
CLASSES = ("sphere", "plate", "cross")
POINTS = 64
TINY = [
    "dataset=shapes",
    f"classes=[{', '.join(CLASSES)}]",
    f"points={POINTS}",
    "train_size=90",
    "test_size=30",
    "epochs=4",
    "batch=10",
    "threads=1",
    "lr=0.003",
]
QUICK = ["train_size=12", "test_size=6", "epochs=2", "batch=5"]


def complaint(done, code: int, words: str) -> None:
    """Assert that a command ended with a code and one line on stderr."""
    assert done.code == code, done.err
    lines = [line for line in done.err.splitlines() if not line.startswith("popcloud: note: ")]
    assert len(lines) == 1, done.err
    assert lines[0].startswith("popcloud: ")
    assert re.search(words, lines[0]), lines[0]
