"""Errors of a field that is being trained, on few samples on the way and on many at the end."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import neuralfield as nf
from neuralfield.explain.judge import Judge, Samples, judge_of, judge_of_windows, spread
from neuralfield.explain.patches import patches
from neuralfield.field import Field
from neuralfield.signals.base import SampleSet


def _constant(value: float) -> Field:
    field = nf.build(2, 1, {"name": "none"}, {"width": 4, "depth": 1})
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.zero_()
        field.network.layers[-1].bias.fill_(value)  # type: ignore[union-attr, index]
    return field


def _samples(values: list[float], clamped: bool = True) -> Samples:
    y = torch.tensor(values)[:, None]
    return Samples(torch.rand(len(values), 2), y, torch.ones(len(values)), clamped)


def test_errors_are_those_of_what_is_seen() -> None:
    assert _samples([0.0, 1.0]).error(_constant(0.5)) == pytest.approx(0.25)
    assert _samples([1.0]).error(_constant(3.0)) == 0.0
    assert _samples([1.0], clamped=False).error(_constant(3.0)) == pytest.approx(4.0)
    assert math.isnan(_samples([1.0]).error(_constant(math.inf)))
    counted = Samples(torch.rand(2, 2), torch.tensor([[0.0], [1.0]]), torch.tensor([3.0, 1.0]), True)
    assert counted.error(_constant(0.0)) == pytest.approx(0.25)


def test_what_few_samples_said_is_corrected_by_what_many_say_at_the_end() -> None:
    few, many = _samples([0.0]), _samples([0.0, 0.0, 0.0, 1.0])
    judge = Judge({"train": few, "heldout": many}, {"train": many, "heldout": many})
    assert judge.look(_constant(0.2)) == pytest.approx(0.04 + (3 * 0.04 + 0.64) / 4)
    judge.look(_constant(0.5))
    found = judge.errors(_constant(0.5))
    assert found["train"] == pytest.approx([0.04, 0.25]) and found["heldout"] == pytest.approx([0.19, 0.25])
    judge.look(_constant(0.4))
    assert judge.errors(_constant(0.4))["train"][-1] == pytest.approx((3 * 0.16 + 0.36) / 4)


def test_samples_of_a_signal_and_of_windows() -> None:
    signal = nf.load_image(name="chelsea", crop=64, holdout="every_other")
    judge, field = judge_of(signal), nf.build(2, 3, {"name": "fourier"}, {"width": 8, "depth": 1})
    index = signal.split.heldout(torch.arange(signal.split.n_heldout))
    with torch.no_grad():
        error = (field(signal.coordinates(index)).clamp(0, 1) - signal.values(index)).square().mean()
    judge.look(field)
    assert judge.errors(field)["heldout"][-1] == pytest.approx(float(error), rel=1e-5)  # all of them: there are few
    windows = patches(signal, 8, 4)
    on_windows = judge_of_windows(windows)
    assert len(on_windows.few["train"].x) == sum(len(w.x) for w in windows)
    assert float(on_windows.few["heldout"].counted.sum()) == sum(float(w.counted.sum()) for w in windows)
    places = spread(signal, SampleSet(signal.split.n_train, signal.split.train), 16).x
    assert len(places) == 16 and np.ptp(places[:, 1].numpy()) > 0.8
