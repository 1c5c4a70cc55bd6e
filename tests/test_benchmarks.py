"""The benchmark measures what it says, on small cases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import neuralfield as nf
from neuralfield.benchmarks import cases, compact_sizes, peers, report, waves
from neuralfield.benchmarks.timing import Timing, alternate, ratio


def test_rounds_alternate_and_the_first_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Iterator[float] = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    calls: list[str] = []
    times = alternate({n: (lambda n=n: calls.append(n)) for n in ("a", "b")}, 3, torch.device("cpu"))
    assert calls == ["a", "b"] * 4
    assert times["a"].seconds == times["b"].seconds == (1.0, 1.0, 1.0)


def test_the_ratio_is_taken_round_by_round() -> None:
    slow, fast = Timing((2.0, 40.0, 6.0)), Timing((1.0, 10.0, 2.0))
    assert ratio(slow, fast) == 3.0 and fast.median == 2.0


def test_the_naive_grid_interpolates_and_trains() -> None:
    grid = peers.NaiveGrid(2, 3, 2, 8, 4, 16)
    with torch.no_grad():
        grid.table.fill_(0.5)
    x = torch.rand(20, 2)
    assert torch.allclose(grid(x), torch.full((20, 6), 0.5))  # weights sum to one
    grid(x).sum().backward()
    assert grid.table.grad.sum().item() == pytest.approx(20 * 6, rel=1e-5)


def test_every_case_compares_ours_with_a_peer(monkeypatch: pytest.MonkeyPatch, signal: nf.ImageSignal) -> None:
    monkeypatch.setattr(cases, "ENCODE", ((2, 32, 100),))
    rows = cases.encode(1, torch.device("cpu"))
    assert rows[0]["what"].startswith("neuralfield") and rows[0]["ratio"] == 1.0
    assert any(row["what"] == "plain torch, all levels at once" for row in rows)
    assert [row["what"] for row in cases.step(1, torch.device("cpu"), signal)] == ["neuralfield", "plain torch stack"]
    ours, naive = cases.fit(0.5, torch.device("cpu"), signal)
    assert ours["psnr"] > 10 and naive["steps"] > 0


def test_the_script_prints_a_table_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, output = tmp_path / "image.png", tmp_path / "out.json"
    nf.write_image(image, torch.rand(24, 24, 3).numpy())
    assert report.main(["step", "--rounds", "1", "--image", str(image), "-o", str(output), "--device", "cpu"]) == 0
    assert "plain torch stack" in capsys.readouterr().out
    assert json.loads(output.read_text())["rows"][0]["ms"] > 0
    assert report.main(["stpe"]) == 2


def test_the_tancik_race_starts_equal_and_counts_equal_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waves, "NETWORK", {**waves.NETWORK, "width": 32})
    monkeypatch.setattr(waves, "MINI_STEPS", 2)
    image = tmp_path / "image.png"
    y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    nf.write_image(image, torch.stack([x, y, x * y], dim=-1).numpy())
    rows = waves.tancik(4, torch.device("cpu"), str(image), crop=32)
    assert [row["what"] for row in rows] == ["neuralfield (float32)", "plain torch"] * 2
    assert rows[0]["ratio"] == rows[2]["ratio"] == 1.0
    assert "256 samples a step, 4 steps" in rows[0]["case"] and "8 steps" in rows[2]["case"]
    assert rows[0]["psnr"] == pytest.approx(rows[1]["psnr"], abs=0.01)  # the same full batches, the same arithmetic
    signal = nf.load_image(image, crop=32, holdout="every_other")
    contest = waves.enter(signal, torch.device("cpu"), "full", "float32", 4)
    points = torch.rand(50, 2)
    features = peers.fourier_features(points, contest.trainer.field.encoding.frequencies)
    torch.testing.assert_close(contest.plain(features), contest.trainer.field(points))
    before = contest.plain_field()(points)
    contest.plain_step()
    after = contest.plain_field()(points)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, contest.plain(features))
    torch.testing.assert_close(contest.trainer.field(points), before)  # two sets of weights


@pytest.mark.parametrize("shape", [(400, 600, 3), (512, 768, 3), (512, 512, 1)])
def test_compact_sizes_stay_within_the_budget_and_are_matched(shape: tuple[int, int, int]) -> None:
    signal = nf.ImageSignal.from_array(np.zeros(shape, np.uint8))
    grid = compact_sizes.our_grid(signal)
    trainer = cases.our_trainer(signal, torch.device("cpu"), grid=grid, steps=1)
    count, budget = trainer.field.n_parameters, signal.n_values // 4
    assert 0.85 * budget < count <= budget
    _, naive = cases.naive_stack(signal, torch.device("cpu"), 64, compact_sizes.naive_sizes(count, signal.out_dim))
    assert sum(p.numel() for p in naive.parameters()) == pytest.approx(count, rel=0.1)


def test_the_compact_race_reports_both_counts(signal: nf.ImageSignal) -> None:
    ours, naive = cases.fit(0.2, torch.device("cpu"), signal, compact=True)
    assert ours["parameters"] != cases.fit(0.1, torch.device("cpu"), signal)[0]["parameters"]
    assert ours["steps"] > 0 and naive["steps"] > 0 and naive["parameters"] > 0
