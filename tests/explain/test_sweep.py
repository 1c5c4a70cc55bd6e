"""A finished sweep, explained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from neuralfield.errors import ConfigError
from neuralfield.explain import explain_sweep
from tests.conftest import Ran

SMALL = (
    "signal.crop=40", "signal.name=chelsea", "fit.steps=120", "fit.batch_size=full", "network.width=48", "network.depth=2",
)  # fmt: skip


def _sweep(command: Callable[..., Ran], *more: str) -> None:
    ran = command("fit", "-m", *SMALL, "encoding=fourier", "hydra.sweep.dir=runs", *more)
    assert ran.code == 0, ran.err


def test_predicted_against_measured(command: Callable[..., Ran], tmp_path: Path) -> None:
    _sweep(command, "encoding.sigma=0.5,2,8,24", "signal.holdout=every_other")
    found = explain_sweep(tmp_path / "runs", progress=False)
    assert found.kind == "psnr_heldout" and found.keys == ["encoding.sigma"] and not found.skipped
    assert [run.swept["encoding.sigma"] for run in found.runs] == [0.5, 2, 8, 24]
    for index, run in enumerate(found.runs):
        metrics = json.loads((tmp_path / "runs" / str(index) / "metrics.json").read_text())
        assert run.measured == metrics["psnr_heldout"]
    predicted, measured = np.array([[r.predicted, r.measured] for r in found.runs]).T
    assert found.error == pytest.approx(np.abs(predicted - measured).mean()) and found.error < 2.5
    assert found.spearman == pytest.approx(spearmanr(predicted, measured).statistic)
    ran = command("explain", "sweep=runs", "folder=why")
    assert ran.code == 0, ran.err
    assert "rank correlation" in ran.out
    assert {p.name for p in (tmp_path / "why" / "figures").iterdir()} == {
        "scatter.png", "scatter.svg", "curve.png", "curve.svg",
    }  # fmt: skip


def test_without_a_holdout_training_pixels_are_compared(command: Callable[..., Ran], tmp_path: Path) -> None:
    _sweep(command, "encoding.sigma=1,6")
    found = explain_sweep(tmp_path / "runs", progress=False)
    assert found.kind == "psnr_train" and found.spearman is None
    for index, run in enumerate(found.runs):
        metrics = json.loads((tmp_path / "runs" / str(index) / "metrics.json").read_text())
        assert run.measured == metrics["psnr_train"] and run.predicted == pytest.approx(run.measured, abs=2)
    # A run that was cut off is left out, and one alone is no sweep.
    (tmp_path / "runs" / "1" / "metrics.json").unlink()
    with pytest.raises(ConfigError, match=r"1 complete run, .*finish it"):
        explain_sweep(tmp_path / "runs", progress=False)


def test_a_folder_that_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        explain_sweep(tmp_path / "nothing", progress=False)
    with pytest.raises(ConfigError, match="0 complete runs"):
        explain_sweep(tmp_path, progress=False)
