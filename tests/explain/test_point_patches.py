"""Windows of a shape: what they hold, and that held-out points are the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuralfield import signals
from neuralfield.explain.patches import patches
from neuralfield.explain.point_patches import NARROWEST, across, labels, overlap
from neuralfield.signals.shape import ShapeSignal


def _shape(**options: object) -> ShapeSignal:
    given = {"type": "shape", "name": "torus", "points": 20_000, "test_points": 5_000, "cache": False}
    found = signals.load({**given, **options})
    assert isinstance(found, ShapeSignal)
    return found


@pytest.fixture(scope="module")
def torus() -> ShapeSignal:
    return _shape()


def _in_box(x: torch.Tensor, box: tuple[float, ...]) -> torch.Tensor:
    low = torch.tensor(box[:3], dtype=torch.float64)
    return ((x >= low - 1e-7) & (x <= low + box[3] + 1e-7)).all(dim=1)


def test_a_window_is_as_wide_as_it_takes_for_its_points(torus: ShapeSignal) -> None:
    windows = patches(torus, side=6, most=4)
    everything = torus.coordinates(torch.arange(torus.split.n_train))
    assert len(windows) == 4 and len({w.box for w in windows}) == 4
    for window in windows:
        assert len(window.x) == 216 and bool(_in_box(window.x, window.box).all())
        there = int(_in_box(everything, window.box).sum())
        assert window.stands_for == pytest.approx(there / 216, rel=0.02)
        assert 1 <= window.stands_for < 1.3 or window.box[3] == NARROWEST
        assert min(window.box[:3]) >= 0 and max(window.box[:3]) + window.box[3] <= 1 + 1e-9
        # The middle of the window lies near the surface, unless a side of the cube is in the way.
        middle = np.array(window.box[:3])[None] + window.box[3] / 2
        assert abs(torus.signed_distance(middle)[0]) < 0.05


def test_denser_points_are_thinned_at_random() -> None:
    dense = _shape(points=200_000)
    for window in patches(dense, side=4, most=2):
        assert len(window.x) == 64 and window.box[3] == NARROWEST and window.stands_for > 2
        # Drawn from all of the window: their mean is that of all of them, within the error of 64 draws.
        everything = dense.coordinates(torch.arange(dense.split.n_train))
        all_of_them = everything[_in_box(everything, window.box)]
        error = (window.x.mean(dim=0) - all_of_them.mean(dim=0)).abs() / (all_of_them.std(dim=0) / 8)
        assert float(error.max()) < 4


@pytest.mark.parametrize("kind", ["occupancy", "sdf"])
def test_held_out_points_are_inside_the_window_and_true(kind: str) -> None:
    signal = _shape(kind=kind, **({"truncation": 0.02} if kind == "sdf" else {}))
    for side in (5, 9):
        for window in patches(signal, side=side, most=3):
            x = window.x_test.double().numpy()
            inner = window.box[3] * 0.2
            low = np.where(np.array(window.box[:3]) > 0, np.array(window.box[:3]) + inner, 0)
            assert (x >= low - 1e-6).all() and len(x) >= 64
            truth = signal.inside(x) if kind == "occupancy" else np.clip(signal.signed_distance(x), -0.02, 0.02)
            assert np.allclose(window.y_test.numpy()[:, 0], truth, atol=1e-6)


def test_the_inside_is_above_a_half_or_below_zero(torus: ShapeSignal) -> None:
    predicted = torch.tensor([[0.9], [0.6], [0.2], [0.4]])
    assert overlap(torus, predicted, torch.tensor([[1.0], [0.0], [1.0], [0.0]])) == (1, 3)
    distances = _shape(kind="sdf")
    assert overlap(distances, -predicted, torch.tensor([[-0.1], [0.1], [-0.1], [0.1]])) == (2, 4)


def test_a_slice_is_across_z_at_the_middle(torus: ShapeSignal) -> None:
    (window,) = patches(torus, side=5, most=1)
    points = across(window, 4)
    x, y, z, side = window.box
    assert torch.allclose(points[:, 2], torch.tensor(z + side / 2))
    assert torch.allclose(points[0], torch.tensor([x + side / 8, y + side / 8, z + side / 2]))
    assert points[1, 0] > points[0, 0] and points[1, 1] == points[0, 1]  # x is fastest
    assert labels(torus, points).shape == (16, 1)
