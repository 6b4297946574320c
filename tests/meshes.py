"""What meshes enclose, and whether they are closed."""

from __future__ import annotations

import numpy as np

from popcloud.data.mesh import Mesh


def volume(mesh: Mesh) -> np.ndarray:
    """The enclosed volume of each body: a sixth of the sum of a . (b x c) over its faces."""
    a, b, c = (mesh.vertices[:, mesh.faces[:, corner]] for corner in range(3))
    return (a * np.cross(b, c)).sum(axis=(1, 2)) / 6


def open_edges(mesh: Mesh, body: int) -> set:
    """The edges, as pairs of places, that are not passed once in either direction; none if the mesh is closed."""
    places = [tuple(place) for place in np.round(mesh.vertices[body], 6) + 0.0]
    seen: dict = {}
    for face in mesh.faces:
        corners = [places[i] for i in face]
        for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
            if start != end:
                seen[start, end] = seen.get((start, end), 0) + 1
    return {(a, b) for (a, b), times in seen.items() if seen.get((b, a), 0) != times}
