"""Laziness by width and by output scale: the claims hold at reduced size; wrong laws and wrong models are caught."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from neuralfield.errors import ConfigError, DivergedError
from neuralfield.reproduce import lazy_training
from neuralfield.reproduce.report import Reproduction

SMALL: dict[str, Any] = {
    "widths": [32, 100, 316],
    "clock": 0.5,
    "width_steps": 1500,
    "shown_widths": [10, 100],
    "shown_lr": 1e-3,
    "shown_steps": 100,
    "alphas": [0.2, 5.0, 70.0, 1000.0],
    "alpha_width": 100,
    "alpha_lr": 6e-3,
    "alpha_steps": 250,
    "trials": 3,
    "seed": 0,
}


@pytest.fixture(scope="module")
def result() -> Reproduction:
    return lazy_training.reproduce(**SMALL)


def test_width_and_output_scale_make_training_lazy(result: Reproduction, tmp_path: Path) -> None:
    assert [claim.text for claim in result.claims if not claim.holds] == [], result.claims
    result.save(tmp_path)
    assert (tmp_path / "figure.png").stat().st_size > 20_000


def test_wrong_laws_are_caught(result: Reproduction) -> None:
    width, alpha = result.numbers["width"], result.numbers["alpha"]

    def holds(index: int, where: str, name: str, change: float) -> bool:
        """Claim ``index`` when a measured series has another exponent, by ``change``."""
        numbers = copy.deepcopy({"width": width, "alpha": alpha})
        along = numbers[where]["widths" if where == "width" else "alphas"]
        numbers[where][name] = [v * (x / along[-1]) ** change for v, x in zip(numbers[where][name], along, strict=True)]
        return lazy_training.claims(numbers["width"], numbers["alpha"])[index].holds

    for name in lazy_training.EXPONENTS:
        assert holds(0, "width", name, 0.0) and not holds(0, "width", name, 0.5) and not holds(0, "width", name, -0.5)
    assert not holds(1, "width", "kernel", 0.9)
    for name in ("all weights", "kernel", "linearised"):
        assert holds(3, "alpha", name, 0.0) and not holds(3, "alpha", name, 0.6)
    assert not holds(3, "alpha", "all weights", -0.5)
    assert not holds(4, "alpha", "linearised between", -0.5)


def test_without_dividing_the_loss_alpha_is_a_step_size() -> None:
    """Chizat's factor 1/alpha^2 is what makes the courses alike; without it a large alpha diverges."""
    with pytest.raises(DivergedError, match="alpha 1000: the loss is"):
        lazy_training.by_alphas([1000.0], 100, 1e-3 * 1000**2, 50, 1, 0)


def test_lists_are_ascending() -> None:
    with pytest.raises(ConfigError, match="alphas must be a list of at least three ascending"):
        lazy_training.reproduce(**{**SMALL, "alphas": [1.0, 0.1, 10.0]})
