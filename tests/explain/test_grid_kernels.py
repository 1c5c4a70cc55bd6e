"""Whole images and volumes as one window on a grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import neuralfield as nf
from neuralfield.explain import predictor
from neuralfield.explain.candidates import setting
from neuralfield.explain.grid_kernels import grid_of, grid_window
from neuralfield.explain.patches import roughness, signal_roughness, typical, whole
from neuralfield.explain.predictor import Effort, predict
from neuralfield.explain.window_kernels import window_kernels
from neuralfield.fitting.options import FitOptions
from neuralfield.signals.base import Signal
from neuralfield.signals.volume import VolumeSignal

CPU = torch.device("cpu")
OPTIONS = FitOptions(steps=60, batch_size="full")
FOURIER = {"name": "fourier", "sigma": 3.0, "n_features": 32}


def _image(height: int, width: int, holdout: str = "every_other") -> nf.ImageSignal:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 3, 6, 6, generator=generator)
    pixels = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return nf.ImageSignal.from_array(pixels[0].permute(1, 2, 0).numpy(), holdout=holdout)


def _volume(*shape: int) -> Signal:
    values = np.random.default_rng(0).random((4, 4, 4)).astype(np.float32)
    fine = torch.nn.functional.interpolate(torch.from_numpy(values)[None, None], shape, mode="trilinear")
    return VolumeSignal.from_array(fine[0, 0].numpy(), holdout="every_other")


def _field(signal: Signal, encoding: dict[str, object] = FOURIER) -> nf.Field:
    return setting(signal, encoding, {"width": 32, "depth": 2}).build(signal, 0, CPU)


@pytest.mark.parametrize(
    "signal", [_image(12, 16), _image(11, 14), _image(13, 9), _volume(8, 10, 12), _volume(7, 9, 8)],
    ids=["even", "odd rows", "odd", "volume", "odd volume"],
)  # fmt: skip
def test_the_kernels_are_those_of_the_window(signal: Signal) -> None:
    field, window = _field(signal), whole(signal)
    found = grid_window(field, signal)
    assert found is not None
    filled, (parts, test, sizes) = found
    expected, expected_test, expected_sizes = window_kernels(field, window)
    assert sizes == {name: pytest.approx(expected_sizes[name]) for name in expected}
    grid = grid_of(window)
    assert grid is not None
    # What is held out stands where it was; what was added lies outside and does not count.
    torch.testing.assert_close(filled.x_test[grid.rows], window.x_test)
    assert torch.equal(filled.y_test[grid.rows], window.y_test)
    assert float(filled.counted.sum()) == len(window.x_test)
    for name, part in expected.items():
        limit = 1e-5 * float(part.abs().max())
        torch.testing.assert_close(parts[name].to_dense(), part, rtol=0, atol=limit)
        torch.testing.assert_close(test[name].to_dense()[grid.rows], expected_test[name], rtol=0, atol=limit)


def test_the_curve_is_that_of_the_whole_image_as_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    signal = _image(24, 22)
    field = _field(signal)
    found = predict(field, signal, OPTIONS, [], at=[10, 30])
    monkeypatch.setattr(predictor, "grid_window", lambda *_: None)
    expected = predict(field, signal, OPTIONS, [whole(signal)], at=[10, 30])
    np.testing.assert_allclose(found.heldout_psnr, expected.heldout_psnr, atol=0.02)
    np.testing.assert_allclose(found.train_psnr, expected.train_psnr, atol=0.05)
    assert found.energy == pytest.approx(expected.energy, abs=1e-3)


def test_a_large_image_is_followed_on_a_typical_part() -> None:
    # Flat but for a band on the right: a window in the middle would see nothing to learn.
    pixels = np.full((64, 64, 3), 0.5, dtype=np.float32)
    pixels[:, 44:] = np.random.default_rng(0).random((64, 20, 3))
    signal = nf.ImageSignal.from_array(pixels, holdout="every_other")
    window = typical(signal, 100)
    assert len(window.x) == 100 and window.box[2:] == (20, 20) and window.box[0] + 20 > 44
    assert window is typical(signal, 100)  # looked for once
    assert 0.3 < roughness(window) / signal_roughness(signal) < 4
    field = _field(signal)
    found = grid_window(field, signal, most=100)
    assert found is not None and len(found[0].x) == 100
    assert 0 < float(found[0].counted.sum()) <= 100
    curve = predict(field, signal, OPTIONS, [], effort=Effort(most=100))
    assert 10 < curve.heldout_psnr[-1] < 25


@pytest.mark.parametrize(
    ("holdout", "encoding"),
    [("random:0.25", FOURIER), ("every_other", {"name": "none"}), ("every_other", {"name": "hashgrid"})],
    ids=["no grid", "not stationary", "hash grid"],
)
def test_others_have_windows(holdout: str, encoding: dict[str, object]) -> None:
    signal = _image(16, 16, holdout)
    assert grid_window(_field(signal, encoding), signal) is None
