"""What a person sees while a large scene is run in tiles."""

from __future__ import annotations

import time
from typing import TextIO

WIDTH = 30  # of the bar, characters


class TileProgress:
    """Told how many tiles are done: a bar for a terminal, a line a tile for anything else, nothing for a single tile.

    stream  where to, not stdout
    name    of the scene
    """

    def __init__(self, stream: TextIO, name: str):
        self.stream, self.name = stream, name
        self.began = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` tiles are done; a finished bar is wiped away."""
        if total == 1:
            return
        text = f"{self.name}: {done} of {total} tiles{self._left(done, total)}"
        if not self.stream.isatty():
            if done:
                print(text, file=self.stream, flush=True)
            return
        full = WIDTH * done // total
        bar = f"\r[{'#' * full}{'.' * (WIDTH - full)}] {text}\x1b[K"
        print("\r\x1b[K" if done == total else bar, end="", file=self.stream, flush=True)

    def _left(self, done: int, total: int) -> str:
        """Return how long the rest will take, once that can be said."""
        if not 0 < done < total:
            return ""
        minutes, seconds = divmod(round((time.monotonic() - self.began) / done * (total - done)), 60)
        return f", {minutes}:{seconds:02d} left"
