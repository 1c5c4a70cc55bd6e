from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import neuralfield as nf
from neuralfield.errors import ConfigError
from neuralfield.fitting.losses import HUBER_DELTA, LOSSES, of_signal
from neuralfield.fitting.schedule import SCHEDULES, factor, warmup


def test_losses_against_their_formulas() -> None:
    f, y = torch.tensor([[0.5, 1.0], [0.05, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 0.3]])
    r = (f - y).double()
    by_hand = {
        "mse": (r**2).mean(),
        "l1": r.abs().mean(),
        "huber": torch.where(r.abs() < HUBER_DELTA, r**2 / 2, HUBER_DELTA * (r.abs() - HUBER_DELTA / 2)).mean(),
        "relative_l2": (r**2 / (f.double() ** 2 + 0.01)).mean(),
        "bce": -(y * f.double().sigmoid().log() + (1 - y) * (-f.double()).sigmoid().log()).mean(),
        "mape": (r.abs() / (y.double() + 0.01)).mean(),
        "truncated_l1": torch.tensor([[0.1, 0.0], [0.05, 0.1]]).mean(),
    }
    assert by_hand.keys() == LOSSES.keys()
    for name, expected in by_hand.items():
        assert LOSSES[name](f, y).item() == pytest.approx(expected.item(), rel=1e-6)


def test_relative_l2_does_not_differentiate_its_denominator() -> None:
    f = torch.tensor([[2.0]], requires_grad=True)
    LOSSES["relative_l2"](f, torch.tensor([[1.0]])).backward()
    assert f.grad is not None
    assert f.grad.item() == pytest.approx(2 * (2 - 1) / (4 + 0.01))


class Shape(nf.ImageSignal):
    """Stands for occupancy: its field gives logits."""

    logits, default_loss = True, "bce"


def test_a_signal_chooses_its_loss_and_what_the_loss_sees() -> None:
    f, y = torch.tensor([[2.0], [-1.0]]), torch.tensor([[1.0], [0.0]])
    picture = nf.ImageSignal.from_array(np.zeros((4, 4), np.float32))
    shape = Shape.from_array(np.zeros((4, 4), np.float32))
    assert of_signal(None, picture)(f, y) == LOSSES["mse"](f, y)
    assert of_signal(None, shape)(f, y) == LOSSES["bce"](f, y)
    assert of_signal("mse", shape)(f, y) == LOSSES["mse"](f.sigmoid(), y)
    with pytest.raises(ConfigError, match="occupancy"):
        of_signal("bce", picture)


def test_a_truncated_distance_teaches_nothing_far_from_the_surface() -> None:
    f = torch.tensor([[0.5], [0.05]], requires_grad=True)
    LOSSES["truncated_l1"](f, torch.tensor([[0.3], [0.3]])).backward()
    assert f.grad is not None and f.grad.tolist() == [[0.0], [-0.5]]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_begin_at_one_fall_and_end_at_the_final_factor(schedule: str) -> None:
    values = [factor(schedule, p / 20, 0.05) for p in range(21)]
    assert values[0] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(values))
    assert values[-1] == pytest.approx(1.0 if schedule == "constant" else 0.05)
    assert factor(schedule, 7.0, 0.05) == values[-1]


def test_cosine_is_half_way_in_the_middle_and_exponential_is_geometric() -> None:
    assert factor("cosine", 0.5, 0.0) == pytest.approx(0.5)
    assert factor("exponential", 0.5, 0.01) == pytest.approx(math.sqrt(0.01))


def test_warmup_is_linear() -> None:
    assert [warmup(step, 4) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert warmup(0, 0) == 1.0
