"""The sponge against its recursive definition, its closed forms and brute force over its squares."""

from __future__ import annotations

import math

import numpy as np
import pytest

from neuralfield.signals.menger import MengerSponge, _squares


def in_sponge(x: float, y: float, z: float, level: int) -> bool:
    """The definition: a cube without its seven middle thirds, and so for each of the twenty left."""
    if not all(0 <= v < 1 for v in (x, y, z)):
        return False
    if level == 0:
        return True
    thirds = [min(int(3 * v), 2) for v in (x, y, z)]
    if thirds.count(1) >= 2:
        return False
    return in_sponge(*(3 * v - third for v, third in zip((x, y, z), thirds, strict=True)), level - 1)


def test_inside_by_recursion() -> None:
    sponge = MengerSponge(margin=0.1)
    points = np.random.default_rng(0).random((5000, 3))
    expected = [in_sponge(*p, 3) for p in (points - 0.1) / 0.8]
    assert np.array_equal(sponge.inside(points), expected) and 500 < sum(expected) < 2000


def test_volume_area_and_box() -> None:
    sponge = MengerSponge()
    mesh = sponge.mesh()
    assert mesh.is_watertight and len(mesh.faces) == 36096
    assert mesh.volume == pytest.approx((20 / 27) ** 3 * 0.9**3, rel=1e-12)
    area = (2 * 20**3 + 4 * 8**3) / 9**3 * 0.9**2
    assert mesh.areas.sum() == pytest.approx(area, rel=1e-12) and sponge.area == pytest.approx(area, rel=1e-12)
    assert np.allclose(mesh.box, sponge.box, atol=1e-15)
    n = 300_000
    share = sponge.inside(np.random.default_rng(1).random((n, 3))).mean()
    p = (20 / 27) ** 3 * 0.9**3
    assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / n)


def test_distance_by_brute_force_over_the_squares() -> None:
    sponge, rng = MengerSponge(), np.random.default_rng(2)
    points = np.concatenate([rng.random((60, 3)), sponge.surface(60, rng) + 0.01 * rng.standard_normal((60, 3))])
    corners = 0.05 + _squares() / 30
    low, high = corners.min(axis=1), corners.max(axis=1)
    expected = [np.sqrt(((p - np.clip(p, low, high)) ** 2).sum(axis=1)).min() for p in points]
    said = sponge.signed_distance(points)
    assert np.abs(np.abs(said) - expected).max() < 1e-12
    assert np.array_equal(said < 0, sponge.inside(points))


def test_normals_look_outward_and_points_lie_on_the_surface() -> None:
    sponge = MengerSponge()
    mesh = sponge.mesh()
    middle = mesh.corners.mean(axis=1)
    assert sponge.inside(middle - 1e-4 * mesh.normals).all()
    assert not sponge.inside(middle + 1e-4 * mesh.normals).any()
    points = sponge.surface(2000, np.random.default_rng(3))
    assert np.abs(sponge.signed_distance(points)).max() < 1e-12
