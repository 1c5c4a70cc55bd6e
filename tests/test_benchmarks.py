"""The benchmark measures what it says, on small cases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import neuralfield as nf
from neuralfield.benchmarks import cases, peers, report
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
