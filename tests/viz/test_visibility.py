"""Which triangle is seen where: a ray tracer as the second opinion, closed forms, and surfaces without gaps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial import Delaunay

from neuralfield.signals.mesh import TriangleMesh
from neuralfield.viz import visibility
from neuralfield.viz.camera import Camera
from neuralfield.viz.visibility import visible_faces
from tests.viz.solids import BALL, box, joined, soup

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("mesh", [soup(), BALL, joined(box(), box((0.2, 0.9, 0.2), (0.4, 1.6, 0.5)))])
def test_the_same_triangles_as_a_ray_tracer(mesh: TriangleMesh) -> None:
    from igl.embree import EmbreeIntersector

    width, height = 61, 47
    camera = Camera.around(mesh.vertices, aspect=width / height)
    found = visible_faces(mesh.vertices, mesh.faces, camera, width, height)
    tracer = EmbreeIntersector()
    tracer.init(np.asfortranarray(mesh.vertices, np.float32), np.asfortranarray(mesh.faces, np.int32))
    row, column = np.mgrid[0:height, 0:width] + 0.5
    rays = camera.rays(column.reshape(-1), row.reshape(-1), width, height).astype(np.float32)
    eye = camera.eye.astype(np.float32)
    expected = np.array([tracer.intersectRay_first(eye, ray)[0] for ray in rays]).reshape(height, width)
    assert (expected >= 0).mean() > 0.2
    assert (found != expected).mean() < 2e-3  # rays on edges, in the tracer's float32


def test_no_gaps_between_triangles() -> None:
    rng = np.random.default_rng(1)
    plane = np.concatenate([rng.random((400, 2)), [[-1, -1], [-1, 2], [2, -1], [2, 2]]])
    plane[:100] = np.round(plane[:100] * 20) / 20  # vertices and edges on the centres of pixels as well
    points = np.column_stack([plane, rng.normal(scale=0.01, size=len(plane))])
    camera = Camera.around(np.array([[0.0, 0, 0], [1, 1, 0]]), azimuth=0, elevation=0, margin=0)
    faces = Delaunay(plane).simplices.astype(np.int64)
    assert (visible_faces(points, faces, camera, 200, 200) >= 0).all()
    flat = points * [1, 1, 0]
    assert np.unique(visible_faces(flat, faces, camera, 200, 200)).size > 700


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = soup()
    camera = Camera.around(mesh.vertices)
    whole = visible_faces(mesh.vertices, mesh.faces, camera, 80, 80)
    monkeypatch.setattr(visibility, "_ROWS", 13)
    monkeypatch.setattr(visibility, "_SAMPLES", 37)
    assert np.array_equal(visible_faces(mesh.vertices, mesh.faces, camera, 80, 80), whole)


def test_the_nearer_is_seen_and_the_first_of_equals() -> None:
    quad = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    tilted = (
        quad * [0.5, 1, 1] + [0.25, 0, 0.2] + (quad[:, :1] - 0.5) * [0, 0, 1]
    )  # z from -0.3 to 0.7: through the other
    points, faces = np.concatenate([quad, tilted, quad]), np.array([[0, 1, 2], [0, 2, 3]])
    faces = np.concatenate([faces, faces + 4, faces + 8])
    camera = Camera.around(quad, azimuth=0, elevation=0, field_of_view=1)
    found = visible_faces(points, faces, camera, 100, 100)
    assert found.max() <= 3  # the third quad coincides with the first
    line = found[50, 10:90]
    assert set(line[:25]) <= {0, 1} and set(line[35:58]) <= {2, 3} and set(line[65:]) <= {0, 1}
    # x = 0.25 + s/2 and z = s - 0.3 for s in [0, 1]: they cross at x = 0.4, column 4 + 0.4 * 92.
    first = 10 + int(np.flatnonzero(line >= 2)[0])
    assert abs(first - (4 + 0.4 * 92)) < 1.5


def test_what_is_behind_the_camera_is_not_seen() -> None:
    camera = Camera.around(BALL.vertices)
    behind = BALL.vertices + 20 * camera.back
    assert (visible_faces(behind, BALL.faces, camera, 30, 30) == -1).all()
    assert (visible_faces(BALL.vertices, BALL.faces[:0], camera, 30, 30) == -1).all()
    broken = BALL.vertices.copy()
    broken[BALL.faces[7]] = np.nan
    left = visible_faces(broken, BALL.faces, camera, 30, 30)
    assert not np.isin(np.flatnonzero(np.isin(BALL.faces, BALL.faces[7]).any(axis=1)), left).any() and (left >= 0).any()


def test_the_outline_of_a_sphere() -> None:
    size = 400
    camera = Camera.around(BALL.vertices, azimuth=0, elevation=0)
    seen = visible_faces(BALL.vertices, BALL.faces, camera, size, size) >= 0
    distance = float(camera.eye[2] - 0.5)
    radius = camera.scale(size, size) * 0.4 / math.sqrt(distance**2 - 0.4**2)
    assert seen.sum() == pytest.approx(math.pi * radius**2, rel=2e-3)
    row, column = np.mgrid[0:size, 0:size] + 0.5
    away = np.hypot(row - size / 2, column - size / 2)
    assert seen[away < radius - 1.5].all() and not seen[away > radius + 1].any()
