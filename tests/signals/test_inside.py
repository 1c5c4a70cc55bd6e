"""Inside and outside, and distances, against closed forms, exact winding numbers, rays and brute force."""

import igl
import numpy as np
import pytest
import trimesh

from neuralfield.signals.inside import Inside
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.mesh_repair import repaired
from tests.signals.meshes import box, in_sphere, in_torus, inverted, joined, sheet, soup, sphere, torus

MESHES = {"sphere": sphere(1500), "box": box((0.1, 0.2, 0.3), (0.9, 0.7, 0.6)), "torus": torus(64, 32)}


def points(n, seed=0):
    return np.random.default_rng(seed).random((n, 3))


def near(mesh, n, width, seed=0):
    rng = np.random.default_rng(seed)
    return mesh.sample(n, rng)[0] + width * rng.standard_normal((n, 3))


def crossings_are_odd(mesh, queries, direction):
    """Whether the ray through the queries leaves through an odd number of triangles (Möller and Trumbore, 1997)."""
    a, b, c = np.moveaxis(mesh.corners, 1, 0)
    odd = np.zeros(len(queries), bool)
    p = np.cross(direction, c - a)
    det = ((b - a) * p).sum(1)
    for start in range(0, len(queries), 200):
        t = queries[start : start + 200, None] - a
        u = (t * p).sum(2) / det
        q = np.cross(t, b - a)
        v, distance = (q @ direction) / det, (q * (c - a)).sum(2) / det
        odd[start : start + 200] = ((u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 0)).sum(1) % 2
    return odd


def distance_to_triangles(mesh, queries):
    """Brute force over all triangles: to the plane where the foot lies within, else to the three sides."""
    a, b, c = np.moveaxis(mesh.corners, 1, 0)
    best = np.full(len(queries), np.inf)
    for one, two, three, normal in zip(a, b, c, mesh.normals, strict=True):
        height = (queries - one) @ normal
        foot = queries - height[:, None] * normal
        within = np.ones(len(queries), bool)
        for p, q in ((one, two), (two, three), (three, one)):
            within &= np.cross(q - p, foot - p) @ normal >= 0
            along = np.clip((queries - p) @ (q - p) / ((q - p) @ (q - p)), 0, 1)
            best = np.minimum(best, np.linalg.norm(queries - p - along[:, None] * (q - p), axis=1))
        best = np.where(within, np.minimum(best, np.abs(height)), best)
    return best


@pytest.mark.parametrize("name", MESHES)
def test_closed_meshes_agree_with_exact_winding_numbers_and_ray_parity(name):
    mesh = MESHES[name]
    queries = np.concatenate([points(2000), near(mesh, 2000, 0.01), near(mesh, 2000, 1e-4)])
    inside = Inside(mesh)
    found = inside(queries)
    exact = igl.winding_number(mesh.vertices, mesh.faces, queries)
    assert np.array_equal(found, exact > 0.5)
    assert np.abs(inside.winding_number(queries) - exact).max() < 0.01
    directions = np.random.default_rng(5).standard_normal((3, 3))
    some = slice(None, None, 9)
    votes = sum(crossings_are_odd(mesh, queries[some], d).astype(int) for d in directions)
    assert np.array_equal(found[some], votes >= 2)


@pytest.mark.parametrize("name", ["sphere", "torus"])
def test_trimesh_agrees(name):
    pytest.importorskip("embreex", reason="trimesh casts rays with embreex")
    mesh = MESHES[name]
    queries = np.concatenate([points(300), near(mesh, 300, 0.01)])
    assert np.array_equal(Inside(mesh)(queries), trimesh.Trimesh(mesh.vertices, mesh.faces).contains(queries))


def test_closed_forms_hold_beyond_the_facets():
    queries = points(30_000)
    low, high = MESHES["box"].box
    assert np.array_equal(Inside(MESHES["box"])(queries), ((queries > low) & (queries < high)).all(1))
    # A facet lies within its sagitta below the smooth surface.
    fine = Inside(sphere(6000))(queries)
    radius = np.linalg.norm(queries - 0.5, axis=1)
    clear = np.abs(radius - 0.5) > 0.002
    assert np.array_equal(fine[clear], in_sphere(queries)[clear]) and clear.mean() > 0.95
    x, y, z = (queries - 0.5).T
    clear = np.abs(np.hypot(np.hypot(x, y) - 0.35, z) - 0.12) > 0.002
    assert np.array_equal(Inside(torus(200, 100))(queries)[clear], in_torus(queries)[clear]) and clear.mean() > 0.95


@pytest.mark.parametrize(("scale", "offset"), [(1e-9, 0), (1e9, 0), (1.0, 1e6), (1000.0, -3e8)])
def test_units_and_far_origins_do_not_matter(scale, offset):
    mesh, queries = MESHES["torus"], np.concatenate([points(3000), near(MESHES["torus"], 3000, 0.003)])
    moved = TriangleMesh(mesh.vertices * scale + offset, mesh.faces)
    there = queries * scale + offset
    exact = igl.winding_number(mesh.vertices, mesh.faces, (there - offset) / scale) > 0.5
    assert (Inside(moved)(there) == exact).mean() >= 0.9999


