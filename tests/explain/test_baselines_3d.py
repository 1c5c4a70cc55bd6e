"""Interpolation in space against polynomials that it reproduces."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from neuralfield.explain.baselines import baselines
from neuralfield.explain.baselines_3d import cubic, interpolation_psnr, lattice, linear, nearest
from neuralfield.explain.explanation import SigmaCurve
from neuralfield.explain.patches import Patch
from neuralfield.signals.volume import VolumeSignal

Function = Callable[[torch.Tensor], torch.Tensor]


def _affine(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([0.3 * x[:, 0] - 0.2 * x[:, 1] + 0.5 * x[:, 2], x[:, 2]], dim=1)


def _quadratic(x: torch.Tensor) -> torch.Tensor:
    return _affine(x) + (x[:, :1] * x[:, 2:] - 0.5 * x[:, 1:2] ** 2)


def _tricubic(x: torch.Tensor) -> torch.Tensor:
    return _quadratic(x) + x[:, :1] ** 3 * x[:, 1:2] ** 2 - x[:, 2:] ** 3


def _patch(x: torch.Tensor, at: torch.Tensor, function: Function) -> Patch:
    return Patch(x, function(x), at, function(at), torch.ones(len(at)), (0, 0, 0, 1, 1, 1))


def _lattice(counts: tuple[int, int, int], offset: float = 0.0) -> torch.Tensor:
    axes = [(torch.arange(n, dtype=torch.float64) + offset) / n for n in counts]
    z, y, x = torch.meshgrid(*axes[::-1], indexing="ij")
    return torch.stack([x, y, z], dim=-1).reshape(-1, 3)


@pytest.mark.parametrize("scattered_test", [False, True])
def test_on_a_lattice(scattered_test: bool) -> None:
    x = _lattice((5, 6, 7))
    at = torch.rand(40, 3, dtype=torch.float64) * 0.7 if scattered_test else _lattice((5, 6, 7), 0.5)
    assert lattice(x.numpy()) is not None and [len(a) for a in lattice(x.numpy()) or []] == [5, 6, 7]
    window = _patch(x, at, _affine)
    assert np.allclose(linear(window), window.y_test.numpy(), atol=1e-9)
    window = _patch(x, at, _quadratic if scattered_test else _tricubic)
    assert np.allclose(cubic(window), window.y_test.numpy(), atol=1e-9)
    assert np.abs(linear(window) - window.y_test.numpy()).max() > 1e-3


def test_between_scattered_points() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, 3, dtype=torch.float64, generator=generator)
    at = 0.25 + 0.5 * torch.rand(50, 3, dtype=torch.float64, generator=generator)
    assert lattice(x.numpy()) is None
    window = _patch(x, at, _affine)
    assert np.allclose(linear(window), window.y_test.numpy(), atol=1e-9)
    window = _patch(x, at, _quadratic)
    assert np.allclose(cubic(window), window.y_test.numpy(), atol=1e-7)
    distances = torch.cdist(at, x)
    assert np.array_equal(nearest(window), window.y[distances.argmin(dim=1)].numpy())
    for some in (x[:12], x[:5], x * torch.tensor([1.0, 1.0, 0.0]) + torch.tensor([0.0, 0.0, 0.4])):
        assert np.isfinite(cubic(_patch(some, at, _affine))).all()
    assert np.isfinite(linear(_patch(x[:12], at, _affine))).all()


def test_psnr_is_over_what_counts() -> None:
    window = _patch(_lattice((4, 4, 4)), _lattice((4, 4, 4), 0.5), _tricubic)
    window.counted[:32] = 0
    squares = np.square(nearest(window) - window.y_test.numpy()).mean(axis=1)[32:]
    assert interpolation_psnr([window])["nearest"] == pytest.approx(-10 * np.log10(squares.mean()))


def test_a_volumes_baselines() -> None:
    n = 12
    values = _quadratic(_lattice((n, n, n))).reshape(n, n, n, 2).numpy()
    signal = VolumeSignal.from_array(values, holdout="every_other")
    sigmas = np.array([0.125, 0.25, 0.5, 1.0])
    found = baselines(signal, [], SigmaCurve(sigmas, np.array([20.0, 22.0, 24.0, 20.0]), sigmas, sigmas))
    assert set(found) == {"nearest", "linear", "cubic", "nyquist_sigma"}
    assert found["cubic"] > 80 > found["linear"] > found["nearest"]  # type: ignore[operator]
    nyquist = found["nyquist_sigma"]
    assert isinstance(nyquist, dict) and nyquist["sigma"] == pytest.approx(10 * 6 / 256)
    assert "photographs" in nyquist["source"] and "average_sigma" not in found
