"""Figures 2 to 4 of Tancik et al. 2020, smaller; each claim fails for numbers that contradict it."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from neuralfield.cli.configuration import config_folder
from neuralfield.errors import ConfigError
from neuralfield.reproduce import Reproduction
from neuralfield.reproduce import fourier_1d_claims as claims
from neuralfield.reproduce.fourier_1d import composed_kernel, course, errors, reproduce, target
from neuralfield.reproduce.fourier_1d_families import FAMILIES, closed_form, encoding, power_law

ROWS = json.loads((Path(__file__).parents[1] / "oracles" / "fourier_1d_rows.json").read_text())
SMALL: dict[str, Any] = {
    "seed": 0, "powers": [0, 1, math.inf], "trained": [0, 1, math.inf], "width": 512, "lr": 3e-3, "steps": 120,
    "stds": [1, 2, 4, 8, 16, 32, 64], "alphas": [0.5, 1.5], "points": 128, "signals": 3, "draws": 2,
    "fit_stds": [1, 8, 64], "fit_steps": 60,
}  # fmt: skip


@pytest.fixture(scope="module")
def result() -> Reproduction:
    return reproduce(**SMALL)


def test_the_file_has_exactly_these_options() -> None:
    given = yaml.safe_load((config_folder() / "reproduce" / "fourier_1d.yaml").read_text())
    assert set(given) == set(SMALL) and given["powers"][-1] == math.inf


@pytest.mark.parametrize("p", ["0", "1", "1.5", "inf"])
def test_kernel_rows_are_those_of_independent_software(p: str) -> None:
    row = composed_kernel(float(p))["row"]
    assert row[0] == pytest.approx(14.0, abs=1e-12)
    assert row == pytest.approx(ROWS[p], rel=1e-11)


def test_all_claims_hold_at_reduced_size(result: Reproduction) -> None:
    assert [claim.measured for claim in result.claims if not claim.holds] == []


def test_theory_at_another_speed_is_noticed(result: Reproduction) -> None:
    """A kernel that is off by 60 % shifts the predicted loss curves in time."""
    numbers = copy.deepcopy(result.numbers)
    for c in numbers["courses"]:
        fine = [min(range(len(c["steps"])), key=lambda j: abs(c["steps"][j] - 1.6 * s)) for s in c["steps"]]
        for part in (c["theory"], *(c["theory"]["bands"],)):
            for key, values in part.items():
                if key != "bands":
                    part[key] = [values[i] for i in fine]
    early, _, bands = claims.of_courses(numbers)
    assert not early.holds and not bands.holds


def test_families_that_matter_are_noticed(result: Reproduction) -> None:
    numbers = copy.deepcopy(result.numbers)
    numbers["closed_form"] = [
        [[v + f for v in row] for row in family] for f, family in enumerate(numbers["closed_form"])
    ]
    assert not claims.of_families(numbers)[0].holds
    numbers["closed_form"] = [[[float(s)] * 2 for s in range(7)]] * 4  # error that only grows with the deviation
    assert not claims.of_families(numbers)[1].holds


def test_kernels_of_another_height_or_order_are_noticed(result: Reproduction) -> None:
    numbers = copy.deepcopy(result.numbers)
    numbers["kernels"][0]["row"][0] = 13.9
    assert not claims.of_kernels(numbers)[0].holds
    numbers["kernels"].reverse()
    assert [claim.holds for claim in claims.of_kernels(numbers)[1:]] == [False, False]


def test_a_prediction_starts_where_the_network_starts() -> None:
    found = course(1.0, 64, 1e-3, 12, 0)
    for which in ("theory", "own_kernel"):
        assert found[which]["train"][0] == pytest.approx(found["observed"]["train"][0], rel=1e-6)
        assert found[which]["test"][0] == pytest.approx(found["observed"]["test"][0], rel=1e-6)


def test_bands_are_parts_of_the_error() -> None:
    x = torch.arange(256, dtype=torch.float64) / 256
    found = errors((0.3 * torch.cos(2 * math.pi * 2 * x) + 0.4 * torch.sin(2 * math.pi * 7 * x))[None])
    assert found["test"] == pytest.approx([0.125])
    assert [v[0] for v in found["bands"].values()] == pytest.approx([0.045, 0, 0.08], abs=1e-12)
    y = target(0)
    assert float(y.min()) == -0.5 and float(y.max()) == 0.5
    assert float(torch.fft.rfft(y).abs()[9:].max()) < 1e-10


@pytest.mark.parametrize("family", FAMILIES)
def test_families_have_the_standard_deviation_asked_for(family: str) -> None:
    features = encoding(family, 20.0, 3)
    assert float(features.frequencies.square().mean().sqrt()) == pytest.approx(20)
    x = torch.rand(5, 1, dtype=torch.float64)
    assert features(x).norm(dim=1).tolist() == pytest.approx([1.0] * 5, rel=1e-6)


def test_smooth_signals_are_interpolated_and_noise_is_not() -> None:
    features = encoding("Gaussian", 4.0, 0)
    smooth, rough = power_law(3.0, 64, 4, 0), power_law(0.0, 64, 4, 0)
    assert float(closed_form(features, smooth).max()) < 0.02 * float(closed_form(features, rough).min())


def test_bad_options() -> None:
    with pytest.raises(ConfigError, match="powers must be"):
        reproduce(**{**SMALL, "powers": [1, 0]})
    with pytest.raises(ConfigError, match="largest stable one"):
        reproduce(**{**SMALL, "lr": 0.1})
    with pytest.raises(ConfigError, match="fit_stds"):
        reproduce(**{**SMALL, "fit_stds": [3]})
