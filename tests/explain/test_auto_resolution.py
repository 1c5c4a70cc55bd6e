"""Choosing a hash grid's finest level and number of levels by prediction."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import neuralfield as nf
from neuralfield.cli import explain as explain_command
from neuralfield.encodings.hashgrid.layout import growth_factor
from neuralfield.errors import ConfigError
from neuralfield.explain import auto
from neuralfield.explain.auto import AutoSigma
from neuralfield.explain.auto_resolution import AutoResolution, climb, levels_for, resolution_for, resolutions
from neuralfield.fitting.options import FitOptions
from tests.conftest import Ran

NETWORK = {"width": 16, "depth": 1}
GRID = {"n_levels": 4, "base_resolution": 2}


def _smooth(side: int = 32) -> np.ndarray:
    y, x = np.mgrid[0:side, 0:side] / side
    return (0.5 + 0.4 * np.sin(2 * np.pi * x) * np.cos(2 * np.pi * y)).astype(np.float32)


def _fine(side: int = 32) -> np.ndarray:
    y, x = np.mgrid[0:side, 0:side] / side
    return (0.5 + 0.4 * np.sin(2 * np.pi * 6 * x) * np.cos(2 * np.pi * 5 * y)).astype(np.float32)


def test_octaves_from_twice_the_coarsest_level_to_beyond_the_lattice() -> None:
    assert resolutions(256, 16) == [32, 64, 128, 256, 512]
    assert resolutions(48, 16) == [34, 48, 68, 96]  # few octaves, so halves of them
    assert resolutions(8, 16) == [16] and resolutions(10, 64) == [128]


@pytest.mark.parametrize(("lattice", "base"), [(256, 16), (48, 16), (500, 8)])
def test_levels_keep_the_usual_ratio(lattice: float, base: int) -> None:
    usual = growth_factor(16, base, lattice)
    assert levels_for(lattice, lattice, base).n_levels == 16
    for resolution in (lattice / 2, lattice / 1.3, 1.6 * lattice):
        levels = levels_for(resolution, lattice, base)
        assert levels.growth == pytest.approx(usual)
        ratio = growth_factor(levels.n_levels, base, resolution)
        # The nearest whole number of levels is at most half a level off.
        exact = 1 + math.log(resolution / base) / math.log(usual)
        assert abs(levels.n_levels - exact) <= 0.5 and ratio == pytest.approx(usual, rel=0.12)
    assert levels_for(base, base, base).n_levels == 16 and "times finer" in str(levels_for(lattice, lattice, base))


@pytest.mark.parametrize("peak", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("start", [0, 3, 4])
def test_the_climb_finds_the_top_and_what_is_as_good_below_it(peak: int, start: int) -> None:
    places, asked = [32.0, 64.0, 128.0, 256.0, 512.0], []

    def evaluate(place: float) -> float:
        asked.append(place)
        octaves = math.log2(place / 32) - peak
        return 25 - (0.06 * -octaves if -1 <= octaves <= 0 else abs(octaves))

    found = climb(evaluate, places, start)
    assert max(found, key=lambda place: found[place]) == places[peak] and len(asked) == len(set(asked))
    good = [place for place in places if evaluate(place) >= 24.9]
    assert good[0] in found and list(found) == sorted(found)


def test_a_smooth_image_gets_a_coarser_grid_than_a_fine_one() -> None:
    options = FitOptions(steps=100)
    make = lambda image: nf.ImageSignal.from_array(image, holdout="every_other")  # noqa: E731
    smooth = resolution_for(make(_smooth()), GRID, NETWORK, options)
    fine = resolution_for(make(_fine()), GRID, NETWORK, options)
    assert smooth.resolution < fine.resolution
    for found in (smooth, fine):
        assert found.n_levels == 4 and found.maximum == max(found.heldout_psnr)
        good = [r for r, v in zip(found.resolutions, found.heldout_psnr, strict=True) if v >= found.maximum - 0.1]
        assert found.resolution == good[0] and found.flat[0] <= found.at <= found.flat[1]
        assert f"took {found.resolution:g} (4 levels) for 100 steps" in str(found)


def test_from_python_the_field_has_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    encoding = {"name": "hashgrid", "max_resolution": "predicted", "n_levels": "predicted", "base_resolution": 4}
    field = nf.fit(_smooth(24), encoding, NETWORK, steps=12)
    kept = field.config["encoding"]
    shown = capsys.readouterr().out
    assert f"max_resolution=predicted took {kept['max_resolution']:g} ({kept['n_levels']} levels)" in shown
    assert kept["n_levels"] == levels_for(kept["max_resolution"], 12, 4).n_levels and "every other pixel" in shown


def test_levels_alone_need_no_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    encoding = {"name": "hashgrid", "max_resolution": 12.0, "n_levels": "predicted", "base_resolution": 4}
    field = nf.fit(_smooth(24), encoding, NETWORK, steps=1)
    assert field.config["encoding"]["n_levels"] == levels_for(12, 24, 4).n_levels != 16
    assert "n_levels=predicted took" in capsys.readouterr().out


def test_auto_keeps_its_meaning() -> None:
    field = nf.fit(_smooth(24), {"name": "hashgrid", "max_resolution": "auto"}, NETWORK, steps=1, progress=False)
    assert field.config["encoding"]["max_resolution"] == 24 and field.config["encoding"]["n_levels"] == 16


@pytest.mark.parametrize("holdout", ["every_other", "none"])
def test_the_choice_among_encodings_takes_the_grid_that_was_chosen(
    holdout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {"steps": 20, "seconds": 0.0, "assumed_holdout": False}
    bandwidth = AutoSigma(sigma=2.0, sigmas=[2.0], heldout_psnr=[20.0], maximum=20.0, at=2.0, flat=(2.0, 2.0), **told)
    finest = AutoResolution(
        resolution=23.0, n_levels=16, resolutions=[16.0, 23.0], heldout_psnr=[20.0, 30.0], maximum=30.0, at=23.0,
        flat=(23.0, 23.0), **told,
    )  # fmt: skip
    seen = {}

    def predict(field: nf.Field, *_: Any) -> SimpleNamespace:
        options = field.config["encoding"]
        seen[options["name"]] = options
        return SimpleNamespace(heldout_psnr=np.array([30.0 if options["name"] == "hashgrid" else 20.0]))

    monkeypatch.setattr(auto, "sigma_for", lambda *_: bandwidth)
    monkeypatch.setattr(auto, "resolution_for", lambda *_: finest)
    monkeypatch.setattr("neuralfield.explain.chosen.predict", predict)
    signal = nf.ImageSignal.from_array(_fine(32), holdout=holdout)
    chosen, why = auto.encoding_for(signal, NETWORK, FitOptions(steps=20))
    # With nothing held out, aliasing hurts nobody: the grid goes down to the training lattice.
    wanted = {"name": "hashgrid", "max_resolution": 23.0} if holdout != "none" else {"name": "hashgrid"}
    assert chosen == wanted and seen["hashgrid"]["max_resolution"] == (23 if holdout != "none" else 16)
    assert why.resolution is (finest if holdout != "none" else None)


def test_a_run_records_its_choice(command: Callable[..., Ran], tmp_path: Path) -> None:
    ran = command(
        "fit", "signal.crop=24", "signal.holdout=every_other", "fit.steps=10", "network.width=16", "network.depth=1",
        "encoding=hashgrid", "encoding.max_resolution=predicted", "encoding.base_resolution=4", "hydra.run.dir=out",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    metrics: dict[str, Any] = json.loads((tmp_path / "out" / "metrics.json").read_text())
    chosen = metrics["auto"]["resolution"]
    assert metrics["auto"]["encoding"]["max_resolution"] == chosen and chosen in metrics["auto"]["resolutions"]
    assert len(metrics["auto"]["heldout_psnr"]) == len(metrics["auto"]["resolutions"]) >= 2
    assert f"max_resolution=predicted took {chosen:g}" in ran.out


def test_explain_names_the_number_that_was_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["encoding=hashgrid", "encoding.max_resolution=predicted", "encoding.base_resolution=4"]
    config, choice = explain_command._composed([*overrides, "network.width=16", "network.depth=1"])
    signal = nf.ImageSignal.from_array(_smooth(24), holdout="every_other")
    options = FitOptions(steps=4)
    own = explain_command._own_settings(config, choice, overrides, signal, options, 0, torch.device("cpu"))[0]
    assert isinstance(own.encoding, dict)
    chosen = own.encoding["max_resolution"]
    assert own.overrides == ["encoding=hashgrid", "encoding.base_resolution=4", f"encoding.max_resolution={chosen:g}"]
    assert f"max_resolution={chosen:g}" in own.name and f"took {chosen:g}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("encoding", "options", "words"),
    [
        ({"max_resolution": "predictd"}, {}, "must be auto, predicted or a number.*did you mean 'predicted'"),
        ({"max_resolution": "512"}, {}, "must be auto, predicted or a number, such as 256; got '512'"),
        ({"n_levels": "auto"}, {}, "n_levels must be predicted or a whole number"),
        ({"max_resolution": "predicted", "per_level_scale": 1.5}, {}, "leave out one"),
        ({"max_resolution": None, "n_levels": "predicted", "per_level_scale": 1.5}, {}, "leave out one"),
        (
            {"max_resolution": "predicted"},
            {"loss": "l1"},
            "max_resolution=predicted.*mse.*give max_resolution a number",
        ),
        ({"max_resolution": "predicted", "base_resolution": 0}, {}, "base_resolution must be at least 1"),
    ],
)
def test_bad_values_are_explained(encoding: dict[str, Any], options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        nf.fit(_smooth(16), {"name": "hashgrid", **encoding}, NETWORK, progress=False, **{"steps": 5, **options})