def test_bodies_in_bodies_and_inside_out_ones():
    queries = points(5000)
    hollow = joined(sphere(800), inverted(sphere(800, radius=0.25)))
    radius = np.linalg.norm(queries - 0.5, axis=1)
    clear = (np.abs(radius - 0.5) > 0.01) & (np.abs(radius - 0.25) > 0.01)
    assert np.array_equal(Inside(hollow)(queries)[clear], ((radius < 0.5) & (radius > 0.25))[clear])
    solid = Inside(joined(sphere(800), sphere(800, radius=0.25)))
    assert np.array_equal(solid(queries)[clear], (radius < 0.5)[clear])
    assert not Inside(inverted(sphere(800)))(queries).any()


def broken_sphere(mesh, seed=4):
    """5 % of the triangles missing, 20 % of the others turned over."""
    rng = np.random.default_rng(seed)
    left = TriangleMesh(mesh.vertices, mesh.faces[rng.random(len(mesh.faces)) > 0.05])
    return inverted(left, rng.random(len(left.faces)) < 0.2)


@pytest.mark.parametrize("build", [lambda m: m, soup, lambda m: soup(m, 0.9)], ids=["joined", "loose", "gaps"])
def test_a_broken_sphere_has_the_right_inside_away_from_its_holes(build):
    mesh, report = repaired(build(broken_sphere(sphere(1000))))
    assert report.open_edges > 100 and report.flipped_faces > 300
    queries = points(20_000)
    radius = np.linalg.norm(queries - 0.5, axis=1)
    clear = np.abs(radius - 0.5) > 0.05  # holes are about 0.05 wide
    assert np.array_equal(Inside(mesh)(queries)[clear], (radius < 0.5)[clear])
    without = Inside(build(broken_sphere(sphere(1000))))(queries)
    assert (without == (radius < 0.5))[clear].mean() < 0.99


def test_beside_the_box_is_outside_whatever_the_winding_number():
    stack = joined(*(TriangleMesh(sheet().vertices * [1, 1, 0] + [0, 0, 0.01 * k], sheet().faces) for k in range(5)))
    below = np.array([[0.5, 0.5, -0.01]])
    inside = Inside(stack)
    assert inside.winding_number(below)[0] > 0.5 and not inside(below)[0]


def test_the_signed_distance_to_a_box_is_exact():
    low, high = MESHES["box"].box
    queries = points(5000) * 2 - 0.5
    q = np.abs(queries - (low + high) / 2) - (high - low) / 2
    exact = np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(1), 0)
    np.testing.assert_allclose(Inside(MESHES["box"]).signed_distance(queries), exact, atol=1e-14)


@pytest.mark.parametrize("mesh", [torus(16, 10), sheet(6), broken_sphere(sphere(150))], ids=["torus", "open", "broken"])
def test_distances_agree_with_brute_force(mesh):
    queries = np.concatenate([points(1000) * 1.4 - 0.2, near(mesh, 500, 1e-3)])
    moved = TriangleMesh(mesh.vertices * 30 + 7, mesh.faces)
    found = Inside(moved).signed_distance(queries * 30 + 7)
    np.testing.assert_allclose(np.abs(found), 30 * distance_to_triangles(mesh, queries), atol=1e-12)
    assert np.array_equal(found < 0, Inside(mesh)(queries))


def test_needles_and_almost_flat_triangles_have_distances():
    rng = np.random.default_rng(2)
    a, b = rng.random((2, 200, 3))
    corners = np.stack([a, b, a + rng.random((200, 1)) * (b - a) + 1e-10 * rng.standard_normal((200, 3))], 1)
    mesh = TriangleMesh(corners.reshape(-1, 3), np.arange(600).reshape(-1, 3))
    queries = points(500)
    found = np.abs(Inside(mesh).signed_distance(queries))
    along = np.clip(((queries[:, None] - a) * (b - a)).sum(2) / ((b - a) ** 2).sum(1), 0, 1)
    segments = np.linalg.norm(queries[:, None] - a - along[..., None] * (b - a), axis=2).min(1)
    np.testing.assert_allclose(found, segments, atol=1e-8)


def test_blocks_change_nothing_and_report_progress(monkeypatch):
    queries = points(1000)
    inside = Inside(MESHES["torus"])
    whole, distances = inside(queries), inside.signed_distance(queries)
    monkeypatch.setattr("neuralfield.signals.inside._BLOCK", 300)
    done = []
    assert np.array_equal(inside(queries, done.append), whole) and done == [0.3, 0.6, 0.9, 1.0]
    done.clear()
    assert np.array_equal(inside.signed_distance(queries, done.append), distances) and done[-1] == 1.0
    assert inside(np.zeros((0, 3))).shape == inside.signed_distance(np.zeros((0, 3))).shape == (0,)
