"""OFF: a mesh as text. https://segeval.cs.princeton.edu/public/off_format.html."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from popcloud.errors import CloudError


def read_mesh(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return vertices (V, 3) float64 and triangles (F, 3) int64 of an OFF file; polygons are cut into fans.

    Reads the header "OFF490 518 0" too, a quirk of ModelNet40, and comments after #. Edges and colours are skipped.
    Raises CloudError that names the file and the line.
    """
    lines = _Lines(path)
    number, head = lines.next("OFF")
    if not head[0].startswith("OFF"):
        raise CloudError(f"{path}, line {number}: expected OFF, found {head[0][:20]!r}; this is no OFF mesh")
    counts = [head[0][3:], *head[1:]] if head[0] != "OFF" else head[1:]
    if not counts:
        number, counts = lines.next("the number of vertices, faces and edges")
    try:
        vertex_count, face_count = (int(word) for word in counts[:2])
    except ValueError as error:
        raise CloudError(f"{path}, line {number}: expected vertex, face, edge counts, found {counts}") from error
    vertices = _vertices(lines, vertex_count)
    return vertices, _triangles(lines, face_count, vertex_count)


class _Lines:
    """The lines of a text file that hold words, one after the other, with their number."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_bytes().decode("ascii", errors="replace")
        except OSError as error:
            raise CloudError(f"{path}: can't be read ({error.strerror})") from error
        self._lines = enumerate(text.splitlines(), start=1)

    def next(self, expected: str) -> tuple[int, list[str]]:
        for number, line in self._lines:
            words = line.partition("#")[0].split()
            if words:
                return number, words
        raise CloudError(f"{self.path}: expected {expected}, found the end of the file; it is cut short")


def _vertices(lines: _Lines, count: int) -> NDArray[np.float64]:
    vertices = np.empty((count, 3))
    for row in range(count):
        number, words = lines.next(f"vertex {row + 1} of {count}")
        try:
            vertices[row] = [float(word) for word in words[:3]]
        except ValueError as error:
            raise CloudError(f"{lines.path}, line {number}: expected x y z, found {' '.join(words)[:40]!r}") from error
    return vertices


def _triangles(lines: _Lines, count: int, vertex_count: int) -> NDArray[np.int64]:
    triangles: list[tuple[int, int, int]] = []
    for row in range(count):
        number, words = lines.next(f"face {row + 1} of {count}")
        try:
            corners = [int(word) for word in words[1 : 1 + int(words[0])]]
            if len(corners) != int(words[0]) or not all(0 <= corner < vertex_count for corner in corners):
                raise ValueError
        except ValueError as error:
            found = " ".join(words)[:40]
            raise CloudError(
                f"{lines.path}, line {number}: expected a count and as many of {vertex_count} vertices, found {found!r}"
            ) from error
        triangles += [(corners[0], b, c) for b, c in pairwise(corners[1:])]
    return np.array(triangles, dtype=np.int64).reshape(-1, 3)
