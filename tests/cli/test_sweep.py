"""Multirun: all runs, one summary; failures stay alone; what is complete is skipped."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio

from neuralfield.cli.fit import _with_sweep_folder
from tests.cli.test_fit import SMALL
from tests.conftest import Ran


def _rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "summary.csv").read_text().splitlines()))


def test_a_sweep_over_encodings_ends_with_a_table_a_csv_and_a_picture(
    command: Callable[..., Ran], tmp_path: Path
) -> None:
    arguments = ("fit", "-m", *SMALL, "encoding=none,fourier", "signal.holdout=every_other")
    ran = command(*arguments)
    assert ran.code == 0, ran.err
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
    assert folder.name.startswith("encoding-")
    rows = _rows(folder)
    assert [row["encoding"] for row in rows] == ["none", "fourier"]
    assert all(float(row["psnr_heldout"]) > 5 for row in rows)
    assert "held-out PSNR" in ran.out and "fourier" in ran.out
    assert iio.imread(folder / "summary.png").shape[1] > 1000
    again = command(*arguments)
    assert again.code == 0 and again.out.count("complete already") == 2
    assert _rows(folder) == rows


def test_one_failed_run_does_not_lose_the_others(command: Callable[..., Ran], tmp_path: Path) -> None:
    ran = command("fit", "-m", *SMALL, "hydra.sweep.dir=sweep", "encoding=fourier", "encoding.sigma=1,-3,4")
    assert ran.code == 2
    assert "sigma must be a finite number above 0" in ran.err
    rows = _rows(tmp_path / "sweep")
    assert [row["encoding.sigma"] for row in rows] == ["1", "-3", "4"]
    assert [bool(row["error"]) for row in rows] == [False, True, False]
    assert "sigma" in json.loads((tmp_path / "sweep" / "1" / "failed.json").read_text())["error"]
    assert "failed: sigma=-3" in ran.out
    again = command("summarize", "sweep")
    assert again.code == 0 and "failed: sigma=-3" in again.out


def test_a_failed_run_gets_another_chance(command: Callable[..., Ran], tmp_path: Path) -> None:
    sweep = ("fit", "-m", *SMALL, "hydra.sweep.dir=sweep", "encoding=none", "seed=0,1")
    (tmp_path / "sweep" / "1").mkdir(parents=True)
    (tmp_path / "sweep" / "1" / "failed.json").write_text('{"error": "power cut", "overrides": []}')
    ran = command(*sweep)
    assert ran.code == 0, ran.err
    assert not (tmp_path / "sweep" / "1" / "failed.json").exists()


def test_numbers_are_read_as_numbers_and_odd_names_as_words(command: Callable[..., Ran], tmp_path: Path) -> None:
    ran = command("fit", "-m", *SMALL, "hydra.sweep.dir=sweep", "fit.lr=1e-05,1e-3", "signal.name=camera,'@odd'")
    assert ran.code == 2  # there is no such sample; the summary stands all the same
    rows = _rows(tmp_path / "sweep")
    assert [float(row["fit.lr"]) for row in rows] == [1e-5, 1e-5, 1e-3, 1e-3]
    assert [bool(row["error"]) for row in rows] == [False, True, False, True]


def test_a_sweep_starts_over_where_it_is_told_to(command: Callable[..., Ran]) -> None:
    sweep = ("fit", "-m", *SMALL, "hydra.sweep.dir=sweep", "encoding=none", "seed=0")
    assert command(*sweep).code == 0
    assert "complete already" not in command(*sweep, "fit.resume=false").out


def test_the_folder_is_named_by_what_is_swept_and_differs_with_any_setting() -> None:
    base = ["-m", "encoding=fourier", "encoding.sigma=1,2"]
    first, same, other = (
        _with_sweep_folder(a)[-1] for a in (base, [base[0], base[2], base[1]], [*base, "fit.steps=9"])
    )
    assert first.startswith("hydra.sweep.dir=outputs/sweeps/sigma-")
    assert first == same != other
    assert _with_sweep_folder(base[1:]) == base[1:]
    assert _with_sweep_folder([*base, "hydra.sweep.dir=here"])[-1] == "hydra.sweep.dir=here"


def test_summarize_refuses_a_folder_without_runs(command: Callable[..., Ran], tmp_path: Path) -> None:
    assert "holds no runs" in command("summarize", str(tmp_path)).err
    assert "is not a folder" in command("summarize", "nowhere").err
