"""Triangle meshes: building them by revolving, extruding and sweeping, and drawing points from their surface.

A `Mesh` may hold many bodies of one topology at once: the faces are shared, the vertices are per body.
Faces run counter-clockwise seen from outside, so that (b - a) x (c - a) points out of the body.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


class Mesh(NamedTuple):
    """`vertices` (B, V, 3) float, one row of vertices per body; `faces` (F, 3) int64, rows of vertices."""

    vertices: NDArray[np.floating]
    faces: Indices


def face_vectors(mesh: Mesh) -> NDArray[np.floating]:
    """Return (b - a) x (c - a) of every face, (B, F, 3): outward, twice the area long."""
    a, b, c = (mesh.vertices[:, mesh.faces[:, corner]] for corner in range(3))
    return np.asarray(np.cross(b - a, c - a))


def sample_surface(mesh: Mesh, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw `count` points from each body, uniform over its area.

    Returns xyz (B, count, 3) and the unit normals there, both float32, in random order, so that a prefix of a cloud
    is a smaller sample of the same surface. A body whose area is 0 gives points of its first faces.
    """
    xyz, normals, _ = sample_faces(mesh, count, rng)
    return xyz, normals


def sample_faces(mesh: Mesh, count: int, rng: np.random.Generator) -> tuple[Floats, Floats, Indices]:
    """Return what `sample_surface` does, and the face (B, count) that each point lies on."""
    vectors = face_vectors(mesh)
    doubled_area = np.linalg.norm(vectors, axis=2)
    faces = _choose(doubled_area, rng.random((len(vectors), count)))
    bodies = np.arange(len(vectors))[:, None]
    a, b, c = (mesh.vertices[bodies, mesh.faces[faces, corner]] for corner in range(3))
    s, t = rng.random((2, *faces.shape, 1), dtype=np.float32)
    # Folding the unit square along its diagonal keeps the density even (Turk, Graphics Gems, 1990).
    fold = s + t > 1
    s, t = np.where(fold, 1 - s, s), np.where(fold, 1 - t, t)
    xyz = a + s * (b - a) + t * (c - a)
    normals = vectors / np.maximum(doubled_area, np.finfo(np.float32).tiny)[..., None]
    return xyz.astype(np.float32), normals[bodies, faces].astype(np.float32), faces


def _choose(weights: NDArray[np.floating], u: NDArray[np.floating]) -> Indices:
    """Return for each u in [0, 1) of row r a column of weights[r], with a chance in proportion to its weight."""
    edges = np.cumsum(weights, axis=1, dtype=np.float64)
    total = edges[:, -1:]
    rows = np.arange(len(edges))[:, None]
    # One search for all rows: row r's edges lie in [r, r + 1]. A face of weight 0 has no room between its edges.
    flat = (edges / np.where(total > 0, total, 1) + rows).ravel()
    found = np.searchsorted(flat, (u + rows).ravel(), side="right").reshape(u.shape)
    return np.asarray(np.minimum(found - rows * edges.shape[1], edges.shape[1] - 1), dtype=np.int64)


def _grid_faces(rows: int, columns: int) -> Indices:
    """Return the triangles of a grid of `rows` rings of `columns` vertices, closed along the columns."""
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    a, b = i * columns + j, i * columns + (j + 1) % columns
    c, d = b + columns, a + columns
    return np.stack([a, b, c, a, c, d], axis=-1).reshape(-1, 3)


def revolve(profile: NDArray[np.floating], segments: int = 24) -> Mesh:
    """Turn profiles (B, P, 2), rows of (radius, height), about the z axis.

    Profiles run upwards on the outside: from a pole to a pole, or in a closed loop (last row = first row).
    Few `segments` give a prism in place of a cylinder.
    """
    angle = np.arange(segments) * (2 * np.pi / segments)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    flat = profile[:, :, None, :1] * ring
    height = np.broadcast_to(profile[:, :, None, 1:], (*flat.shape[:3], 1))
    vertices = np.concatenate([flat, height], axis=3).reshape(len(profile), -1, 3)
    return Mesh(vertices, _grid_faces(profile.shape[1], segments))


def extrude(outline: NDArray[np.floating], low: NDArray[np.floating], high: NDArray[np.floating]) -> Mesh:
    """Raise outlines (B, P, 2), counter-clockwise, from height `low` (B,) to `high` (B,).

    Row 0 of an outline must see all the others (a star-shaped outline): the caps are fans around it.
    """
    bodies, corners = outline.shape[:2]
    heights = np.stack([low, high], axis=1)[:, :, None, None]
    rings = np.broadcast_to(outline[:, None], (bodies, 2, corners, 2))
    vertices = np.concatenate([rings, np.broadcast_to(heights, (bodies, 2, corners, 1))], axis=3)
    j = np.arange(1, corners - 1)
    fan = np.stack([np.zeros_like(j), j, j + 1], axis=1)
    faces = np.concatenate([_grid_faces(2, corners), fan[:, ::-1], fan + corners])
    return Mesh(vertices.reshape(bodies, -1, 3), faces)


def box(low: NDArray[np.floating], high: NDArray[np.floating]) -> Mesh:
    """Return cuboids between the corners `low` and `high`, both (B, 3)."""
    corners = [(low[:, 0], low[:, 1]), (high[:, 0], low[:, 1]), (high[:, 0], high[:, 1]), (low[:, 0], high[:, 1])]
    outline = np.stack([np.stack(corner, axis=1) for corner in corners], axis=1)
    return extrude(outline, low[:, 2], high[:, 2])


def sweep(curve: NDArray[np.floating], radius: NDArray[np.floating], sides: int = 8) -> Mesh:
    """Lay a round wire of `radius` (B,) along curves (B, P, 3) that nowhere run straight up; the ends are closed."""
    tangent = np.gradient(curve, axis=1)
    tangent /= np.linalg.norm(tangent, axis=2, keepdims=True)
    side = np.cross(np.broadcast_to([0.0, 0.0, 1.0], tangent.shape), tangent)
    side /= np.linalg.norm(side, axis=2, keepdims=True)
    up = np.cross(tangent, side)
    angle = (np.arange(sides) * (2 * np.pi / sides))[:, None]
    ring = np.cos(angle) * side[:, :, None] + np.sin(angle) * up[:, :, None]
    rings = curve[:, :, None] + radius[:, None, None, None] * ring
    # A ring shrunk to its centre at both ends closes the wire.
    ends = [np.broadcast_to(curve[:, end, None, None], (len(curve), 1, sides, 3)) for end in (0, -1)]
    closed = np.concatenate([ends[0], rings, ends[1]], axis=1)
    return Mesh(closed.reshape(len(curve), -1, 3), _grid_faces(closed.shape[1], sides))


def union(*meshes: Mesh) -> Mesh:
    """Put several meshes of the same number of bodies into one; where they overlap, inner faces remain."""
    starts = np.cumsum([0, *(mesh.vertices.shape[1] for mesh in meshes)])
    faces = [mesh.faces + start for mesh, start in zip(meshes, starts[:-1], strict=True)]
    return Mesh(np.concatenate([mesh.vertices for mesh in meshes], axis=1), np.concatenate(faces))
