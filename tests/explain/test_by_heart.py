"""Small images, of which a copy that sees few pixels in a step says what the fit will show between them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import neuralfield as nf
from neuralfield.explain import by_heart
from neuralfield.explain.by_heart import few, learns_by_heart, with_a_copy
from neuralfield.explain.candidates import Setting, setting
from neuralfield.explain.curves import Curve
from neuralfield.explain.first_steps import Begun
from neuralfield.explain.predictor import QUICK, predict
from neuralfield.explain.verify import train
from neuralfield.field import Field
from neuralfield.fitting.options import FitOptions

CPU = torch.device("cpu")
OPTIONS = FitOptions(steps=600, batch_size="full")


@pytest.fixture(scope="module")
def signal() -> nf.ImageSignal:
    return nf.load_image(name="chelsea", crop=48, holdout="every_other")


def _setting(signal: nf.ImageSignal, sigma: float) -> Setting:
    return setting(signal, {"name": "fourier", "sigma": sigma, "n_features": 64}, {"width": 64, "depth": 2})


def _field(signal: nf.ImageSignal, sigma: float) -> Field:
    return _setting(signal, sigma).build(signal, 0, CPU)


def test_a_fit_that_learns_its_pixels_by_heart_ends_where_the_copy_ends(signal: nf.ImageSignal) -> None:
    one, field = _setting(signal, 12.0), _field(signal, 12.0)
    before = {name: value.clone() for name, value in field.state_dict().items()}
    curve = predict(field, signal, OPTIONS, [])
    alone = predict(field, signal, OPTIONS, [], effort=replace(QUICK, most=None))
    assert all(torch.equal(before[name], value) for name, value in field.state_dict().items())
    real = train(one, signal, OPTIONS, 0, CPU)[-1]["psnr_heldout"]
    assert curve.heldout_psnr[-1] == pytest.approx(real, abs=0.5)
    assert curve.heldout_psnr[-1] != pytest.approx(alone.heldout_psnr[-1], abs=0.05)  # it had a say
    assert np.array_equal(curve.train_mse, alone.train_mse) and np.array_equal(curve.f0_mse, alone.f0_mse)


@pytest.mark.parametrize(("train_mse", "wanted"), [(1e-2, 4e-2), (0.0, 1e-2), (5e-3, 4**0.75 * 1e-2)])
def test_the_copy_has_a_say_by_what_it_has_learned(
    signal: nf.ImageSignal, monkeypatch: pytest.MonkeyPatch, train_mse: float, wanted: float
) -> None:
    steps, field = np.array([1, 2]), _field(signal, 4.0)
    copy = Begun(field, 2, steps, np.full(2, train_mse), np.full(2, 1e-2), {})
    monkeypatch.setattr(by_heart, "begin", lambda *_: copy)
    curve = Curve(steps, np.full(2, 0.5), np.full(2, 4e-2), np.zeros(2), {}, {})
    assert with_a_copy(field, signal, OPTIONS, curve).heldout_mse == pytest.approx([wanted] * 2)


def test_only_where_every_pixel_is_seen_often(signal: nf.ImageSignal) -> None:
    field = _field(signal, 4.0)
    assert few(signal, OPTIONS) == 576 // 25 and few(signal, replace(OPTIONS, batch_size=100)) == 4
    assert learns_by_heart(field, signal, OPTIONS)
    assert not learns_by_heart(field, signal, replace(OPTIONS, steps=300))
    assert not learns_by_heart(field, signal, replace(OPTIONS, batch_size=100))
