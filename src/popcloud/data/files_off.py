"""OFF: a mesh as text. https://segeval.cs.princeton.edu/public/off_format.html."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from popcloud.errors import CloudError

Vertices = NDArray[np.float64]
Triangles = NDArray[np.int64]


def read_mesh(path: Path) -> tuple[Vertices, Triangles]:
    """Return vertices (V, 3) float64 and triangles (F, 3) int64 of an OFF file; polygons are cut into fans.

    Reads the header "OFF490 518 0" too, a quirk of ModelNet40, and comments after #. Edges and colours are skipped.
    Raises CloudError that names the file and the line.
    """
    try:
        text = path.read_bytes().decode("ascii", errors="replace")
    except OSError as error:
        raise CloudError(f"{path}: can't be read ({error.strerror})") from error
    lines = _words(text)
    vertex_count, face_count = _counts(path, lines)
    rest = [(number, words) for number, words in lines]
    if len(rest) < vertex_count + face_count:
        raise CloudError(
            f"{path}: expected {vertex_count} vertices and {face_count} faces, found {len(rest)} lines; it is cut short"
        )
    faces = rest[vertex_count : vertex_count + face_count]
    return _vertices(path, rest[:vertex_count]), _triangles(path, faces, vertex_count)


Line = tuple[int, list[str]]


def _words(text: str) -> Iterator[Line]:
    """Yield the number and the words of every line that has any."""
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if words:
            yield number, words


def _counts(path: Path, lines: Iterator[Line]) -> tuple[int, int]:
    """Return the number of vertices and of faces."""
    number, head = next(lines, (1, [""]))
    if not head[0].startswith("OFF"):
        raise CloudError(f"{path}, line {number}: expected OFF, found {head[0][:20]!r}; this is no OFF mesh")
    counts = [head[0][3:], *head[1:]] if head[0] != "OFF" else head[1:]
    if not counts:
        number, counts = next(lines, (number, []))
    try:
        vertex_count, face_count = (int(word) for word in counts[:2])
        if min(vertex_count, face_count) < 0:
            raise ValueError
    except ValueError as error:
        found = " ".join(counts)[:40]
        raise CloudError(f"{path}, line {number}: expected vertex, face, edge counts, found {found!r}") from error
    return vertex_count, face_count


def _vertices(path: Path, lines: list[Line]) -> Vertices:
    try:
        return np.array([words[:3] for _, words in lines], dtype=np.float64).reshape(-1, 3)
    except ValueError:
        pass  # one of them is no point: find it
    for number, words in lines:
        try:
            np.array(words[:3], dtype=np.float64).reshape(3)
        except ValueError as error:
            raise CloudError(f"{path}, line {number}: expected x y z, found {' '.join(words)[:40]!r}") from error
    raise AssertionError("lines that are points one by one are points together")


def _plain_triangles(lines: list[Line], vertex_count: int) -> Triangles | None:
    """Return the faces if all are triangles without colours and nothing is wrong: fast, and most files are so."""
    if not all(len(words) == 4 and words[0] == "3" for _, words in lines):
        return None
    try:
        corners = np.array([words[1:] for _, words in lines], dtype=np.int64).reshape(-1, 3)
    except (ValueError, OverflowError):
        return None
    return corners if not corners.size or 0 <= corners.min() <= corners.max() < vertex_count else None


def _triangles(path: Path, lines: list[Line], vertex_count: int) -> Triangles:
    plain = _plain_triangles(lines, vertex_count)
    if plain is not None:
        return plain
    triangles: list[tuple[int, int, int]] = []
    for number, words in lines:
        try:
            sides = int(words[0])
            corners = [int(word) for word in words[1 : 1 + sides]]
            if len(corners) != sides or min(corners) < 0 or max(corners) >= vertex_count:
                raise ValueError
        except ValueError as error:
            found = " ".join(words)[:40]
            raise CloudError(
                f"{path}, line {number}: expected a count and as many of {vertex_count} vertices, found {found!r}"
            ) from error
        triangles += [(corners[0], b, c) for b, c in pairwise(corners[1:])]
    return np.array(triangles, dtype=np.int64).reshape(-1, 3)
