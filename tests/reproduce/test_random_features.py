"""Training the last layer is kernel regression, exactly; wrong kernels, step sizes and exponents are caught."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from neuralfield.errors import ConfigError
from neuralfield.reproduce import random_features
from neuralfield.reproduce.wide import circle

SMALL: dict[str, Any] = {
    "widths": [32, 128, 512],
    "depth": 1,
    "draws": 24,
    "n_points": 8,
    "steps": 150,
    "checked": 1,
    "w_std": 2**0.5,
    "b_std": 0.1,
    "seed": 0,
}


def test_the_trained_last_layer_is_kernel_regression_and_tends_to_the_nngp(tmp_path: Path) -> None:
    result = random_features.reproduce(**SMALL)
    assert result.holds, result.claims
    assert max(result.numbers["largest_difference_to_closed_form"]) < 1e-10
    result.save(tmp_path)
    assert (tmp_path / "figure.png").stat().st_size > 20_000


@pytest.mark.parametrize("wrong", ["step size", "kernel", "bias"])
def test_a_wrong_closed_form_is_caught(wrong: str) -> None:
    w_std, b_std, steps = 2**0.5, 0.3, 60
    x, x_test = circle(8), circle(24)
    y = random_features.target(x)
    field = random_features.last_layer_field(64, 1, w_std, b_std, seed=3)
    kernel = random_features.features_product(field, x, x, w_std, b_std)
    test = random_features.features_product(field, x_test, x, w_std, b_std)
    lr = 1 / float(torch.linalg.eigvalsh(kernel)[-1])
    trained = random_features.train_last_layer(field, x, y, x_test, lr, steps, w_std, b_std)
    right = random_features.regression(kernel, test, y, lr, [steps])[0]
    changed = {
        "step size": (kernel, test, 0.5 * lr),
        "kernel": (kernel / 2, test / 2, lr),
        "bias": (kernel - b_std**2, test - b_std**2, lr),
    }[wrong]
    off = random_features.regression(changed[0], changed[1], y, changed[2], [steps])[0]
    difference = {name: float((trained - values).abs().max()) for name, values in (("right", right), ("wrong", off))}
    assert random_features.claims([2, 8], {2: difference["right"]}, {2: 0.0}, {2: 1.0, 8: 0.5})[0].holds
    assert not random_features.claims([2, 8], {2: difference["wrong"]}, {2: 0.0}, {2: 1.0, 8: 0.5})[0].holds


def test_a_wrong_exponent_is_caught() -> None:
    widths = [16, 64, 256]
    for exponent, holds in ((-0.5, True), (-1.0, False), (-0.25, False), (0.0, False)):
        rms = {width: width**exponent for width in widths}
        assert random_features.claims(widths, {16: 0.0}, {16: 0.0}, rms)[2].holds == holds


def test_infinitely_many_steps_interpolate_the_targets() -> None:
    x = circle(8)
    field = random_features.last_layer_field(64, 1, 2**0.5, 0.1, seed=0)
    kernel = random_features.feature_kernel(field, x, x, 2**0.5, 0.1)
    y = random_features.target(x)
    found = random_features.regression(kernel, kernel, y, 0.1 / float(kernel.trace()), [math.inf])[0]
    assert float((found - y).abs().max()) < 1e-8


def test_widths_are_ascending_numbers() -> None:
    for widths in ([64], [64, 32], [32, 32]):
        with pytest.raises(ConfigError, match="widths must be a list of at least two ascending"):
            random_features.reproduce(**{**SMALL, "widths": widths})
