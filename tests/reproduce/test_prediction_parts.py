"""The parts of the study of predictions: stored fits against ordinary ones, statistics with known answers, images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from neuralfield.explain.candidates import Setting, setting
from neuralfield.fitting.loop import Trainer
from neuralfield.fitting.options import FitOptions
from neuralfield.reproduce import prediction_truth
from neuralfield.reproduce.prediction_images import TEXTURES, images, photograph, texture
from neuralfield.reproduce.prediction_statistics import by_setting, mean, measures, middle_within
from neuralfield.reproduce.prediction_truth import Truth, Truths
from neuralfield.signals.image import ImageSignal

OPTIONS = FitOptions(steps=12, eval_points=2**20, precision="float32")


@pytest.fixture
def one(signal: ImageSignal) -> Setting:
    return setting(signal, {"name": "fourier", "sigma": 2.0, "n_features": 8}, {"width": 16, "depth": 1})


@pytest.fixture
def truths(tmp_path: Path) -> Truths:
    return Truths(tmp_path / "runs", 0, torch.device("cpu"))


def test_a_stored_fit_is_the_ordinary_one(signal: ImageSignal, one: Setting, truths: Truths) -> None:
    found = truths.of(one, signal, OPTIONS)
    cpu = torch.device("cpu")
    options = one.options(FitOptions(steps=12, eval_points=2**20, precision="float32", eval_every=1), cpu)
    history = Trainer(one.build(signal, 0, cpu), signal, options, progress=False).run().state.history
    at = {row["step"]: row for row in history}
    assert found.steps == [1, 2, 4, 5, 8, 11, 12]
    np.testing.assert_allclose(found.heldout, [at[step]["psnr_heldout"] for step in found.steps], atol=1e-9)
    np.testing.assert_allclose(found.train, [at[step]["psnr_train"] for step in found.steps], atol=1e-9)
    assert found.cpu_seconds > 0 and found.seconds > 0
    assert truths.of(one, signal, OPTIONS) == found  # read back as it was


@pytest.mark.parametrize(
    "damage",
    [
        "", "{", "[]", "{}", {"heldout": [1.0]}, {"train": [None] * 7}, {"steps": [1, 2, 4, 5, 8, 11, 13]},
        {"cpu_seconds": "long"}, {"heldout": [float("nan")] * 7}, {"key": {"seed": 9}}, {"steps": None},
    ],
)  # fmt: skip
def test_a_damaged_file_is_trained_anew(
    signal: ImageSignal, one: Setting, truths: Truths, damage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Truth([1, 2, 4, 5, 8, 11, 12], [9.0] * 7, [8.0] * 7, 1.0, 1.0)
    trained: list[str] = []

    def train(self: Truths, one: Setting, signal: ImageSignal, options: FitOptions) -> Truth:
        trained.append(one.name)
        return found

    monkeypatch.setattr(Truths, "_train", train)
    truths.of(one, signal, OPTIONS)
    assert truths.has(one, signal, OPTIONS) and len(trained) == 1
    (path,) = truths.folder.iterdir()
    content = json.loads(path.read_text())
    path.write_text(damage if isinstance(damage, str) else json.dumps({**content, **damage}))
    assert not truths.has(one, signal, OPTIONS)
    truths.of(one, signal, OPTIONS)
    assert len(trained) == 2 and json.loads(path.read_text()) == content


def test_whatever_decides_a_fit_is_in_its_key(
    signal: ImageSignal,
    picture: np.ndarray,
    one: Setting,
    truths: Truths,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = {"width": 16, "depth": 1}
    other_image = ImageSignal.from_array(255 - picture, holdout="every_other")
    other_split = ImageSignal.from_array(picture, holdout="random:0.25")
    keys = [
        truths.key(one, signal, OPTIONS),
        truths.key(one, other_image, OPTIONS),
        truths.key(one, other_split, OPTIONS),
        truths.key(setting(signal, {"name": "fourier", "sigma": 2.1, "n_features": 8}, network), signal, OPTIONS),
        truths.key(setting(signal, {"name": "fourier", "sigma": 2.0, "n_features": 8}, {"width": 17}), signal, OPTIONS),
        truths.key(one, signal, FitOptions(steps=13, precision="float32")),
        truths.key(one, signal, FitOptions(steps=12, precision="float32", schedule="constant")),
        truths.key(one, signal, FitOptions(steps=12, precision="float32", batch_size="full")),
        Truths(tmp_path, 1, torch.device("cpu")).key(one, signal, OPTIONS),
    ]
    monkeypatch.setattr(prediction_truth, "__version__", "999")
    keys.append(truths.key(one, signal, OPTIONS))
    assert len({json.dumps(key, sort_keys=True) for key in keys}) == len(keys)
    assert len({truths.path(one, signal, key) for key in keys}) == len(keys)


def made_up(**changed: Any) -> dict[str, Any]:
    """Five settings, the middle three a sigma sweep; looked at after 50, 100 and 200 steps."""
    final = [10.0, 20.0, 26.0, 18.0, 25.0]
    guess = [11.0, 21.0, 25.0, 25.05, 27.0]
    return {
        "name": "made up",
        "size": [24, 24],
        "settings": ["none", "s1", "s2", "s4", "grid"],
        "kinds": ["none", "fourier", "fourier", "fourier", "hashgrid"],
        "sigmas": [None, 1.0, 2.0, 4.0, None],
        "steps": [50, 100, 200],
        "trained": [[0.0, v - 2, v] for v in final],
        "predicted": [[9.0, v - 2, v] for v in guess],
        "trained_train": [[1.0, 2.0, 3.0]] * 5,
        "predicted_train": [[1.0, 2.0, 3.5]] * 5,
        "short": {"5": [5.0, 9.0, 7.0, 6.0, 8.0], "10": [5.0, 6.0, 7.0, 8.0, 9.0]},
        "short_steps": {"5": 10, "10": 100},
        "auto": {"sigma": 2.5, "trained": 25.5, "cost": 0.4, "cpu_seconds": 1.0},
        "bicubic": 22.0,
        "nyquist_sigma": 0.5,
        "cpu": {"prediction": [1.0] * 5, "training": [10.0, 10.0, 10.0, 10.0, 60.0]},
        **changed,
    }  # fmt: skip


def test_measures_with_known_answers() -> None:
    final = {"s2": 10.0, "none": 12.0, "s1": 21.0, "s4": 30.0, "grid": 31.0}  # in another order
    other = made_up(settings=list(final), trained=[[v] * 3 for v in final.values()], bicubic=20.0)
    found = measures(made_up(), [other])
    errors = np.array([1.0, 1.0, -1.0, 7.05, 2.0])
    assert found["error"] == pytest.approx(np.abs(errors).mean())
    assert found["error_fourier"] == pytest.approx(np.abs(errors[1:4]).mean())
    assert found["curve"] == pytest.approx(np.sqrt(np.square(errors).mean()))  # not what step 50 says
    # Ranks of the sweep: trained 2 3 1, predicted 1 2 3, so 1 - 6 (1 + 1 + 4) / (3 (9 - 1)).
    assert found["spearman_sigma"] == pytest.approx(-0.5)
    # Of all: trained 1 3 5 2 4, predicted 1 2 3 4 5: 1 - 6 (0 + 1 + 4 + 4 + 1) / (5 (25 - 1)).
    assert found["spearman"] == pytest.approx(0.5)
    # Bicubic 22 here, 20 there, so the settings' offsets from it are -8, 1, -10, 10, 11.
    assert found["error_bicubic"] == pytest.approx(np.mean([4, 3, 14, 14, 8]))
    assert found["lost"] == pytest.approx(
        {
            "auto": 0.5,
            "rule": 0.0,  # 25 is within 0.1 of 25.05 and at the smaller sigma
            "short_5": 6.0,
            "short_10": 8.0,
            "read_5": 6.0,  # before the first look all are equal, and the first is taken
            "read_10": 0.0,
            "average": 8.0,
            "nyquist": 6.0,  # beyond the sweep: its end
            "random": 26.0 - 64.0 / 3,
        }
    )
    expected = {"predicted": 1.0, "short_5": 6.0, "short_10": 1.0, "average": 1.0, "random": 26.0 - 99.0 / 5}
    assert found["lost_encoding"] == pytest.approx(expected)
    assert found["cost"] == pytest.approx(0.05) and found["auto_cost"] == 0.4


def test_without_others_or_with_other_settings_there_is_no_average() -> None:
    for others in ([], [made_up(settings=["none", "s1", "s2", "s8", "grid"])]):
        found = measures(made_up(), others)
        assert found["error_bicubic"] is None and found["lost"]["average"] is None
        assert found["lost_encoding"]["average"] is None and found["lost"]["rule"] == 0
    flat = measures(made_up(predicted=[[20.0] * 3] * 5), [])
    assert flat["spearman"] is None and flat["spearman_sigma"] is None


def test_a_bandwidth_between_those_of_the_sweep_is_interpolated() -> None:
    found = measures(made_up(nyquist_sigma=2.0), [])
    assert found["lost"]["nyquist"] == pytest.approx(0)
    between = measures(made_up(nyquist_sigma=2.0**0.5), [])["lost"]["nyquist"]
    assert 0 < between < 6


def test_means() -> None:
    assert mean([{"a": 1.0, "b": {"c": None}}, {"a": 3.0, "b": {"c": 4.0}}]) == {"a": 2.0, "b": {"c": 4.0}}
    assert mean([None, None]) is None and mean([]) is None


def test_errors_by_setting() -> None:
    found = by_setting([made_up(), made_up(settings=["none", "s1", "s2", "s8", "grid"], predicted=[[8.0] * 3] * 5)])
    assert found["none"] == pytest.approx({"error": 1.5, "bias": -0.5, "train_bias": 0.5, "cost": 0.1, "images": 2})
    assert found["grid"]["cost"] == pytest.approx(1 / 60)
    assert found["s4"]["images"] == found["s8"]["images"] == 1 and found["s8"]["bias"] == pytest.approx(-10)


def test_the_middle_sigma_within_a_tenth_of_a_decibel() -> None:
    values = np.array([24.95, 24.0, 24.95, 25.0, 24.97, 20.0])
    assert middle_within(values) == 3 and middle_within(values, 0.01) == 3
    assert middle_within(values, 2.0) == 2


def test_textures_have_the_spectrum_that_is_said() -> None:
    pixels = TEXTURES["band noise"](64, np.random.default_rng(0))
    assert pixels.shape == (64, 64, 3) and pixels.min() >= 0 and pixels.max() <= 1
    energy = np.abs(np.fft.fft2(pixels[..., 0] - pixels[..., 0].mean())) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64, 1 / 64), np.fft.fftfreq(64, 1 / 64)))
    inside = energy[(frequency >= 2) & (frequency <= 8)].sum()
    assert inside > 0.995 * energy.sum()  # the rest is what was cut off at 0 and 1
    noise = TEXTURES["power noise"](128, np.random.default_rng(1))[..., 0]
    energy = np.abs(np.fft.fft2(noise - noise.mean())) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128, 1 / 128), np.fft.fftfreq(128, 1 / 128)))
    bins = [np.log(energy[(frequency >= f) & (frequency < 1.5 * f)].mean()) for f in (2, 4, 8, 16, 32)]
    slope = np.polyfit(np.log([2, 4, 8, 16, 32]), bins, 1)[0]
    assert slope == pytest.approx(-2, abs=0.3)
    board = TEXTURES["chirp"](80, np.random.default_rng(2))
    assert len(np.unique(board[..., 0])) == 2
    changes = np.flatnonzero(np.diff(board[0, :, 0])) + 1
    # 1 cycle per side at the left, 16 at the right: 8.5 in all, and zeros of the cosine where x + 7.5 x^2 is odd quarters.
    zeros = [(np.sqrt(1 + 30 * quarter) - 1) / 15 for quarter in np.arange(0.25, 8.5, 0.5)]
    np.testing.assert_allclose(changes, 80 * np.array(zeros), atol=0.51)
    assert np.count_nonzero(np.diff(board[:, 0, 0])) == 8  # eight rows, half a row at both ends


def test_images(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 64, 3), np.uint8)).save(tmp_path / "wide.png")
    path = str(tmp_path / "wide.png")
    assert photograph(path, 32).shape == (32, 32) and photograph(path, 500).shape == (40, 40)
    exact, pixels = photograph(path, 40), np.asarray(Image.open(path))
    np.testing.assert_array_equal(exact.preview(), pixels[:, 12:52])
    found = images([path], 5, 1, 3, 32, 0)
    assert [one.name for one in found][1:] == ["text 1", "band noise", "chirp", "power noise"] and len(found) == 5
    assert len(images([], 2, 0, 0, 32, 0)) == 2
    for one in found:
        assert one.shape == (32, 32) and one.split.n_train == one.split.n_heldout == 256
    assert texture("chirp", 0, 32).fingerprint() == texture("chirp", 0, 32).fingerprint()
    assert texture("chirp", 0, 32).fingerprint() != texture("chirp", 1, 32).fingerprint()
