"""The compiled ReLU step against the plain one in float64."""

from __future__ import annotations

import math

import pytest
import torch

from neuralfield.ntk import relu_step
from neuralfield.ntk.duals import PiecewiseLinear

pytestmark = pytest.mark.skipif(not relu_step.available(), reason="needs numba")


def test_agrees_with_float64_over_the_whole_range() -> None:
    u = torch.cat([torch.logspace(-12, 0, 400), torch.linspace(0, 2, 4001), torch.tensor([0.0, 0.5, 2.0])])
    t = torch.linspace(0.1, 3, len(u))
    wide_u, wide_t = u.double(), t.double()
    PiecewiseLinear(0.0, 1.0).step_(wide_u, wide_t)
    start = u.double()
    relu_step.step_(u, t, 1 / math.pi)
    assert (u - wide_u).abs().max() < 3e-7
    assert (t - wide_t).abs().max() < 1e-6  # of up to 3
    # What u loses near 0 is its own third power of the angle: relative precision there is what neighbouring pixels need.
    small = start < 1e-3
    assert ((u - wide_u)[small] / wide_u[small].clamp_min(1e-30)).abs().max() < 1e-6


def test_blocks_large_enough_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(relu_step, "step_", lambda u, t, k: taken.append(u.shape))
    relu = PiecewiseLinear(0.0, 1.0)
    relu.step_(torch.full((128, 128), 0.5), torch.ones(128, 128))
    relu.step_(torch.full((8, 8), 0.5), torch.ones(8, 8))
    relu.step_(torch.full((128, 128), 0.5, dtype=torch.float64), torch.ones(128, 128, dtype=torch.float64))
    relu.step_(torch.full((256, 128), 0.5)[::2], torch.ones(128, 128))
    assert taken == [(128, 128)]
