"""The recommendation, from curves that are made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import neuralfield as nf
from neuralfield.errors import ConfigError
from neuralfield.explain.explanation import Candidate, KernelView
from neuralfield.explain.predictor import Curve
from neuralfield.explain.verdict import choose, verdict


def made(
    name: str, heldout: float, train: float = 30.0, parameters: int = 1000, before: float | None = None, **options: Any
) -> Candidate:
    steps = np.array([1, 50, 100])
    psnr = np.array([10, heldout if before is None else before, heldout])
    curve = Curve(steps, 10 ** (-np.array([10, train, train]) / 10), 10 ** (-psnr / 10), 0 * psnr, {}, {})
    kernel = KernelView(np.zeros(1), np.ones(1), np.ones((1, 1)), 1.0)
    shown = " ".join([name, *(f"{k}={v:g}" for k, v in options.items())])
    overrides = [f"encoding={name}", *(f"encoding.{k}={v:g}" for k, v in options.items())]
    encoding = {"name": name, **options}
    return Candidate(shown, overrides, encoding, curve, parameters, 0.1, kernel, np.ones(1), np.ones(1))


@pytest.fixture
def image() -> nf.ImageSignal:
    return nf.ImageSignal.from_array(np.eye(8, dtype=np.float32), name="eye")


def test_a_clear_winner(image: nf.ImageSignal) -> None:
    found = verdict(
        [made("none", 20, 20), made("fourier", 24, sigma=4.0), made("hashgrid", 27)],
        image,
        100,
        ["signal.path=a b.png"],
    )
    assert found.best == "hashgrid" and found.margin_db == pytest.approx(3) and found.uncertainty_db == 0.5
    assert found.text.count(". ") == 1 and "27.0 dB" in found.text and "0.5 dB" in found.text
    assert "Fourier features of sigma 4" in found.text and "3.0 dB below" in found.text
    assert found.command == "python scripts/fit.py 'signal.path=a b.png' encoding=hashgrid"


def test_equals_are_said_to_be_equal_and_the_simpler_is_taken(image: nf.ImageSignal) -> None:
    found = verdict([made("hashgrid", 25.3, parameters=9000), made("fourier", 25.0, sigma=8.0)], image, 100)
    assert found.best == "fourier sigma=8"
    assert "A hash grid would do as well" in found.text and "simpler" in found.text
    apart = verdict([made("hashgrid", 25.6), made("fourier", 25.0, sigma=8.0)], image, 100)
    assert apart.best == "hashgrid"


def test_of_bandwidths_the_middle_one_within_a_tenth_of_a_decibel() -> None:
    candidates = [made("fourier", psnr, sigma=s) for s, psnr in ((1.0, 24.0), (2.0, 25.0), (4.0, 24.95), (8.0, 24.97))]
    assert choose(candidates).best.name == "fourier sigma=4"
    assert len(choose(candidates).equals) == 3


def test_measurements_count_when_all_have_them(image: nf.ImageSignal) -> None:
    candidates = [made("fourier", 26.0, sigma=4.0), made("hashgrid", 24.0)]
    for candidate, psnr in zip(candidates, (23.0, 23.4), strict=True):
        candidate.trained = [{"step": 100, "psnr_train": 30.0, "psnr_heldout": psnr}]
    found = verdict(candidates, image, 100)
    assert found.best == "hashgrid" and "reached 23.4 dB" in found.text and found.margin_db == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (made("none", 20, 35), "errs between"),
        (made("none", 20, 21), "too smooth"),
        (made("none", 20, 21, before=15), "still learning"),
    ],
)
def test_the_reason_is_read_off_the_curves(image: nf.ImageSignal, other: Candidate, words: str) -> None:
    assert words in verdict([other, made("positional", 25, 30)], image, 100).text


def test_no_candidate_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no candidate"):
        choose([])
