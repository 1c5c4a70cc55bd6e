"""Figure 3 of Jacot et al. 2018 on few points; each claim fails for numbers that contradict it."""

from __future__ import annotations

import copy
import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from neuralfield.cli.configuration import config_folder
from neuralfield.errors import ConfigError, MissingDependency
from neuralfield.reproduce import Reproduction
from neuralfield.reproduce.handwriting import digits
from neuralfield.reproduce.kernel_modes import check, principal_components, reproduce

SMALL: dict[str, Any] = {
    "seed": 0, "data": "drawn", "n": 96, "widths": [48, 384], "trials": 2, "kernel_draws": 60, "mode": 2, "horizon": 3.0,
    "step": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def result() -> Reproduction:
    return reproduce(**SMALL)


def test_the_file_has_exactly_these_options() -> None:
    assert set(yaml.safe_load((config_folder() / "reproduce" / "kernel_modes.yaml").read_text())) == set(SMALL)


def test_all_claims_hold_on_few_points(result: Reproduction) -> None:
    assert [claim.text for claim in result.claims if not claim.holds] == []


@pytest.mark.parametrize(
    ("what", "claim"),
    [("the next eigenvalue", 1), ("no dependence on the width", 2), ("narrow is slower", 3), ("h stays", 4)],
)
def test_numbers_that_contradict_a_claim_are_noticed(result: Reproduction, what: str, claim: int) -> None:
    numbers = copy.deepcopy(result.numbers)
    if what == "the next eigenvalue":
        numbers["eigenvalues"][1] = numbers["eigenvalues"][2]
    narrow, wide = ([run for run in numbers["runs"] if run["width"] == w] for w in SMALL["widths"])
    if what == "no dependence on the width":
        for a, b in zip(narrow, wide, strict=True):
            b["g"] = a["g"]
    if what == "narrow is slower":
        for a, b in zip(narrow, wide, strict=True):
            a["g"], b["g"] = b["g"], a["g"]
    if what == "h stays":
        for a, b in zip(narrow, wide, strict=True):
            b["h"] = a["h"]
    assert not check(numbers, SMALL["widths"])[claim].holds


def test_principal_components_are_eigenfunctions_of_unit_mean_square() -> None:
    a = torch.randn(30, 9, dtype=torch.float64)
    values, components = principal_components(a @ a.T)
    assert values[:9].tolist() == sorted(values[:9].tolist(), reverse=True)
    torch.testing.assert_close(a @ a.T @ components / 30, components * values, rtol=0, atol=1e-9)
    torch.testing.assert_close(components.square().mean(dim=0), torch.ones(30, dtype=torch.float64))


def test_drawn_digits_are_pictures_that_can_be_told_apart() -> None:
    x, labels = digits("drawn", 400, 0)
    assert x.shape == (400, 64) and 0 <= float(x.min()) < 0.01 and 0.6 < float(x.max()) <= 1
    assert torch.equal(x, digits("drawn", 400, 0)[0]) and not torch.equal(x, digits("drawn", 400, 1)[0])
    distance = torch.cdist(x, x).fill_diagonal_(torch.inf)
    assert float((labels[distance.argmin(dim=1)] == labels).float().mean()) > 0.7  # 0.1 by chance


def test_scikit_learns_digits() -> None:
    if importlib.util.find_spec("sklearn") is None:
        with pytest.raises(MissingDependency, match="pip install scikit-learn"):
            digits("digits", 10, 0)
        pytest.skip("scikit-learn is not installed")
    x, labels = digits("digits", 100, 0)
    assert x.shape == (100, 64) and float(x.max()) == 1.0 and set(np.unique(labels)) <= set(range(10))


def test_bad_options() -> None:
    with pytest.raises(ConfigError, match="ascending"):
        reproduce(**{**SMALL, "widths": [100]})
    with pytest.raises(ConfigError, match="step must be"):
        reproduce(**{**SMALL, "step": 2.5})
