"""Fits on cells: the means against a loop, the gradient they stand for, and the fit where every cell is one pixel."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

import neuralfield as nf
from neuralfield.errors import DivergedError
from neuralfield.explain import small_fit as module
from neuralfield.explain.candidates import setting
from neuralfield.explain.small_fit import Cells, along, cells, remember, remembered, shifted_cells, small_fit, suits
from neuralfield.field import Field
from neuralfield.fitting.loop import Trainer
from neuralfield.fitting.options import FitOptions
from tests.explain.solids import rings

CPU = torch.device("cpu")
OPTIONS = FitOptions(steps=24, batch_size="full", lr=4e-3, warmup_steps=3)


@pytest.fixture(scope="module")
def photograph() -> nf.ImageSignal:
    return nf.load_image(name="coffee", resize=36, holdout="every_other")


def _field(signal: Any, encoding: str = "none", **network: Any) -> Field:
    return setting(signal, encoding, {"width": 32, "depth": 2, **network}).build(signal, 0, CPU)


@pytest.mark.parametrize("dim", [2, 3])
def test_cells_are_means_over_their_samples(dim: int) -> None:
    generator = torch.Generator().manual_seed(dim)
    x, y = torch.rand(300, dim, generator=generator), torch.rand(300, 2, generator=generator)
    counts, shift = (3.0, 4.5, 2.0)[:dim], torch.tensor([0.3, 0.9, 0.5])[:dim]
    groups = defaultdict(list)
    for i in range(len(x)):
        groups[tuple(math.floor(float(x[i, a]) * counts[a] + float(shift[a])) for a in range(dim))].append(i)
    found = cells(x, y, counts, shift)
    assert len(found.x) == len(groups) < 100
    for row, (_, members) in enumerate(sorted(groups.items())):
        assert torch.allclose(found.x[row], x[members].mean(dim=0)) and torch.allclose(
            found.y[row], y[members].mean(dim=0)
        )
        assert float(found.weight[row]) == pytest.approx(len(members) / 300)


def test_the_gradient_is_that_of_all_samples_to_second_order_in_the_size_of_cells() -> None:
    side = (torch.arange(96, dtype=torch.float64) + 0.5) / 96
    x = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1).reshape(-1, 2)
    y = (torch.sin(5 * x[:, :1]) * torch.cos(4 * x[:, 1:]) + x[:, :1]).double()
    torch.manual_seed(0)
    field = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)).double()

    def gradient(at: Cells) -> torch.Tensor:
        loss = ((field(at.x) - at.y).square().mean(dim=1) * at.weight).sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(field.parameters()))])

    full = gradient(Cells(x, y, torch.full((len(x),), 1 / len(x), dtype=x.dtype)))
    errors = [
        float((gradient(cells(x, y, (n, n), torch.zeros(2))) - full).norm() / full.norm()) for n in (4.0, 8.0, 16.0)
    ]
    assert errors[0] < 0.2
    assert [a / b for a, b in pairwise(errors)] == pytest.approx([4, 4], rel=0.2)


def test_lattices_cover_all_samples_and_move(photograph: nf.ImageSignal) -> None:
    counts = along(photograph, OPTIONS)
    assert counts[0] / counts[1] == pytest.approx(photograph.width / photograph.height)
    assert counts[0] * counts[1] == pytest.approx(photograph.split.n_train / 4)
    index = photograph.split.train(torch.arange(photograph.split.n_train))
    mean = photograph.values(index).float().mean(dim=0)
    lattices = list(shifted_cells(photograph, counts, CPU))
    assert len({tuple(one.x.flatten().tolist()) for one in lattices}) == 4  # two training pixels along a cell
    for one in lattices:
        assert float(one.weight.sum()) == pytest.approx(1, abs=1e-5) and len(one.x) <= 100
        assert torch.allclose((one.y * one.weight[:, None]).sum(dim=0), mean, atol=1e-5)


def test_fewer_cells_where_less_is_spent(photograph: nf.ImageSignal) -> None:
    large = nf.ImageSignal.from_array(np.zeros((256, 512, 3), np.uint8) + 9, holdout="every_other")
    options = FitOptions(steps=5, batch_size=4096)
    a, b = along(large, options)
    assert a * b == pytest.approx(4096 / 20) and a == pytest.approx(2 * b)
    assert math.prod(along(large, options, 10)) == pytest.approx(100)
    small = nf.ImageSignal.from_array(np.zeros((40, 40), np.uint8), holdout="every_other")
    assert math.prod(along(small, options)) == pytest.approx(64)  # of 400 samples
    tiny = nf.ImageSignal.from_array(np.arange(64, dtype=np.uint8).reshape(8, 8), holdout="every_other")
    assert math.prod(along(tiny, options)) == pytest.approx(4)  # 16 samples train


def test_with_a_cell_for_every_pixel_it_is_the_fit(photograph: nf.ImageSignal, monkeypatch: pytest.MonkeyPatch) -> None:
    field = _field(photograph)
    start = copy.deepcopy(field.state_dict())
    # Cells as wide as two pixels hold one training pixel each, wherever the lattice lies.
    monkeypatch.setattr(module, "along", lambda *_: (photograph.width / 2, photograph.height / 2))
    fit = small_fit(field, photograph, OPTIONS, at=[0, 1, 5, 24, 99])
    assert all(torch.equal(value, start[name]) for name, value in field.state_dict().items())  # a copy was trained
    trainer = Trainer(field, photograph, OPTIONS, progress=False)
    rows = {0: [probe.quality(field) for probe in trainer.probes.values()]}
    for step in range(1, 25):
        trainer.train_step()
        trainer.state.step = step
        rows[step] = [probe.quality(field) for probe in trainer.probes.values()]
    assert fit.steps.tolist() == [0, 1, 5, 24]
    shown = -10 * np.log10(np.stack([fit.train_mse, fit.heldout_mse], axis=1))
    assert shown == pytest.approx(np.array([rows[step] for step in (0, 1, 5, 24)]), abs=0.01)
    assert rows[24][1] > rows[0][1] + 3
    # Adam trains with the sum of kernels over the roots of second moments.
    named = dict(field.named_parameters())
    v = {name: float(trainer.optimizer.state[p]["exp_avg_sq"].mean()) for name, p in named.items()}
    least = min(v.values())
    assert fit.weights == pytest.approx({name: math.sqrt(least / value) for name, value in v.items()}, rel=0.02)
    assert sum(fit.energy.values()) == pytest.approx(1) and min(fit.energy.values()) > 0


def test_a_fit_is_remembered_until_something_changes(photograph: nf.ImageSignal) -> None:
    field, options = _field(photograph), FitOptions(steps=3, batch_size="full")
    fit = remember(field, photograph, options, small_fit(field, photograph, options))
    assert remembered(_field(photograph), photograph, options) is fit  # equal weights
    assert remembered(field, photograph, FitOptions(steps=4, batch_size="full")) is not fit
    again = remembered(field, photograph, options)
    assert again is not fit and again.heldout_mse == pytest.approx(fit.heldout_mse)
    with torch.no_grad():
        next(field.parameters()).add_(0.1)
    assert remembered(field, photograph, options) is not again


def test_only_smooth_fields_on_images_are_fitted_so(photograph: nf.ImageSignal) -> None:
    assert suits(_field(photograph), photograph) and suits(_field(photograph, activation="tanh"), photograph)
    for other in (_field(photograph, activation="sine"), _field(photograph, "fourier"), _field(photograph, "hashgrid")):
        assert not suits(other, photograph)
    assert not suits(_field(rings()), rings())


def test_a_rate_that_is_too_large_is_told(photograph: nf.ImageSignal) -> None:
    with pytest.raises(DivergedError, match=r"step \d+; learning rates were 1e\+20"):
        small_fit(_field(photograph), photograph, FitOptions(steps=8, batch_size="full", lr=1e20), at=range(9))
