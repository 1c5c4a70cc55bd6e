"""The geometry of triangle meshes against closed forms."""

import hashlib

import numpy as np
import pytest

from neuralfield.errors import ConfigError
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.placement import Placement
from tests.signals.image_files import fails
from tests.signals.meshes import box, inverted, joined, sheet, soup, sphere, torus

RNG = np.random.default_rng(3)


def test_a_box_has_its_areas_normals_volume_and_bounds():
    mesh = box((1, 2, 3), (2, 4, 6))
    low, high = mesh.box
    assert low.tolist() == [1, 2, 3] and high.tolist() == [2, 4, 6]
    assert mesh.areas.sum() == pytest.approx(2 * (1 * 2 + 2 * 3 + 1 * 3))
    assert mesh.volume == pytest.approx(6) and inverted(mesh).volume == pytest.approx(-6)
    outward = np.einsum("fi,fi->f", mesh.normals, mesh.corners.mean(1) - [1.5, 3, 4.5])
    assert (outward > 0).all() and np.allclose(np.abs(mesh.normals).sum(1), 1)


def test_area_and_volume_of_a_torus_come_near_pappus():
    mesh = torus(400, 200)
    assert mesh.areas.sum() == pytest.approx(4 * np.pi**2 * 0.35 * 0.12, rel=1e-3)
    assert mesh.volume == pytest.approx(2 * np.pi**2 * 0.35 * 0.12**2, rel=1e-3)


def test_vertex_normals_are_exact_at_the_corners_of_a_cube_however_it_is_cut():
    # By the angles each of the three sides counts alike, although one, two or more triangles of it meet there.
    assert np.allclose(box().vertex_normals, (box().vertices * 2 - 1) / 3**0.5, atol=1e-14)


def test_vertex_normals_of_a_sphere_are_radial_and_do_not_see_seams():
    mesh = sphere(4000)
    radial = (mesh.vertices - 0.5) / 0.5
    assert (mesh.vertex_normals * radial).sum(1).min() > 0.9995
    loose = soup(mesh)
    np.testing.assert_allclose(loose.vertex_normals, mesh.vertex_normals[mesh.faces.ravel()], atol=1e-12)


def test_tiny_and_huge_meshes_keep_unit_normals():
    for scale in (1e-60, 1e60):
        mesh = TriangleMesh(box().vertices * scale, box().faces)
        np.testing.assert_allclose(mesh.normals, box().normals, atol=1e-15)
        np.testing.assert_allclose(mesh.vertex_normals, box().vertex_normals, atol=1e-12)


def test_a_degenerate_triangle_has_no_normal_and_an_unused_vertex_neither():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [2, 0, 0], [9, 9, 9]])
    mesh = TriangleMesh(vertices, np.array([[0, 1, 2], [0, 1, 3]]))
    assert mesh.areas.tolist() == [0.5, 0] and mesh.normals.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert mesh.vertex_normals[4].tolist() == [0, 0, 0] and mesh.box[1].tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("mesh", "expected"),
    [
        (box(), True),
        (soup(box()), True),
        (torus(), True),
        (joined(box(), sphere()), True),
        (sheet(), False),
        (inverted(box(), [3]), False),
        (inverted(box()), True),
        (TriangleMesh(box().vertices, box().faces[1:]), False),
        (TriangleMesh(box().vertices, np.concatenate([box().faces, box().faces])), False),
        (TriangleMesh(box().vertices, np.concatenate([box().faces, [[0, 0, 1]]])), True),
    ],
    ids=["box", "loose", "torus", "two", "sheet", "one turned", "inverted", "hole", "twice", "collapsed"],
)
def test_watertight_means_two_opposite_sides_at_every_edge(mesh, expected):
    assert mesh.is_watertight is expected


def test_minus_zero_is_the_same_position_as_zero():
    vertices = soup(box()).vertices.copy()
    vertices[::2][vertices[::2] == 0] = -0.0
    assert TriangleMesh(vertices, soup(box()).faces).is_watertight


