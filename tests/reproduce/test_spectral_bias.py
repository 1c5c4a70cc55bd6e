"""Modes decay at their eigenvalues' rates; the claim holds for a wide network and fails for wrong theories."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from neuralfield.reproduce import spectral_bias
from neuralfield.reproduce.report import Reproduction
from neuralfield.reproduce.spectral_bias import Rates

SMALL: dict[str, Any] = {
    "width": 4096,
    "depth": 1,
    "n_points": 16,
    "steps": 500,
    "amplitude": 0.05,
    "w_std": 2**0.5,
    "b_std": 1.0,
    "seed": 0,
}


@pytest.fixture(scope="module")
def result() -> Reproduction:
    return spectral_bias.reproduce(**SMALL)


def rates_of(result: Reproduction, name: str) -> Rates:
    return Rates(**{key: result.numbers[name][key] for key in Rates.__dataclass_fields__})


def own_claim(result: Reproduction, own: Rates) -> bool:
    numbers = result.numbers
    return spectral_bias.claims(own, rates_of(result, "infinite"), numbers["loss"], numbers["loss_predicted"])[0].holds


def test_a_wide_network_decays_mode_by_mode(result: Reproduction, tmp_path: Path) -> None:
    assert [claim.holds for claim in result.claims] == [True] * 4, result.claims
    assert result.numbers["own"]["modes"] >= 12
    assert result.numbers["loss"][-1] < 1e-2 * result.numbers["loss"][0]
    result.save(tmp_path)
    assert (tmp_path / "figure.png").stat().st_size > 20_000


def test_a_theory_off_by_two_or_with_the_modes_shuffled_is_caught(result: Reproduction) -> None:
    own = rates_of(result, "own")
    assert own_claim(result, own)
    for factor in (0.5, 2.0):
        assert not own_claim(result, replace(own, eigenvalue=[factor * value for value in own.eigenvalue]))
    order = torch.randperm(len(own.eigenvalue), generator=torch.Generator().manual_seed(1)).tolist()
    assert not own_claim(result, replace(own, eigenvalue=[own.eigenvalue[i] for i in order]))
    # The loss foreseen with the rates of the loss "mean", 1/n of those of "sum".
    slow = spectral_bias.claims(
        own, own, result.numbers["loss"], [result.numbers["loss"][0]] * len(result.numbers["steps"])
    )
    assert not slow[-1].holds


def test_a_narrow_network_at_a_large_target_is_not_lazy() -> None:
    narrow = spectral_bias.reproduce(**{**SMALL, "width": 32, "amplitude": 3.0, "steps": 200})
    assert not narrow.claims[1].holds


def test_rates_of_exact_gradient_descent_are_the_eigenvalues() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64)).Q
    values = torch.tensor([8.0, 5, 5, 3, 2, 1, 0.5, 0.3, 0.2, 0.1, 0.05, 1e-4], dtype=torch.float64)
    lr, at = 0.05, list(range(0, 400, 2))
    errors = torch.stack([vectors @ ((1 - lr * values) ** t * values.sqrt()) for t in at])
    found = spectral_bias.rates(errors, at, values, vectors, lr)
    assert len(found.eigenvalue) == 11  # the equal pair is one
    assert found.fitted == list(range(10))  # the smallest has not moved
    for i in found.fitted:
        assert found.measured[i] == pytest.approx(found.eigenvalue[i], rel=1e-9)
    assert found.agreement()["slope"] == pytest.approx(1, abs=1e-9)


def test_what_leaks_into_an_empty_mode_is_no_rate() -> None:
    values, at = torch.tensor([4.0, 2, 1, 0.5], dtype=torch.float64), [0, 1, 2, 3, 4]
    start = values.sqrt() * torch.tensor([1.0, 1, 0.1, 1])
    errors = torch.stack([(1 - 0.1 * values) ** t * start for t in at])
    assert spectral_bias.rates(errors, at, values, torch.eye(4, dtype=torch.float64), 0.1).fitted == [0, 1, 3]
