"""The study of predictions on thumbnails: the command, its stored fits, its claims and its page."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from neuralfield.cli.configuration import config_folder
from neuralfield.errors import ConfigError, SignalError
from neuralfield.reproduce import Reproduction, prediction_truth
from neuralfield.reproduce.prediction import AIMS, BUDGETS, check, finding, reproduce, table
from neuralfield.reproduce.prediction_figure import draw
from tests.conftest import Ran

TINY = (
    "photographs=0", "texts=0", "textures=0", "size=24", "steps=8", "sigmas=[1,3,9]", "width=8", "depth=1", "n_features=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two small pictures, the second one wide."""
    folder = tmp_path_factory.mktemp("pictures")
    y, x = np.mgrid[0:30, 0:40] / 30
    waves = np.stack([np.sin(9 * x), np.cos(20 * x * y), np.sin(4 * y)], axis=-1)
    Image.fromarray(np.rint(127 + 120 * waves).astype(np.uint8)).save(folder / "waves.png")
    steps = np.where((x[:24, :24] + y[:24, :24]) % 0.4 > 0.2, 220, 30).astype(np.uint8)
    Image.fromarray(steps).save(folder / "steps.png")
    return [str(folder / "waves.png"), str(folder / "steps.png")]


@pytest.fixture(scope="module")
def options(files: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of the study that `result` is."""
    return {
        "seed": 0, "device": "cpu", "budget": "small", "images": files, "photographs": 0, "texts": 0, "textures": 0,
        "size": 24, "steps": 8, "batch_size": None, "sigmas": [1, 3, 9], "width": 8, "depth": 1, "n_features": 4,
        "runs": str(tmp_path_factory.mktemp("runs")),
    }  # fmt: skip


@pytest.fixture(scope="module")
def result(options: dict[str, Any]) -> Reproduction:
    return reproduce(**options)


def test_the_file_has_exactly_these_options(options: dict[str, Any]) -> None:
    given = yaml.safe_load((config_folder() / "reproduce" / "prediction.yaml").read_text())
    assert set(given) == set(options)
    assert BUDGETS["small"].keys() == BUDGETS["full"].keys() <= set(options)
    assert given["images"] == [] and all(given[key] is None for key in BUDGETS["small"])


def test_the_command_trains_nothing_that_is_stored(
    command: Callable[..., Ran], result: Reproduction, files: list[str], options: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(prediction_truth, "Trainer", _refuse)
    ran = command(
        "reproduce", "prediction", "folder=out", f"images=[{','.join(files)}]", f"runs={options['runs']}", *TINY
    )
    assert ran.code in (0, 1), ran.err
    content = json.loads((tmp_path / "out" / "numbers.json").read_text())
    assert len(content["claims"]) == 8 and all(claim["measured"] for claim in content["claims"])
    assert ran.code == (0 if all(claim["holds"] for claim in content["claims"]) else 1)
    assert (tmp_path / "out" / "figure.png").stat().st_size > 20_000
    assert len(content["numbers"]["table"]) == 2 + 2 + 2  # heads, images, mean and aims
    assert len({line.count("|") for line in content["numbers"]["table"]}) == 1
    # Made anew from the same options: predictions, too, are the same.
    again = content["numbers"]
    for one, other in zip(result.numbers["images"], again["images"], strict=True):
        assert one["trained"] == other["trained"] and one["predicted"] == other["predicted"]
        assert one["auto"]["trained"] == other["auto"]["trained"]
    assert result.numbers["mean"]["lost"] == again["mean"]["lost"]


def test_what_is_found_of_an_image(result: Reproduction) -> None:
    first = result.numbers["images"][0]
    assert first["settings"] == [
        "none", "positional", "fourier sigma=1", "fourier sigma=3", "fourier sigma=9", "hashgrid", "hashgrid to 32",
    ]  # fmt: skip
    assert first["size"] == [24, 24] and first["steps"] == [1, 2, 4, 5, 8]
    assert np.shape(first["trained"]) == np.shape(first["predicted"]) == (7, 5)
    assert np.isfinite(first["trained"]).all() and np.isfinite(first["predicted_train"]).all()
    assert first["short_steps"] == {"5": 1, "10": 1} and first["nyquist_sigma"] == pytest.approx(10 * 12 / 256)
    # One step of a one-step fit is the first step of every fit: the schedule starts at its full rate.
    np.testing.assert_allclose(first["short"]["5"], np.array(first["trained"])[:, 0], atol=1e-4)


@pytest.mark.parametrize("changed", [{"seed": 1}, {"steps": 9}, {"width": 9}, {"n_features": 5}, {"batch_size": 64}])
def test_a_changed_option_trains_anew(
    result: Reproduction, options: dict[str, Any], changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_truth, "Trainer", _refuse)
    with pytest.raises(_TrainedError):
        reproduce(**{**options, **changed})


def test_numbers_that_contradict_a_claim_are_noticed(result: Reproduction) -> None:
    numbers: dict[str, Any] = copy.deepcopy(result.numbers)
    for one in numbers["images"]:
        final = [10.0, 20.0, 21.0, 25.0, 15.0, 26.0, 24.0]
        one["trained"] = [[value] * 5 for value in final]
        one["predicted"] = [[value + 0.2] * 5 for value in final]
        one["short"] = {"5": final, "10": final}
        one["auto"] = {"sigma": 3.0, "trained": 25.0, "cost": 0.05, "cpu_seconds": 1.0}
        one["cpu"] = {"prediction": [0.5] * 7, "training": [10.0] * 7}
    assert all(claim.holds for claim in check(numbers))

    def broken(change: Callable[[dict[str, Any]], None]) -> list[int]:
        other = copy.deepcopy(numbers)
        for one in other["images"]:
            change(one)
        return [i for i, claim in enumerate(check(other)) if not claim.holds]

    assert broken(lambda one: one["cpu"].update(prediction=[2.0] * 7)) == [7]
    assert broken(lambda one: one["auto"].update(trained=24.8)) == [4, 5]
    # Off by 4.2 dB at the first setting alone, with no consequence for the choice or any order.
    assert broken(lambda one: one["predicted"].__setitem__(0, [5.8] * 5)) == [0, 1]
    assert broken(lambda one: one.update(predicted=[[v[0]] * 4 + [v[-1] + 2] for v in one["predicted"]])) == [0, 1]
    swapped = broken(lambda one: one.update(predicted=[one["predicted"][i] for i in (0, 1, 2, 4, 3, 5, 6)]))
    assert {0, 1, 2, 3} == set(swapped)
    # At 24 in truth, predicted 2.5 too high and so above the best: no other rank changes.
    assert broken(lambda one: one["predicted"].__setitem__(6, [26.5] * 5)) == [0, 1, 6]


def test_the_page_holds_many_images(result: Reproduction, tmp_path: Path) -> None:
    numbers: dict[str, Any] = copy.deepcopy(result.numbers)
    numbers["images"] = [{**numbers["images"][0], "name": f"a picture with a long name {i}.png"} for i in range(14)]
    check(numbers)
    assert len(table(numbers)) == 18
    page = draw(finding(numbers), numbers)
    page.save(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as image:
        assert image.height < 2400  # three rows of sweeps at most


def test_one_image_has_no_others(result: Reproduction) -> None:
    numbers: dict[str, Any] = copy.deepcopy(result.numbers)
    numbers["images"] = numbers["images"][:1]
    check(numbers)
    assert numbers["mean"]["lost"]["average"] is None and numbers["mean"]["error_bicubic"] is None
    assert "–" in table(numbers)[2]
    draw(finding(numbers), numbers)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": []}, "there is no image to study"),
        ({"images": [3]}, "images must be a list"),
        ({"sigmas": [1, 2]}, "at least three"),
        ({"sigmas": [1, 4, 2]}, "sigmas must ascend"),
        ({"sigmas": [0, 1, 2]}, "sigmas must be"),
        ({"steps": 0}, "steps must be at least 8"),
        ({"size": 8}, "size must be"),
        ({"textures": 9}, "textures must be"),
        ({"budget": "huge"}, "budget must be"),
        ({"depth": 0}, "depth must be"),
    ],
)
def test_bad_options(options: dict[str, Any], changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        reproduce(**{**options, **changed})


def test_bad_images(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_truth, "Trainer", _refuse)  # both are noticed before any training
    with pytest.raises(SignalError, match="nowhere"):
        reproduce(**{**options, "images": [str(tmp_path / "nowhere.png")]})
    Image.new("RGB", (40, 40), (9, 9, 9)).save(tmp_path / "flat.png")
    with pytest.raises(ConfigError, match="same value everywhere"):
        reproduce(**{**options, "images": [*options["images"], str(tmp_path / "flat.png")]})


class _TrainedError(Exception):
    pass


def _refuse(*_: Any, **__: Any) -> None:
    raise _TrainedError


def test_the_aims_are_those_that_are_claimed(result: Reproduction) -> None:
    assert len(result.claims) == len(AIMS) + 1 and result.numbers["aims"] == AIMS
