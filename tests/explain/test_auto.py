"""Choosing sigma and the encoding by prediction."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import neuralfield as nf
from neuralfield.errors import ConfigError
from neuralfield.explain.auto import encoding_for, middle_good, search, sigma_for
from neuralfield.fitting.options import FitOptions
from tests.conftest import Ran

NETWORK = {"width": 32, "depth": 2}


def test_the_rule_takes_the_middle_of_the_range_within_a_tenth_of_a_decibel() -> None:
    sigma, maximum, at, flat = middle_good([1.0, 2.0, 4.0, 8.0, 16.0], [20.0, 24.95, 25.0, 24.95, 20.0])
    assert maximum == pytest.approx(25) and at == 4
    assert 1 < flat[0] <= 2 and 8 <= flat[1] < 16 and sigma == pytest.approx(math.sqrt(flat[0] * flat[1]), rel=0.05)
    assert middle_good([3.0], [20.0]) == (3.0, 20.0, 3.0, (3.0, 3.0))


@pytest.mark.parametrize("peak", [-4.3, -1.0, 0.4, 2.5, 6.2])
def test_the_search_finds_a_peak_wherever_it_is(peak: float) -> None:
    asked = []

    def evaluate(sigma: float) -> float:
        asked.append(sigma)
        return 25 - (math.log2(sigma) - peak) ** 2

    sigmas, psnr = search(evaluate, [2.0**k for k in range(-2, 4)])
    found = middle_good(sigmas, psnr)
    assert found[1] == pytest.approx(25, abs=0.05)
    assert math.log2(found[0]) == pytest.approx(peak, abs=0.12)
    # 25 - d^2 = 25 - 0.1 at d = 0.32 octaves beside the peak.
    assert [math.log2(s) for s in found[3]] == pytest.approx([peak - math.sqrt(0.1), peak + math.sqrt(0.1)], abs=0.15)
    assert len(asked) == len(set(asked)) <= 12 and sigmas == sorted(sigmas)


def test_a_flat_curve_is_followed_to_where_it_ends() -> None:
    sigmas, psnr = search(lambda sigma: 25 - max(0.0, abs(math.log2(sigma)) - 3), [2.0**k for k in range(-2, 3)])
    found = middle_good(sigmas, psnr)
    assert found[0] == pytest.approx(1, rel=0.05) and found[3] == pytest.approx((2.0**-3.1, 2.0**3.1), rel=0.15)


def _wave(cycles: float, side: int = 64) -> np.ndarray:
    y, x = np.mgrid[0:side, 0:side] / side
    values = 0.5 + 0.2 * np.sin(2 * np.pi * cycles * x) + 0.2 * np.cos(2 * np.pi * cycles * (y + 0.3 * x))
    return values.astype(np.float32)


def test_finer_images_get_a_larger_sigma_and_so_do_shorter_fits() -> None:
    options = FitOptions(steps=400)
    coarse = sigma_for(nf.ImageSignal.from_array(_wave(1.5), holdout="every_other"), {}, NETWORK, options)
    fine_signal = nf.ImageSignal.from_array(_wave(7), holdout="every_other")
    fine = sigma_for(fine_signal, {}, NETWORK, options)
    assert fine.sigma > 1.5 * coarse.sigma
    assert fine.flat[0] <= fine.at <= fine.flat[1] and fine.maximum >= max(fine.heldout_psnr) - 1e-6
    assert not fine.assumed_holdout and "dB" in str(fine) and f"{fine.sigma:g}" in str(fine)


def test_from_python_the_field_has_the_number(capsys: pytest.CaptureFixture[str]) -> None:
    field = nf.fit(_wave(3, 32), {"name": "fourier", "sigma": "auto", "n_features": 32}, NETWORK, steps=20)
    sigma = field.config["encoding"]["sigma"]
    assert isinstance(sigma, float) and sigma > 0
    shown = capsys.readouterr().out
    assert f"sigma=auto took {sigma:g} for 20 steps" in shown and "every other pixel held out" in shown


def test_the_encoding_is_the_simplest_of_the_best() -> None:
    signal = nf.ImageSignal.from_array(_wave(3, 32), holdout="every_other")
    chosen, why = encoding_for(signal, NETWORK, FitOptions(steps=60))
    assert set(why.heldout_psnr) == {"none", "positional", "fourier", "hashgrid"}
    top = max(why.heldout_psnr.values())
    good = [name for name, value in why.heldout_psnr.items() if value >= top - 0.5]
    assert chosen["name"] == good[0] == why.name and why.name in str(why)


def test_a_run_records_its_choice(command: Callable[..., Ran], tmp_path: Path) -> None:
    ran = command(
        "fit", "signal.crop=32", "signal.holdout=every_other", "fit.steps=15", "network.width=16", "network.depth=1",
        "encoding=fourier", "encoding.sigma=auto", "encoding.n_features=16", "hydra.run.dir=out",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    metrics: dict[str, Any] = json.loads((tmp_path / "out" / "metrics.json").read_text())
    sigma = metrics["auto"]["sigma"]
    assert metrics["auto"]["encoding"]["sigma"] == sigma and len(metrics["auto"]["sigmas"]) >= 4
    assert nf.load(tmp_path / "out" / "field.safetensors").config["encoding"]["sigma"] == sigma
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["encoding"]["sigma"] == "auto"
    assert f"sigma=auto took {sigma:g}" in ran.out


@pytest.mark.parametrize(
    ("image", "encoding", "options", "words"),
    [
        (np.full((32, 32), 0.4, np.float32), {"name": "fourier", "sigma": "auto"}, {}, "same value everywhere"),
        (_wave(3, 32), {"name": "fourier", "sigma": "auto"}, {"seconds": 1, "steps": "auto"}, "give sigma a number"),
        (_wave(3, 32), {"name": "fourier", "sigma": "auto"}, {"loss": "l1"}, "mse"),
        (_wave(3, 32), {"name": "auto", "sigma": 3}, {}, "leave out sigma"),
    ],
)
def test_what_cannot_be_chosen_is_explained(
    image: np.ndarray, encoding: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        nf.fit(image, encoding, NETWORK, progress=False, **{"steps": 20, **options})
