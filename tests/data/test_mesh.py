"""Meshes: closed, turned outward; points spread evenly over them."""

from __future__ import annotations

import numpy as np
import pytest

from meshes import open_edges, volume
from popcloud.data.mesh import Mesh, box, extrude, face_vectors, revolve, sample_surface, sweep, union
from popcloud.data.solids import SOLIDS

BODIES = 3


@pytest.mark.parametrize("name", SOLIDS)
def test_every_solid_is_closed(name, rng):
    mesh = SOLIDS[name](rng, BODIES)
    for body in range(BODIES):
        assert open_edges(mesh, body) == set()


@pytest.mark.parametrize("name", SOLIDS)
def test_every_solid_is_turned_outward_and_of_about_unit_size(name, rng):
    mesh = SOLIDS[name](rng, BODIES)
    assert mesh.vertices.shape[0] == BODIES
    assert (volume(mesh) > 0.01).all()
    assert (np.ptp(mesh.vertices, axis=1).max(axis=1) > 0.8).all()
    assert np.abs(mesh.vertices).max() < 2.5


@pytest.mark.parametrize("name", SOLIDS)
def test_every_solid_varies_but_the_sphere(name, rng):
    mesh = SOLIDS[name](rng, BODIES)
    same = np.array_equal(mesh.vertices[0], mesh.vertices[1])
    assert same == (name == "sphere")


def test_known_volumes():
    low, high = np.zeros((1, 3)), np.array([[1.0, 2.0, 3.0]])
    assert volume(box(low, high)) == pytest.approx(6)
    fine = 400
    column = np.array([[[0, 0], [0.5, 0], [0.5, 2], [0, 2]]], dtype=float)
    assert volume(revolve(column, fine)) == pytest.approx(np.pi / 2, rel=1e-3)
    triangle = np.array([[[0, 0], [1, 0], [0, 1]]], dtype=float)
    assert volume(extrude(triangle, np.zeros(1), np.ones(1))) == pytest.approx(0.5)
    wire = np.stack([np.linspace(0, 3, 50), np.zeros(50), np.zeros(50)], axis=1)[None]
    assert volume(sweep(wire, np.array([0.1]), 200)) == pytest.approx(np.pi * 0.01 * 3, rel=1e-2)


def test_union_keeps_every_part():
    low, high = np.zeros((2, 3)), np.ones((2, 3))
    both = union(box(low, high), box(low + 2, high + 2))
    assert volume(both) == pytest.approx([2, 2])
    assert both.faces.max() == both.vertices.shape[1] - 1


def test_points_lie_on_the_surface_with_its_normal(rng):
    xyz, normals = sample_surface(box(np.full((2, 3), -1.0), np.ones((2, 3))), 500, rng)
    assert xyz.shape == normals.shape == (2, 500, 3)
    assert xyz.dtype == normals.dtype == np.float32
    np.testing.assert_allclose(np.abs(xyz).max(axis=2), 1, atol=1e-6)
    np.testing.assert_allclose((xyz * normals).sum(axis=2), 1, atol=1e-6)


def test_points_are_spread_by_area(rng):
    # Faces of 1 x 1, 1 x 4 and 1 x 4: shares 1/9, 4/9, 4/9 (both sides together).
    xyz, normals = sample_surface(box(np.zeros((1, 3)), np.array([[1.0, 1.0, 4.0]])), 20_000, rng)
    shares = np.abs(normals[0]).mean(axis=0)
    np.testing.assert_allclose(shares, [4 / 9, 4 / 9, 1 / 9], atol=0.015)
    side = xyz[0][np.abs(normals[0, :, 0]) > 0.5]
    counts, _ = np.histogram(side[:, 2], bins=8, range=(0, 4))
    np.testing.assert_allclose(counts / len(side), 1 / 8, atol=0.015)


def test_points_are_spread_within_a_triangle(rng):
    mesh = Mesh(np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0]]], dtype=float), np.array([[0, 1, 2]]))
    xyz, _ = sample_surface(mesh, 20_000, rng)
    assert (xyz[0, :, 0] + xyz[0, :, 1]).max() <= 1 + 1e-6
    np.testing.assert_allclose(xyz[0].mean(axis=0), [1 / 3, 1 / 3, 0], atol=0.01)
    # The corner that the midlines cut off holds a quarter of the area.
    assert np.mean(xyz[0, :, 0] > 0.5) == pytest.approx(0.25, abs=0.015)


def test_faces_without_area_get_no_point(rng):
    vertices = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0], [9, 9, 9]]], dtype=float)
    mesh = Mesh(vertices, np.array([[3, 3, 3], [0, 1, 2], [3, 3, 3]]))
    xyz, _ = sample_surface(mesh, 1000, rng)
    assert xyz.max() <= 1


def test_a_body_without_area_still_gives_points(rng):
    mesh = Mesh(np.full((1, 3, 3), 2.0), np.array([[0, 1, 2]]))
    xyz, normals = sample_surface(mesh, 4, rng)
    np.testing.assert_array_equal(xyz, np.full((1, 4, 3), 2))
    assert np.isfinite(normals).all()


def test_face_vectors_point_out_and_are_twice_the_area_long():
    vectors = face_vectors(box(np.zeros((1, 3)), np.ones((1, 3))))
    assert np.linalg.norm(vectors, axis=2) == pytest.approx(np.ones((1, 12)))
    np.testing.assert_allclose(vectors.sum(axis=1), 0, atol=1e-12)
