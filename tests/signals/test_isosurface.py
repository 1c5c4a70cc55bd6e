"""Marching cubes of anything that says what is inside: against closed forms, and watertight whatever is given."""

from __future__ import annotations

import math

import numpy as np
import pytest

from neuralfield.errors import ConfigError, SignalError
from neuralfield.signals.isosurface import boundary_mesh

CENTRE, RADIUS = np.array([1.0, -2.0, 3.0]), 1.5


def in_ball(points: np.ndarray) -> np.ndarray:
    return ((points - CENTRE) ** 2).sum(axis=1) < RADIUS**2


@pytest.mark.parametrize("resolution", [16, 64])
def test_a_ball_converges_with_the_square_of_the_spacing(resolution: int) -> None:
    mesh = boundary_mesh(in_ball, CENTRE - RADIUS, CENTRE + RADIUS, resolution)
    h = 2 * RADIUS / resolution
    distance = np.linalg.norm(mesh.vertices - CENTRE, axis=1) - RADIUS
    assert np.abs(distance).max() < h * 2.0**-23
    middles = np.linalg.norm(mesh.corners.mean(axis=1) - CENTRE, axis=1) - RADIUS
    assert -(h**2) / (2 * RADIUS) < middles.min() and middles.max() < 1e-6
    volume, area = 4 / 3 * math.pi * RADIUS**3, 4 * math.pi * RADIUS**2
    assert 0 < 1 - mesh.volume / volume < (h / RADIUS) ** 2  # positive: fronts look outward
    assert 0 < 1 - mesh.areas.sum() / area < (h / RADIUS) ** 2
    assert mesh.is_watertight


def test_a_flat_box_keeps_its_planes() -> None:
    low, high = np.array([0.0, 0.0, 0.0]), np.array([1.0, 0.5, 0.25])
    mesh = boundary_mesh(lambda p: ((p > low) & (p < high)).all(axis=1), low, high, 40)
    assert np.allclose(mesh.box[0], low, atol=1e-8) and np.allclose(mesh.box[1], high, atol=1e-8)
    assert mesh.volume == pytest.approx(0.125, rel=0.01) and mesh.is_watertight


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_noise_gives_a_watertight_mesh(share: float) -> None:
    """Every ambiguous configuration of a cell occurs; each edge has its two triangles still."""
    cells = np.random.default_rng(3).random((12, 12, 12)) < share

    def inside(points: np.ndarray) -> np.ndarray:
        x, y, z = np.clip(points, 0, 11.99).astype(int).T
        return cells[x, y, z]

    mesh = boundary_mesh(inside, np.zeros(3), np.full(3, 12.0), 12)
    assert mesh.is_watertight and mesh.volume > 0


def test_what_reaches_beyond_the_box_is_closed_off() -> None:
    mesh = boundary_mesh(lambda p: np.ones(len(p), bool), np.zeros(3), np.ones(3), 10)
    assert mesh.is_watertight and (mesh.box[0] < 0).all() and (mesh.box[1] > 1).all()


def test_asked_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = boundary_mesh(in_ball, CENTRE - RADIUS, CENTRE + RADIUS, 20)
    sizes = []

    def counted(points: np.ndarray) -> np.ndarray:
        sizes.append(len(points))
        return in_ball(points)

    monkeypatch.setattr("neuralfield.signals.isosurface._BLOCK", 600)
    mesh = boundary_mesh(counted, CENTRE - RADIUS, CENTRE + RADIUS, 20)
    assert np.array_equal(mesh.vertices, whole.vertices) and np.array_equal(mesh.faces, whole.faces)
    assert max(sizes) <= 600 and len(sizes) > 24


def test_nothing_inside_and_bad_sizes() -> None:
    with pytest.raises(SignalError, match=r"no point of a lattice of 32 cells .* inside nothing: it is empty"):
        boundary_mesh(lambda p: np.zeros(len(p), bool), np.zeros(3), np.ones(3), 32, "nothing")
    with pytest.raises(ConfigError, match="resolution must be between 8 and 640"):
        boundary_mesh(in_ball, np.zeros(3), np.ones(3), 4)
