"""Figures 1 and 2 of Jacot et al. 2018 on small networks; each claim fails for numbers that contradict it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from neuralfield.cli.configuration import config_folder
from neuralfield.errors import ConfigError, DivergedError
from neuralfield.reproduce import Reproduction
from neuralfield.reproduce import convergence_checks as checks
from neuralfield.reproduce.descent import descend
from neuralfield.reproduce.ntk_convergence import circle, limit, reproduce
from neuralfield.reproduce.wide import parameter_groups, train, wide_field

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "ntk_convergence_circle.json").read_text())
SMALL: dict[str, Any] = {
    "seed": 0, "widths": [32, 256], "initializations": 8, "trained": [8, 2], "steps": 100, "lr": 1.0, "n_train": 12,
    "angles": 25, "function_widths": [30, 240], "function_initializations": 8, "function_steps": 300,
}  # fmt: skip


@pytest.fixture(scope="module")
def result() -> Reproduction:
    return reproduce(**SMALL)


def test_the_file_has_exactly_these_options() -> None:
    assert set(yaml.safe_load((config_folder() / "reproduce" / "ntk_convergence.yaml").read_text())) == set(SMALL)


def test_the_limiting_kernels_are_those_of_independent_software() -> None:
    gamma = torch.tensor(ORACLE["gamma"], dtype=torch.float64)
    origin = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    kernels = limit().both(origin, circle(gamma))
    torch.testing.assert_close(kernels.ntk[0], torch.tensor(ORACLE["ntk"], dtype=torch.float64), rtol=1e-9, atol=0)
    torch.testing.assert_close(kernels.nngp[0], torch.tensor(ORACLE["nngp"], dtype=torch.float64), rtol=1e-9, atol=0)


def test_all_claims_hold_on_small_networks(result: Reproduction) -> None:
    assert [claim.text for claim in result.claims if not claim.holds] == []
    assert result.numbers["kernels"]["limit"][12] == pytest.approx(0.2825, abs=1e-4)  # the top of the figure's curve
    assert len(result.numbers["kernels"]["trained"][1]) == 2


def _of_kernels(result: Reproduction) -> dict[str, Any]:
    return copy.deepcopy(result.numbers["kernels"])


def test_a_wrong_limit_is_noticed(result: Reproduction) -> None:
    kernels = _of_kernels(result)
    kernels["limit"] = [1.5 * v for v in kernels["limit"]]
    assert not checks.of_kernels(kernels)[1].holds


def test_a_spread_that_does_not_shrink_is_noticed(result: Reproduction) -> None:
    kernels = _of_kernels(result)
    kernels["widths"] = [32, 32 * 400]  # a quotient of 20 would be expected
    assert not checks.of_kernels(kernels)[0].holds


def test_a_kernel_that_grows_as_much_when_wide_is_noticed(result: Reproduction) -> None:
    kernels = _of_kernels(result)
    kernels["initial"][1], kernels["trained"][1] = kernels["initial"][0], kernels["trained"][0]
    assert not checks.of_kernels(kernels)[2].holds


def test_another_regression_is_noticed(result: Reproduction) -> None:
    functions = copy.deepcopy(result.numbers["functions"])
    functions["mean"] = [0.5 * v for v in functions["mean"]]
    functions["regression"] = [[[0.5 * v for v in row] for row in width] for width in functions["regression"]]
    assert [claim.holds for claim in checks.of_functions(functions)] == [False, False]


def test_descent_along_the_factors_is_descent_with_an_optimizer() -> None:
    x, y = torch.randn(7, 2, dtype=torch.float64), torch.randn(7, 1, dtype=torch.float64)
    one, two = (wide_field(2, 1, 20, 3, 1.0, 0.1, seed=3, dtype=torch.float64) for _ in range(2))
    losses = list(descend(one, x, y, 0.7, 30, 1.0, 0.1))
    optimizer = torch.optim.SGD(parameter_groups(two, 0.7, "ntk", 1.0, 0.1), lr=0.7)
    expected = train(two, x, y, optimizer, 30, "mean")
    assert losses == pytest.approx(expected[:-1], rel=1e-12)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_bad_options() -> None:
    with pytest.raises(ConfigError, match="widths must be two numbers, the smaller first"):
        reproduce(**{**SMALL, "widths": [64, 32]})
    with pytest.raises(DivergedError, match="smaller learning rate"):
        list(descend(wide_field(2, 1, 50, 3, 1.0, 0.1), torch.randn(9, 2), torch.randn(9, 1), 1e4, 200, 1.0, 0.1))
