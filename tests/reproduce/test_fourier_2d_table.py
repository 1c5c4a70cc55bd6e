"""The table of Tancik et al. 2020 on thumbnails; each claim fails for numbers that contradict it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from neuralfield.cli.configuration import config_folder
from neuralfield.errors import ConfigError
from neuralfield.reproduce import Reproduction, table_images
from neuralfield.reproduce.fourier_2d_table import BUDGETS, ENCODINGS, Setup, check, reproduce

SMALL: dict[str, Any] = {
    "seed": 0, "device": "cpu", "budget": "small", "size": 64, "photographs": 1, "texts": 1, "search_images": 1, "steps": 150,
    "batch_size": "full", "width": 64, "n_features": 64, "gaussian_sigmas": [0.5, 3, 20], "positional_octaves": [1, 3, 5],
}  # fmt: skip


@pytest.fixture(scope="module")
def result() -> Reproduction:
    return reproduce(**SMALL)


def test_the_file_has_exactly_these_options() -> None:
    assert set(yaml.safe_load((config_folder() / "reproduce" / "fourier_2d_table.yaml").read_text())) == set(SMALL)
    assert BUDGETS["small"].keys() == BUDGETS["full"].keys() <= set(SMALL)


def test_the_table_holds_on_thumbnails(result: Reproduction) -> None:
    mean = result.numbers["mean"]
    for kind in ("photographs", "text"):
        assert mean[kind]["none"] < mean[kind]["basic"] < mean[kind]["positional"]
        assert mean[kind]["basic"] + 0.5 < mean[kind]["Gaussian"]
    assert result.claims[3].holds  # a best sigma between the extremes


def test_numbers_that_contradict_a_claim_are_noticed(result: Reproduction) -> None:
    numbers: dict[str, Any] = copy.deepcopy(result.numbers)
    for kind in numbers["psnr"]:
        numbers["psnr"][kind] = {name: [20.0 + i] for i, name in enumerate(ENCODINGS)}
        numbers["search"][kind]["Gaussian"]["psnr"] = [20.0, 22.0, 21.0]
    assert all(claim.holds for claim in check(numbers))
    swapped = copy.deepcopy(numbers)
    swapped["psnr"]["photographs"]["basic"] = [19.0]
    assert [claim.holds for claim in check(swapped)] == [False, True, True, True]
    swapped = copy.deepcopy(numbers)
    swapped["psnr"]["text"]["Gaussian"] = [21.5]
    assert [claim.holds for claim in check(swapped)] == [True, False, False, True]
    swapped = copy.deepcopy(numbers)
    swapped["search"]["text"]["Gaussian"]["psnr"] = [20.0, 22.0, 23.0]
    assert [claim.holds for claim in check(swapped)] == [True, True, True, False]


def test_the_figure_is_written(result: Reproduction, tmp_path: Path) -> None:
    result.save(tmp_path)
    assert (tmp_path / "figure.png").stat().st_size > 50_000


def test_encodings_are_those_of_the_paper() -> None:
    setup = Setup(0, "cpu", 256, 256, 1, "full")
    signal = table_images.text(0, 0, 32)
    fields = {name: setup.fit(signal, name, 4.0)[0] for name in ENCODINGS}
    assert {name: field.encoding.out_dim for name, field in fields.items()} == {
        "none": 2, "basic": 4, "positional": 512, "Gaussian": 512,
    }  # fmt: skip
    assert [layer.out_features for layer in fields["Gaussian"].network.linear_layers()] == [256, 256, 256, 3]
    assert float(fields["positional"].encoding.frequencies.max()) == pytest.approx(16)  # 2^4 cycles
    assert float(fields["Gaussian"].encoding.frequencies.std()) == pytest.approx(4, rel=0.1)


def test_images() -> None:
    page, other = table_images.text(0, 0, 96), table_images.text(1, 0, 96)
    assert page.shape == (96, 96) and page.split.n_train == page.split.n_heldout == 48**2
    assert page.fingerprint() != other.fingerprint() and page.fingerprint() == table_images.text(0, 0, 96).fingerprint()
    assert float(np.ptp(page.preview().astype(float))) > 100  # ink on paper
    assert table_images.photograph("chelsea", 64).shape == (64, 64)
    assert table_images.photograph("chelsea", 512).shape == (300, 300)  # never enlarged
    assert not set(table_images.SEARCHED) & set(table_images.MEASURED)


def test_bad_options() -> None:
    with pytest.raises(ConfigError, match="budget must be"):
        reproduce(**{**SMALL, "budget": "large"})
    with pytest.raises(ConfigError, match="gaussian_sigmas must be at least three"):
        reproduce(**{**SMALL, "steps": 1, "gaussian_sigmas": [1, 2]})
