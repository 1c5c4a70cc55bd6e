"""Predicted curves against real fits of small fields."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import neuralfield as nf
from neuralfield.errors import ConfigError
from neuralfield.explain import first_steps, follow, predictor, small_fit
from neuralfield.explain.candidates import Setting, setting
from neuralfield.explain.curves import powers
from neuralfield.explain.patches import patches
from neuralfield.explain.predictor import look, predict
from neuralfield.explain.verify import train
from neuralfield.explain.window_kernels import covered
from neuralfield.fitting.options import FitOptions

CPU = torch.device("cpu")
OPTIONS = FitOptions(steps=150, batch_size="full", beta2=0.999)


@pytest.fixture(scope="module")
def photograph() -> nf.ImageSignal:
    return nf.load_image(name="chelsea", crop=48, holdout="every_other")


def _setting(signal: nf.ImageSignal, encoding: str, **options: object) -> Setting:
    return setting(signal, {"name": encoding, **options}, {"width": 128, "depth": 2})


@pytest.mark.parametrize("sigma", [1.0, 4.0, 12.0])
def test_a_fourier_field_reaches_what_is_predicted(photograph: nf.ImageSignal, sigma: float) -> None:
    one = _setting(photograph, "fourier", sigma=sigma, n_features=128)
    windows = patches(photograph, 24, 1)
    curve = predict(one.build(photograph, 0, CPU), photograph, OPTIONS, windows)
    real = train(one, photograph, OPTIONS, 0, CPU)
    assert curve.steps.tolist() == powers(150) and curve.steps[-1] == 150
    assert curve.heldout_psnr[-1] == pytest.approx(real[-1]["psnr_heldout"], abs=1.2)
    assert np.all(curve.f0_mse[-1] <= curve.heldout_mse[-1] * 4)
    assert sum(curve.energy.values()) == pytest.approx(1, abs=1e-4)


def test_equal_windows_side_by_side_are_one_window(photograph: nf.ImageSignal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "grid_window", lambda *_: None)
    field = _setting(photograph, "fourier", sigma=3.0, n_features=64).build(photograph, 0, CPU)
    (window,) = patches(photograph, 10, 1)
    once = predict(field, photograph, OPTIONS, [window], at=[20])
    twice = predict(field, photograph, OPTIONS, [window, window], at=[20])
    assert once.steps.tolist() == [20, 150]
    assert twice.heldout_psnr == pytest.approx(once.heldout_psnr, abs=0.01)


def test_a_hash_grid_is_followed_from_its_first_real_steps(photograph: nf.ImageSignal) -> None:
    one = _setting(photograph, "hashgrid")
    field = one.build(photograph, 0, CPU)
    before = {k: v.clone() for k, v in field.state_dict().items()}
    curve = predict(field, photograph, OPTIONS, patches(photograph, 24, 1))
    assert all(torch.equal(before[k], v) for k, v in field.state_dict().items())  # a copy was trained
    real = {row["step"]: row["psnr_heldout"] for row in train(one, photograph, OPTIONS, 0, CPU)}
    shown = dict(zip(curve.steps.tolist(), curve.heldout_psnr.tolist(), strict=True))
    assert shown[8] == pytest.approx(real[8], abs=0.5)  # measured, not predicted
    assert shown[64] == pytest.approx(real[64], abs=0.5)
    assert shown[150] == pytest.approx(real[150], abs=1.0)


def test_first_steps_are_made_once_for_the_curve_and_the_pictures(
    photograph: nf.ImageSignal, monkeypatch: pytest.MonkeyPatch
) -> None:
    field, windows = _setting(photograph, "hashgrid").build(photograph, 0, CPU), patches(photograph, 12, 4)
    curve = predict(field, photograph, OPTIONS, windows)
    monkeypatch.setattr(first_steps, "Trainer", lambda *_, **__: pytest.fail("trained again"))
    inside = look(field, photograph, OPTIONS, windows[0])
    assert inside.prediction.steps[-1] == 150 - 64
    short = replace(OPTIONS, steps=64)
    with pytest.raises(pytest.fail.Exception, match="again"):
        predict(field, photograph, short, windows)
    monkeypatch.undo()
    real = predict(field, photograph, short, windows)  # all of it is real
    assert real.steps.tolist() == powers(64) and real.heldout_mse[:5] == pytest.approx(curve.heldout_mse[:5], rel=0.05)


def test_windows_are_followed_together_as_far_as_memory_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    signal = nf.load_image(name="coffee", resize=96, holdout="random:0.5")
    windows = patches(signal, 8, 9)
    groups = follow.alike(windows)
    assert [w for group in groups for w in group] != [] and sum(map(len, groups)) == len(windows)
    assert all(len({(len(w.x), len(w.x_test)) for w in group}) == 1 for group in groups)
    monkeypatch.setattr(follow, "_TOGETHER", 1)
    assert all(len(group) == 1 for group in follow.alike(windows))


def test_plain_coordinates_learn_features_which_no_standing_kernel_does(monkeypatch: pytest.MonkeyPatch) -> None:
    signal = nf.load_image(name="coffee", resize=48, holdout="every_other")
    one = setting(signal, "none", {"width": 64, "depth": 3})
    options = FitOptions(steps=200, batch_size="full", lr=4e-3)
    windows = patches(signal, 24, 1)
    real = {row["step"]: row["psnr_heldout"] for row in train(one, signal, options, 0, CPU)}
    curve = predict(one.build(signal, 0, CPU), signal, options, windows)
    shown = dict(zip(curve.steps.tolist(), curve.heldout_psnr.tolist(), strict=True))
    assert shown[200] == pytest.approx(real[200], abs=0.7)
    late = [step for step in shown if step >= 64 and step in real]
    assert np.sqrt(np.mean([(shown[step] - real[step]) ** 2 for step in late])) < 0.7
    assert set(curve.energy) == {name for name, _ in one.build(signal, 0, CPU).named_parameters()}
    # One window after it: the copy's own residuals, without another fit.
    monkeypatch.setattr(small_fit, "small_fit", lambda *_: pytest.fail("fitted again"))
    inside = look(one.build(signal, 0, CPU), signal, options, windows[0])
    assert float(inside.prediction.train_residual.square().mean()) == pytest.approx(
        float(curve.train_mse[-1]), rel=0.02
    )
    assert inside.prediction.test_mse == pytest.approx(curve.heldout_mse[-1:], rel=0.02)
    assert inside.prediction.weights == curve.weights and inside.kernel.shape == (len(windows[0].x),) * 2
    # The infinitely wide network's kernel, which was followed before, ends far below.
    monkeypatch.setattr(predictor, "suits", lambda *_: False)
    lazy = predict(one.build(signal, 0, CPU), signal, options, windows, at=[200])
    assert lazy.heldout_psnr[-1] < real[200] - 1.4


@pytest.mark.parametrize("given", ["positional", {"name": "fourier", "sigma": 4.0}, "hashgrid"])
def test_encoded_fields_are_predicted_from_kernels(
    photograph: nf.ImageSignal, monkeypatch: pytest.MonkeyPatch, given: str | dict[str, object]
) -> None:
    monkeypatch.setattr(predictor, "small_fit", lambda *_: pytest.fail("fitted on cells"))
    field = setting(photograph, given, {"width": 32, "depth": 2}).build(photograph, 0, CPU)
    assert np.isfinite(
        predict(field, photograph, OPTIONS, patches(photograph, 8, 1), at=[20], wide=8).heldout_psnr
    ).all()


@pytest.mark.filterwarnings("ignore::neuralfield.ntk.generic.GenericPathWarning")
def test_a_network_beyond_the_theory_is_predicted_from_its_own_kernel(photograph: nf.ImageSignal) -> None:
    class Shallow(nn.Module):
        in_dim, out_dim = 32, 3

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(32, 64), nn.Linear(64, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(torch.tanh(self.first(x)))

    field = nf.Field(nf.encodings.Fourier(2, 16, 2.0), Shallow())
    assert not covered(field)
    curve = predict(field, photograph, OPTIONS, patches(photograph, 10, 1))
    assert 5 < curve.heldout_psnr[-1] < 40


def test_look_agrees_with_the_curve(photograph: nf.ImageSignal) -> None:
    field = _setting(photograph, "fourier", sigma=4.0, n_features=64).build(photograph, 0, CPU)
    (window,) = patches(photograph, 24, 1)
    inside = look(field, photograph, OPTIONS, window)
    curve = predict(field, photograph, OPTIONS, [window])
    assert float(inside.prediction.train_residual.square().mean()) == pytest.approx(float(curve.train_mse[-1]), rel=0.1)
    assert torch.allclose(inside.kernel, inside.kernel.T, rtol=1e-3, atol=1e-4 * float(inside.kernel.max()))


def test_what_cannot_be_predicted_is_named(photograph: nf.ImageSignal) -> None:
    field = _setting(photograph, "fourier").build(photograph, 0, CPU)
    windows = patches(photograph, 10, 1)
    with pytest.raises(ConfigError, match="mse"):
        predict(field, photograph, replace(OPTIONS, loss="l1"), windows)
    with pytest.raises(ConfigError, match="steps"):
        predict(field, photograph, replace(OPTIONS, steps=None, seconds=3), windows)


def test_the_last_layer_grows_behind_an_encoding(photograph: nf.ImageSignal) -> None:
    field = _setting(photograph, "fourier", n_features=32).build(photograph, 0, CPU)
    weight = field.network.layers[-1].weight  # type: ignore[union-attr, index]
    squares = pytest.approx(float(weight.detach().square().sum()))
    assert follow._last_layer(field, {"network.layers.2.weight": torch.eye(2)}) == ("network.layers.2.weight", squares)
    assert follow._last_layer(field, {"network.layers.1.weight": torch.eye(2)}) is None  # frozen
    field.network = nn.Linear(64, 3)
    assert follow._last_layer(field, {"network.weight": torch.eye(2)}) is None
