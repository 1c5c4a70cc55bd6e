"""What is learned of an image, in part, and not: by the kernel's modes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import isotonic_regression

import neuralfield as nf
from neuralfield.explain.bands import bands, rising
from neuralfield.explain.patches import Patch, patches


@pytest.fixture(scope="module")
def signal() -> nf.ImageSignal:
    return nf.load_image(name="chelsea", crop=24, holdout="every_other")


@pytest.fixture(scope="module")
def window(signal: nf.ImageSignal) -> Patch:
    return patches(signal, 12, 1)[0]


def _modes(n: int) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(np.linalg.qr(rng.normal(size=(n, n)))[0])


def test_standing_kernels_leave_what_the_exponential_says(signal: nf.ImageSignal, window: Patch) -> None:
    n = len(window.x)
    vectors, rates = _modes(n), torch.logspace(2, -3, n, dtype=torch.float64)
    target = (window.y - window.y.mean(dim=0)).double()
    own = vectors.T @ target
    remains = torch.exp(-rates)[:, None]
    residual = -(vectors @ (remains * own))  # f - y
    found = bands(vectors, window, signal, residual.float())
    inside = [
        (remains[:, 0] < 0.1).numpy(),
        ((remains[:, 0] >= 0.1) & (remains[:, 0] < 0.9)).numpy(),
        (remains[:, 0] >= 0.9).numpy(),
    ]
    energy = own.square().sum(dim=1).numpy()
    left = (remains * own).square().sum(dim=1).numpy()
    assert found.modes.tolist() == [int(band.sum()) for band in inside]
    assert found.energy == pytest.approx([energy[band].sum() / energy.sum() for band in inside], rel=1e-4)
    assert found.left == pytest.approx([left[band].sum() / energy.sum() for band in inside], rel=1e-4)
    assert found.energy.sum() == pytest.approx(1) and min(found.energy) > 0.1


def test_the_parts_make_the_image_and_what_is_missing_of_it(signal: nf.ImageSignal, window: Patch) -> None:
    residual = 0.3 * (window.y - 0.4)
    found = bands(_modes(len(window.x)), window, signal, residual)
    assert found.image is not None and found.residual is not None
    assert found.image.shape == (3, window.box[3], window.box[2], 3)
    # Training pixels lie on even rows and columns; each stands for its neighbours to the right and below, too.
    drawn = found.image.sum(axis=0) + window.y.mean(dim=0).numpy()
    known = signal.values(torch.arange(signal.n_pixels)).reshape(24, 24, 3).numpy()[::2, ::2]
    assert np.allclose(drawn[::2, ::2], known, atol=1e-5) and np.allclose(drawn[1::2, 1::2], known, atol=1e-5)
    missing = -residual.reshape(12, 12, 3).numpy()
    assert np.allclose(found.residual.sum(axis=0)[::2, ::2], missing, atol=1e-5)


def test_extremes(signal: nf.ImageSignal, window: Patch) -> None:
    vectors = _modes(len(window.x))
    everything = bands(vectors, window, signal, torch.zeros_like(window.y))
    assert everything.energy == pytest.approx([1, 0, 0]) and everything.left.tolist() == [0, 0, 0]
    nothing = bands(vectors, window, signal, window.y.mean(dim=0) - window.y)
    assert nothing.energy == pytest.approx([0, 0, 1]) and nothing.left == pytest.approx([0, 0, 1], rel=1e-4)
    assert set(nothing.to_dict()) == {"learned", "in_part", "not_learned"}
    assert nothing.to_dict()["not_learned"]["modes"] == len(window.x)


def test_pooling_is_isotonic_regression() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        energy = rng.exponential(size=60) ** 3
        left = energy * np.clip(np.linspace(0, 1, 60) + rng.normal(size=60), 0, None)
        assert rising(left, energy) == pytest.approx(isotonic_regression(left / energy, weights=energy).x, abs=1e-9)


def test_modes_that_hold_nothing_of_the_image_follow_their_neighbours() -> None:
    ratios = rising(np.array([0.1, 0.0, 0.0, 0.5]), np.array([1.0, 0.0, 0.0, 1.0]))
    assert np.all(np.isfinite(ratios)) and ratios[0] == pytest.approx(0.1) and ratios[-1] == pytest.approx(0.5)
    assert np.all(np.diff(ratios) >= 0)
