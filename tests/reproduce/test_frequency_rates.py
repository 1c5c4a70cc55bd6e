"""Times to learn frequencies follow the kernel's spectrum: the claims hold for wide networks and fail for wrong theories."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from neuralfield.errors import ConfigError
from neuralfield.reproduce import frequency_rates
from neuralfield.reproduce.frequency_rates import Course
from neuralfield.reproduce.report import Claim, Reproduction

SMALL: dict[str, Any] = {
    "width": 4096,
    "n_points": 24,
    "highest": 8,
    "steps": 1200,
    "amplitude": 0.01,
    "w_std": 2**0.5,
    "b_std": 1.0,
    "seed": 0,
}


@pytest.fixture(scope="module")
def result() -> Reproduction:
    return frequency_rates.reproduce(**SMALL)


def course(result: Reproduction, name: str) -> Course:
    values = result.numbers[name]
    return Course(**{**values, "shares": torch.tensor(values["shares"], dtype=torch.float64)})


def check(result: Reproduction, biased: Course, bare: Course) -> list[Claim]:
    laws = (frequency_rates.spectrum(1024, SMALL["w_std"], b) for b in (SMALL["b_std"], None))
    return frequency_rates.claims(result.numbers["frequencies"], biased, bare, *laws)


def test_wide_networks_learn_frequencies_when_the_spectrum_says(result: Reproduction, tmp_path: Path) -> None:
    law, times, _, order, odd = result.claims
    assert law.holds and times.holds and order.holds and odd.holds, result.claims
    result.save(tmp_path)
    assert (tmp_path / "figure.png").stat().st_size > 20_000


def test_wrong_times_and_wrong_networks_are_caught(result: Reproduction) -> None:
    biased, bare = course(result, "biased"), course(result, "bare")
    assert [claim.holds for claim in check(result, biased, bare)][:2] == [True, True]
    for factor in (0.5, 2.0):
        wrong = replace(biased, predicted=[factor * time for time in biased.predicted])
        assert not check(result, wrong, bare)[1].holds
    linear = replace(biased, times=[10.0 * k for k in result.numbers["frequencies"]])
    assert not check(result, linear, bare)[2].holds
    assert not check(result, replace(biased, times=biased.times[::-1]), bare)[3].holds
    assert not check(result, biased, biased)[4].holds  # a network with biases does learn odd frequencies


def test_the_infinite_kernel_has_the_exponents_of_the_paper() -> None:
    law = frequency_rates.spectrum(2048, 2**0.5, None)
    assert float(law[3::2].abs().max() / law.max()) < 1e-12
    ks = range(8, 65, 2)
    assert frequency_rates.slope(ks, [float(law[k]) for k in ks]) == pytest.approx(-2.02, abs=0.01)


def test_half_times_of_exact_gradient_descent() -> None:
    values, lr = torch.tensor([1.0, 0.1, 0.01, 0.0], dtype=torch.float64), 0.2
    steps = list(range(400))
    shares = torch.stack([1 - (1 - lr * values) ** step for step in steps])
    expected = frequency_rates.predicted_times(values, lr)
    assert expected[1] == pytest.approx(math.log(0.5) / math.log(0.98)) and expected[3] == math.inf
    found = frequency_rates.half_times(steps, shares)
    assert found[1:3] == pytest.approx(expected[1:3], rel=1e-3) and found[3] == math.inf


def test_points_must_resolve_the_frequencies() -> None:
    with pytest.raises(ConfigError, match="n_points must be between 17"):
        frequency_rates.reproduce(**{**SMALL, "n_points": 12})
