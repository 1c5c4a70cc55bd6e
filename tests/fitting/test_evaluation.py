from __future__ import annotations

import math

import pytest
import torch

import neuralfield as nf
from neuralfield import field as fields
from neuralfield.fitting import evaluation
from neuralfield.fitting.data import TrainingData
from neuralfield.fitting.evaluation import Probe, block_points, evaluate


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    field = fields.build(2, 3, "positional", {"width": 16, "depth": 1})
    x = torch.rand(1000, 2)
    whole = field(x).detach()
    monkeypatch.setattr(evaluation, "block_points", lambda _: 7)
    assert torch.allclose(evaluate(field, x), whole, atol=1e-6)
    assert evaluate(field, x[:0]).shape == (0, 3)


def test_evaluation_leaves_the_mode_and_the_gradients_alone() -> None:
    field = fields.build(2, 1, "none").train()
    result = evaluate(field, torch.rand(3, 2))
    assert field.training and not result.requires_grad


def test_a_wider_field_gets_smaller_blocks() -> None:
    narrow, wide = (fields.build(2, 1, "none", {"width": w, "depth": 2}) for w in (16, 4096))
    assert block_points(narrow) > block_points(wide) >= 1024


def test_a_probe_measures_clamped_values(signal: nf.ImageSignal) -> None:
    field = fields.build(2, 3, "none")
    probe = Probe(signal, signal.judged_on()["psnr_train"], 10**6)
    index = signal.split.train(torch.arange(signal.split.n_train))
    error = field(signal.coordinates(index)).clamp(0, 1) - signal.values(index)
    assert probe.quality(field) == pytest.approx(-10 * math.log10(error.square().mean().item()), abs=1e-4)
    few = Probe(signal, signal.judged_on()["psnr_heldout"], 10)
    assert len(few.target) <= 10


@pytest.mark.parametrize("cached", [True, False])
def test_data_on_demand_equals_cached_data(
    signal: nf.ImageSignal, cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not cached:
        monkeypatch.setattr("neuralfield.fitting.data._CACHE_BYTES", 0)
    data = TrainingData(signal, 50, seed=3, device=torch.device("cpu"))
    seen = []
    for step in range(data.batches.batches_per_epoch):
        coordinates, values, _ = data.batch(step)
        index = signal.split.train(data.batches.batch(step))
        assert torch.equal(coordinates, signal.coordinates(index))
        assert torch.equal(values, signal.values(index))
        seen.append(index)
    rows, columns = torch.cat(seen) // signal.width, torch.cat(seen) % signal.width
    assert len(rows) == signal.split.n_train
    assert not (rows % 2).any() and not (columns % 2).any()  # a held-out pixel is never shown