def test_moving_into_the_cube_and_back_changes_nothing_but_the_units():
    mesh = torus()
    world = TriangleMesh(mesh.vertices * 70 + [5, -3, 900], mesh.faces)
    placement = Placement.around(*(side.tolist() for side in world.box), margin=0.1)
    moved = world.moved(placement)
    assert min(moved.box[0]) == pytest.approx(0.1) and max(moved.box[1]) == pytest.approx(0.9)
    np.testing.assert_allclose(placement.to_world(moved.vertices), world.vertices, rtol=0, atol=1e-12)
    assert np.array_equal(moved.faces, mesh.faces)


def test_the_hash_sees_every_number_and_nothing_else():
    mesh = box()
    whole = b"8 12 " + mesh.vertices.astype("<f8").tobytes() + mesh.faces.astype("<i8").tobytes()
    assert mesh.content_hash() == hashlib.sha256(whole).hexdigest()
    assert box().content_hash() == TriangleMesh(mesh.vertices, mesh.faces.astype(np.int32)).content_hash()
    nudged = mesh.vertices.copy()
    nudged[5, 1] += 1e-15
    assert TriangleMesh(nudged, mesh.faces).content_hash() != mesh.content_hash()
    assert inverted(mesh, [0]).content_hash() != mesh.content_hash()


def test_samples_lie_on_their_triangles_in_proportion_to_the_area():
    mesh = TriangleMesh(box((0, 0, 0), (1, 2, 5)).vertices, np.concatenate([box().faces, [[0, 1, 1]]]))
    n = 20000
    points, face = mesh.sample(n, np.random.default_rng(0))
    off_plane = ((points - mesh.corners[face, 0]) * mesh.normals[face]).sum(1)
    assert np.abs(off_plane).max() < 1e-14 and (points > -1e-14).all() and (points - [1, 2, 5] < 1e-14).all()
    expected = mesh.areas / mesh.areas.sum() * n
    assert np.abs(np.bincount(face, minlength=13) - expected).max() <= 2  # stratified: one at either end
    assert (np.diff(face) >= 0).all()


def test_samples_within_a_triangle_are_uniform():
    corners = RNG.random((3, 3))
    mesh = TriangleMesh(corners, np.array([[0, 1, 2]]))
    points, _ = mesh.sample(200_000, np.random.default_rng(1))
    weights = np.linalg.lstsq(np.c_[corners, np.ones(3)].T, np.c_[points, np.ones(len(points))].T, rcond=None)[0]
    assert weights.min() > -1e-9
    # Moments of the uniform distribution over the simplex: E[w] = 1/3, E[w_i w_j] = (1 + [i = j]) / 12.
    assert np.abs(weights.mean(1) - 1 / 3).max() < 0.003
    assert np.abs(weights @ weights.T / len(points) - (1 + np.eye(3)) / 12).max() < 0.003


def test_samples_repeat_with_the_generator_and_zero_are_none():
    first, second = (box().sample(50, np.random.default_rng(7))[0] for _ in range(2))
    assert np.array_equal(first, second) and len(box().sample(0, RNG)[0]) == 0
    with pytest.raises(ConfigError, match="n must be at least 0"):
        box().sample(-1, RNG)


def test_what_cannot_be_a_mesh_is_refused_in_one_sentence():
    vertices, faces = box().vertices, box().faces
    for value in (np.nan, np.inf):
        bad = vertices.copy()
        bad[3, 2] = value
        fails("1 of 8 vertices are NaN or infinite, the first is vertex 3", TriangleMesh, bad, faces)
    fails("beyond 1e\\+70", TriangleMesh, vertices * 1e80, faces)
    for wrong in (8, -1):
        bad = faces.copy()
        bad[4, 1] = wrong
        fails("1 of 12 triangles name vertices that do not exist, the first is triangle 4", TriangleMesh, vertices, bad)
    fails("no triangles, only 8 points", TriangleMesh, vertices, np.zeros((0, 3), np.int64))
    fails("none of the 12 triangles has an area", TriangleMesh, vertices * [1, 0, 0], faces)
    fails("floats \\[v, 3\\], got float64 \\[8, 2\\]", TriangleMesh, vertices[:, :2], faces)
    fails("floats", TriangleMesh, vertices.astype(int), faces)
    fails("integers \\[f, 3\\]", TriangleMesh, vertices, faces.astype(float))
    fails("integers \\[f, 3\\]", TriangleMesh, vertices, faces.reshape(-1, 4))
