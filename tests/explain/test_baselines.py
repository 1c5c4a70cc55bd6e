"""Baselines against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

import neuralfield as nf
from neuralfield.explain.baselines import AVERAGE_SIGMA, at_sigma, baselines, bicubic, bicubic_psnr
from neuralfield.explain.explanation import SigmaCurve
from neuralfield.explain.patches import patches


def _cubic(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    x, y = x / width, y / height
    return (0.5 + 0.2 * x**3 - 0.3 * x * y**2 + 0.1 * y)[..., None].astype(np.float32)


@pytest.mark.parametrize(("holdout", "error"), [("every_other", 1e-5), ("random:0.3", 3e-4)])
def test_interpolation_reproduces_a_cubic(holdout: str, error: float) -> None:
    signal = nf.ImageSignal.from_array(_cubic(40, 48), holdout=holdout)
    for window in patches(signal, 12, 4):
        x, held = window.x.numpy(), window.x_test.numpy()
        # At the image's edges there is nothing to interpolate between, which the median does not see.
        kept = window.counted.bool().numpy() & (held < x.max(axis=0)).all(axis=1)
        assert np.median(np.abs(bicubic(window) - window.y_test.numpy())[kept]) < error
        assert np.std(window.y_test.numpy()[kept]) > 2 * error


def test_its_psnr_is_that_of_the_pixels_that_count() -> None:
    noise = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    signal = nf.ImageSignal.from_array(noise, holdout="every_other")
    windows = patches(signal, 12, 4)
    assert any(not bool(w.counted.all()) for w in windows)
    squares = np.concatenate([np.square(bicubic(w) - w.y_test.numpy())[w.counted.bool().numpy()] for w in windows])
    assert bicubic_psnr(windows) == pytest.approx(-10 * np.log10(squares.mean()), abs=1e-6)


def test_fixed_bandwidths_are_read_off_the_curve() -> None:
    sigmas = np.array([2.0, 4.0, 8.0, 16.0])
    heldout = np.array([20.0, 24.0, 25.0, 22.0])
    curve = SigmaCurve(sigmas, heldout, heldout + 30, heldout + 1)
    assert at_sigma(curve, 4.0) == pytest.approx(24)
    assert at_sigma(curve, 1.0) is None
    signal = nf.ImageSignal.from_array(_cubic(128, 128), holdout="every_other")  # 64 training pixels along a side
    found = baselines(signal, patches(signal, 12, 1), curve)
    average, nyquist = found["average_sigma"], found["nyquist_sigma"]
    assert isinstance(average, dict) and isinstance(nyquist, dict)
    assert average["sigma"] == AVERAGE_SIGMA and nyquist["sigma"] == pytest.approx(AVERAGE_SIGMA / 4)
    assert 22 < average["predicted"] < 25 and average["lost"] == pytest.approx(25 - average["predicted"])
    assert set(baselines(signal, patches(signal, 12, 1), None)) == {"bicubic"}
