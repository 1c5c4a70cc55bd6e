"""Numbers and pictures of a finished fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import neuralfield as nf
from neuralfield import results
from neuralfield.run import completed, prepare, run
from neuralfield.summary import summarize

CONFIG = {
    "signal": {"name": "zoneplate", "crop": 32, "holdout": "every_other"},
    "encoding": {"name": "positional", "n_frequencies": 4},
    "network": {"width": 16, "depth": 1},
    "fit": {"steps": 20, "batch_size": 64},
    "seed": 3,
}


def test_psnr_of_the_parts_by_hand(signal: nf.ImageSignal) -> None:
    fit = signal.rows(0, signal.height).copy()
    fit[1::2, 1::2] += 0.1  # exactly the held-out pixels
    fit[0, 0] = 2.0
    metrics = results.measure(signal, fit)
    truth = signal.rows(0, signal.height)

    def by_hand(rows: slice, columns: slice) -> float:
        error = np.clip(fit[rows, columns], 0, 1).astype(float) - truth[rows, columns]
        return -10 * np.log10(np.mean(error**2))

    assert metrics["psnr_heldout"] == pytest.approx(by_hand(slice(1, None, 2), slice(1, None, 2)), abs=1e-6)
    assert metrics["psnr_train"] == pytest.approx(by_hand(slice(0, None, 2), slice(0, None, 2)), abs=1e-6)
    assert metrics["psnr"] == pytest.approx(by_hand(slice(None), slice(None)), abs=1e-6)
    assert metrics["psnr_unclamped"] < metrics["psnr"]


def test_without_a_hold_out_train_is_all(picture: np.ndarray) -> None:
    signal = nf.ImageSignal.from_array(picture)
    metrics = results.measure(signal, signal.rows(0, signal.height) * 0.9)
    assert metrics["psnr_heldout"] is None and metrics["psnr_train"] == metrics["psnr"]


def test_a_reduced_picture_has_the_mean_of_the_large_one(signal: nf.ImageSignal) -> None:
    values = np.full((40, 60, 3), 0.25, np.float32)
    small = results.thumbnail(values, "linear", side=20)
    assert small.shape == (14, 20, 3)
    assert (small == small[0, 0, 0]).all() and small[0, 0, 0] == 137  # sRGB of 0.25


def test_a_run_is_complete_only_for_its_own_configuration(tmp_path: Path) -> None:
    metrics = run(CONFIG, tmp_path, progress=False, overrides=["seed=3"])
    assert completed(tmp_path, CONFIG) == json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["overrides"] == ["seed=3"] and metrics["seed"] == 3
    assert completed(tmp_path, {**CONFIG, "fit": {**CONFIG["fit"], "resume": True}}) is not None
    assert completed(tmp_path, {**CONFIG, "seed": 4}) is None
    (tmp_path / "metrics.json").write_text("{half")
    assert completed(tmp_path, CONFIG) is None


def test_a_rerun_replaces_what_was_there(tmp_path: Path) -> None:
    run(CONFIG, tmp_path, progress=False)
    again = run({**CONFIG, "seed": 4}, tmp_path, progress=False)
    assert json.loads((tmp_path / "metrics.json").read_text())["seed"] == again["seed"] == 4
    assert not (tmp_path / "checkpoint").exists()


def test_a_failed_preparation_leaves_an_earlier_result_alone(tmp_path: Path) -> None:
    run(CONFIG, tmp_path, progress=False)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(nf.errors.NeuralFieldError):
        run({**CONFIG, "signal": {"path": "nothere.png"}}, tmp_path, progress=False)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_the_best_state_is_kept_beside_the_last(tmp_path: Path) -> None:
    config = {**CONFIG, "fit": {**CONFIG["fit"], "lr": 0.3, "schedule": "constant", "eval_every": 1}}
    metrics = run(config, tmp_path, progress=False)
    assert metrics["best_step"] < metrics["steps"]
    assert nf.load(tmp_path / results.BEST).n_parameters == nf.load(tmp_path / results.FIELD).n_parameters


def test_the_seed_reaches_encoding_network_and_batches() -> None:
    a, b, c = (prepare({**CONFIG, "seed": seed}) for seed in (1, 1, 2))
    weights = [next(p.field.network.parameters()) for p in (a, b, c)]
    assert (weights[0] == weights[1]).all() and not (weights[0] == weights[2]).all()


def test_runs_from_python_are_summarised_by_their_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(CONFIG, tmp_path / name, progress=False)
    assert summarize(tmp_path) == 0
    assert (tmp_path / "summary.csv").read_text().splitlines()[1].startswith("a,a,")
