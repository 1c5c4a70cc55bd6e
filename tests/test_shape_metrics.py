"""IoU and distances of surfaces against closed forms and against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import trimesh

from neuralfield.errors import ConfigError
from neuralfield.shape_metrics import chamfer, nearest_on, surface_quality
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.placement import Placement

KEYS = ["chamfer_l1", "chamfer_l2", "accuracy", "completeness", "f_score", "precision", "recall", "normal_consistency"]


def ball(radius: float, subdivisions: int = 5, centre: float = 0.5) -> TriangleMesh:
    sphere = trimesh.creation.icosphere(subdivisions, radius)
    return TriangleMesh(np.asarray(sphere.vertices) + centre, np.asarray(sphere.faces))


def square(z: float, x: tuple[float, float] = (0.0, 1.0)) -> TriangleMesh:
    vertices = np.array([[x[0], 0, z], [x[1], 0, z], [x[1], 1, z], [x[0], 1, z]])
    return TriangleMesh(vertices, np.array([[0, 1, 2], [0, 2, 3]]))


def test_concentric_spheres() -> None:
    """Every point is as far from the other sphere as the radii differ, and the normals agree."""
    for inner, outer in ((ball(0.30), ball(0.34)), (ball(0.34), ball(0.30))):
        quality = surface_quality(inner, outer, n=20_000)
        assert list(quality) == KEYS
        for key in ("chamfer_l1", "accuracy", "completeness"):
            assert quality[key] == pytest.approx(0.04, rel=2e-3)  # polyhedra of 20480 triangles
        assert quality["chamfer_l2"] == pytest.approx(0.04**2, rel=4e-3)
        assert quality["normal_consistency"] == pytest.approx(1, abs=2e-3)
        assert quality["f_score"] == quality["precision"] == quality["recall"] == 0
        assert surface_quality(inner, outer, n=2000, threshold=0.0401)["f_score"] == 1
        assert surface_quality(inner, outer, n=2000, threshold=0.0396)["f_score"] == 0
    assert chamfer(ball(0.3), ball(0.34), 20_000) == pytest.approx((0.04, 0.0016), rel=4e-3)


def test_equal_surfaces() -> None:
    quality = surface_quality(ball(0.3), ball(0.3), n=10_000, threshold=1e-9)
    assert quality["chamfer_l1"] < 1e-15 and quality["chamfer_l2"] < 1e-30
    assert quality["f_score"] == quality["precision"] == quality["recall"] == 1
    assert quality["normal_consistency"] == pytest.approx(1, abs=1e-3)  # on an edge either side is nearest


def test_a_plane_shifted_along_its_normal() -> None:
    quality = surface_quality(square(0.5), square(0.53), n=5000, threshold=0.02)
    for key in ("chamfer_l1", "accuracy", "completeness"):
        assert quality[key] == pytest.approx(0.03, abs=1e-14)
    assert quality["chamfer_l2"] == pytest.approx(0.03**2, abs=1e-15)
    assert quality["f_score"] == 0 and quality["normal_consistency"] == pytest.approx(1, abs=1e-12)


def test_half_of_a_plane_is_accurate_but_not_complete() -> None:
    """From the missing half, x from 1/2 to 1, the distance is x - 1/2: mean 1/8 and mean square 1/24 over the whole."""
    quality = surface_quality(square(0.5), square(0.5, (0.0, 0.5)), n=40_000, threshold=0.1)
    assert quality["accuracy"] == pytest.approx(0, abs=1e-15)
    assert quality["completeness"] == pytest.approx(1 / 8, rel=0.02)
    assert quality["chamfer_l1"] == pytest.approx(1 / 16, rel=0.02)
    assert quality["chamfer_l2"] == pytest.approx(1 / 48, rel=0.02)
    assert quality["precision"] == 1 and quality["recall"] == pytest.approx(0.6, abs=0.01)
    assert quality["f_score"] == pytest.approx(2 * 0.6 / 1.6, abs=0.01)


def test_normals_of_planes_at_an_angle_and_turned_over() -> None:
    tilted = square(0.0)
    turned = TriangleMesh(tilted.vertices, tilted.faces[:, ::-1])
    assert surface_quality(tilted, turned, n=1000)["normal_consistency"] == pytest.approx(1, abs=1e-12)
    angle = 0.7
    rotation = np.array([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
    other = TriangleMesh(tilted.vertices @ rotation.T, tilted.faces)
    assert surface_quality(tilted, other, n=1000)["normal_consistency"] == pytest.approx(math.cos(angle), abs=1e-12)


def test_distances_against_brute_force() -> None:
    """Against the nearest of many points in each triangle, which is never nearer and hardly further."""
    rng = np.random.default_rng(0)
    mesh = ball(0.4, 1)
    points = rng.random((40, 3))
    distance, face, position = nearest_on(mesh, points)
    grid = np.array([(i, j, 60 - i - j) for i in range(61) for j in range(61 - i)]) / 60
    dense = np.einsum("gk,fkd->fgd", grid, mesh.corners)
    each = np.linalg.norm(points[:, None, None] - dense[None], axis=-1).min(axis=2)
    assert (each.min(axis=1) >= distance - 1e-12).all() and (each.min(axis=1) - distance).max() < 2e-3
    assert (each[np.arange(40), face] - distance).max() < 2e-3
    np.testing.assert_allclose(np.linalg.norm(points - position, axis=1), distance, atol=1e-14)
    theirs = trimesh.proximity.closest_point_naive(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False), points)[1]
    np.testing.assert_allclose(distance, theirs, atol=1e-12)


def test_triangles_without_an_area_do_not_matter() -> None:
    plain = square(0.5)
    flat = TriangleMesh(plain.vertices, np.array([[0, 1, 1], [0, 1, 2], [3, 3, 3], [0, 2, 3]]))
    quality = surface_quality(square(0.5), flat, n=2000)
    assert quality["chamfer_l1"] < 1e-15 and quality["normal_consistency"] == pytest.approx(1, abs=1e-12)
    assert set(nearest_on(flat, np.random.default_rng(0).random((100, 3)))[1]) == {1, 3}


def test_lengths_scale_with_the_placement() -> None:
    placement = Placement(50.0, (1.0, 2.0, 3.0))
    cube = surface_quality(ball(0.3, 3), ball(0.32, 3), n=3000, threshold=0.0201)
    meshes = (TriangleMesh(placement.to_world(m.vertices), m.faces) for m in (ball(0.3, 3), ball(0.32, 3)))
    world = surface_quality(*meshes, n=3000, threshold=0.0201 * 50)
    for key in KEYS:
        factor = {"chamfer_l1": 50, "accuracy": 50, "completeness": 50, "chamfer_l2": 2500}.get(key, 1)
        assert world[key] == pytest.approx(
            factor * cube[key], rel=1e-9 if factor > 1 else 1e-4
        )  # on an edge rounding decides


def test_the_seed_decides() -> None:
    meshes = ball(0.3, 2), ball(0.31, 1)
    assert surface_quality(*meshes, n=500, seed=1) == surface_quality(*meshes, n=500, seed=1)
    assert surface_quality(*meshes, n=500, seed=1) != surface_quality(*meshes, n=500, seed=2)


@pytest.mark.parametrize("options", [{"n": 0}, {"threshold": 0.0}, {"threshold": math.nan}, {"seed": -1}], ids=str)
def test_bad_options(options: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        surface_quality(square(0.5), square(0.5), **options)
