"""Polygons to triangles: areas, windings and that nothing reaches beyond the outline."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from neuralfield.signals.mesh_polygons import triangulated
from tests.signals.image_files import fails

L_SHAPE = [(0, 0), (3, 0), (3, 1), (1, 1), (1, 2), (0, 2)]
STAR = [((1 + k % 2) * np.cos(k * np.pi / 7), (1 + k % 2) * np.sin(k * np.pi / 7)) for k in range(14)]
DART = [(0, 0), (2, 1), (0, 2), (1, 1)]
SPIRAL = [(0, 0), (6, 0), (6, 5), (1, 5), (1, 2), (4, 2), (4, 3), (2, 3), (2, 4), (5, 4), (5, 1), (0, 1)]
BRIDGED = [(0, 0), (4, 0), (4, 4), (0, 4), (0, 0), (1, 1), (1, 3), (3, 3), (3, 1), (1, 1)]  # a square with a hole


def area_of(outline):
    x, y = np.array(outline, float).T
    return (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2


def in_outline(outline, point):
    inside = False
    for (x1, y1), (x2, y2) in zip(outline, [*outline[1:], outline[0]], strict=True):
        if (y1 > point[1]) != (y2 > point[1]) and point[0] < x1 + (point[1] - y1) / (y2 - y1) * (x2 - x1):
            inside = not inside
    return inside


@pytest.mark.parametrize("outline", [L_SHAPE, STAR, DART, SPIRAL, BRIDGED], ids=["L", "star", "dart", "spiral", "hole"])
@pytest.mark.parametrize("first", [0, 1, 3])
@pytest.mark.parametrize("seed", [None, 0, 1, 2])
@pytest.mark.parametrize("backward", [False, True])
def test_polygons_that_are_not_convex_are_covered_once(outline, first, seed, backward):
    outline = (outline[first:] + outline[:first])[:: -1 if backward else 1]
    turn = np.eye(3) if seed is None else Rotation.random(rng=seed).as_matrix()
    vertices = np.c_[np.array(outline, float), np.zeros(len(outline))] @ turn.T
    n = len(outline)
    faces = triangulated(vertices, np.array([n]), np.arange(n))
    assert len(faces) == n - 2
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    normals = np.cross(b - a, c - a) @ turn
    sign = np.sign(area_of(outline))
    assert (normals[:, 2] * sign >= -1e-12).all()  # every triangle is wound as the polygon is
    assert normals[:, 2].sum() / 2 == pytest.approx(area_of(outline))
    middles = (a + b + c) @ turn / 3
    assert all(in_outline(outline, m) for m, z in zip(middles, np.abs(normals[:, 2]), strict=True) if z > 1e-9)


def test_convex_polygons_are_fans_in_the_order_of_the_file():
    turn = 2 * np.pi * np.arange(6) / 6
    vertices = np.c_[np.cos(turn), np.sin(turn), np.zeros(6)]
    counts, corners = np.array([3, 2, 4, 1, 6]), np.array([0, 1, 2, 4, 5, 2, 3, 4, 5, 1, 0, 1, 2, 3, 4, 5])
    expected = [[0, 1, 2], [2, 3, 4], [2, 4, 5], [0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]]
    assert triangulated(vertices, counts, corners).tolist() == expected


def test_polygons_without_an_ear_still_end():
    rng = np.random.default_rng(0)
    for n in (4, 5, 9):
        for _ in range(50):
            corners = rng.integers(0, 6, n)
            vertices = rng.integers(0, 3, (6, 3)).astype(float)
            assert triangulated(vertices, np.array([n]), corners).shape == (n - 2, 3)
    assert triangulated(np.zeros((5, 3)), np.array([5]), np.arange(5)).shape == (3, 3)


def test_a_vertex_that_is_not_there_is_named_with_its_face():
    vertices = np.zeros((4, 3))
    fails(
        "face 1 names vertex 4 .*there are 4 vertices",
        triangulated,
        vertices,
        np.array([3, 3]),
        np.array([0, 1, 2, 0, 1, 4]),
    )
