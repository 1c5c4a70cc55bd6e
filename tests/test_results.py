"""Numbers and pictures of a finished fit."""

from __future__ import annotations

import json
from pathlib import Path

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
