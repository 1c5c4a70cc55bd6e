"""Solids from meshes and from functions, against balls and boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuralfield.errors import SignalError
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.placement import Placement
from neuralfield.signals.solid import FunctionSolid, MeshSolid
from tests.signals.meshes import box

LOW, HIGH = np.array([10.0, 20.0, 30.0]), np.array([14.0, 22.0, 31.0])


def box_distance(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Signed distance to a box."""
    beyond = np.maximum(low - points, points - high)
    return np.linalg.norm(np.maximum(beyond, 0), axis=1) + np.minimum(beyond.max(axis=1), 0)


@pytest.fixture
def placement() -> Placement:
    return Placement.around(LOW.tolist(), HIGH.tolist(), margin=0.05)


def test_a_mesh(placement: Placement) -> None:
    mesh = box(LOW, HIGH).moved(placement)
    solid = MeshSolid(mesh, "box")
    low, high = solid.box
    assert np.allclose(low, placement.to_cube(LOW)) and (high - low).max() == pytest.approx(0.9)
    points = np.random.default_rng(0).random((2000, 3))
    expected = box_distance(points, low, high)
    assert np.array_equal(solid.inside(points), expected < 0)
    assert np.abs(solid.signed_distance(points.astype(np.float32)) - expected).max() < 1e-7
    assert solid.area == pytest.approx(2 * (8 + 2 + 4) * (0.9 / 4) ** 2)
    assert np.abs(box_distance(solid.surface(500, np.random.default_rng(1)), low, high)).max() < 1e-12
    assert solid.mesh(17) is mesh
    assert solid.identity == MeshSolid(TriangleMesh(mesh.vertices.copy(), mesh.faces), "other").identity
    assert solid.identity != MeshSolid(TriangleMesh(mesh.vertices * 0.9, mesh.faces)).identity


def test_a_function(placement: Placement) -> None:
    inner_low, inner_high = LOW + np.array([1, 0.2, 0.1]), HIGH - np.array([0.5, 0.3, 0.2])

    def inside(points: np.ndarray) -> np.ndarray:
        assert points.dtype == np.float64 and (points >= LOW - 1e-9).all() and (points <= HIGH + 1e-9).all()
        return box_distance(points, inner_low, inner_high) < 0

    solid = FunctionSolid(inside, LOW, HIGH, placement, "box")
    solid.resolution = 80
    low, high = placement.to_cube(inner_low), placement.to_cube(inner_high)
    assert solid.identity is None
    assert np.allclose(solid.box[0], low, atol=1e-6) and np.allclose(solid.box[1], high, atol=1e-6)
    points = np.random.default_rng(0).random((2000, 3))
    expected = box_distance(points, low, high)
    assert np.array_equal(solid.inside(points), expected < 0)
    cell = 0.9 / 80
    error = np.abs(solid.signed_distance(points) - expected)
    assert np.median(error[expected < 0]) < 1e-6  # outside, the nearest points mostly lie on edges, which are cut off
    assert error.max() < cell
    on_surface = np.abs(box_distance(solid.surface(2000, np.random.default_rng(1)), low, high))
    assert np.quantile(on_surface, 0.8) < 1e-6 and on_surface.max() < cell
    assert solid.mesh() is solid.mesh() and solid.mesh().is_watertight


@pytest.mark.parametrize("give", [lambda b: b[:, None], lambda b: torch.from_numpy(b), lambda b: b.tolist()])
def test_what_a_function_may_give(placement: Placement, give: object) -> None:
    solid = FunctionSolid(lambda p: give(p[:, 0] < 12), LOW, HIGH, placement)
    points = np.random.default_rng(0).random((300, 3))
    world = placement.to_world(points)
    expected = (world[:, 0] < 12) & ((world >= LOW) & (world <= HIGH)).all(axis=1)
    assert np.array_equal(solid.inside(points), expected) and expected.any()
    assert not solid.inside(np.array([[0.0, 0.0, 0.0]])).any()  # and it is not asked


@pytest.mark.parametrize("give", [lambda p: p[:, 0], lambda p: p > 0, lambda p: True, lambda p: None])
def test_what_it_may_not_give(placement: Placement, give: object) -> None:
    solid = FunctionSolid(give, LOW, HIGH, placement, "mine")
    with pytest.raises(SignalError, match=r"mine must give one truth value .* distance\(points\) < 0"):
        solid.inside(np.full((4, 3), 0.5))


def test_an_empty_function(placement: Placement) -> None:
    solid = FunctionSolid(lambda p: np.zeros(len(p), bool), LOW, HIGH, placement, "nothing")
    solid.resolution = 16
    with pytest.raises(SignalError, match="inside nothing"):
        solid.surface(10, np.random.default_rng(0))
