r"""A fit on few points: each the mean of the training samples of a cell.

A network on plain coordinates learns where its kinks lie. Its kernel turns with it, and no kernel that stands still follows:
not the initial one, nor one that is taken after a tenth of the steps. But such a field is smooth. The gradient of its loss,

$$ \frac1n \sum_i J(x_i)^\top (f(x_i) - y_i) \approx \sum_c \frac{n_c}{n} J(\bar x_c)^\top (f(\bar x_c) - \bar y_c), $$

hardly changes when the samples of a small cell c are replaced by their mean $\bar x_c, \bar y_c$, weighted by their number
$n_c$. So a copy of the field makes every step of the fit on some hundred means. The lattice of the cells moves at every step:
no point is learned by heart, and over the memory of Adam's moments the cells' sides cancel.

What remains is a bias: cells see less detail than pixels do, and their gradients scatter a little, so the copy learns
somewhat slower than the fit. Single samples in place of means scatter more, and were two to three times as far off.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.encodings import Identity
from neuralfield.errors import DivergedError
from neuralfield.explain.judge import judge_of, spread
from neuralfield.explain.one_result import OneResult
from neuralfield.field import Field
from neuralfield.fitting import optimizer, schedule
from neuralfield.fitting.options import FitOptions
from neuralfield.networks import MLP
from neuralfield.ntk.empirical import empirical_parts
from neuralfield.signals.base import SampleSet, Signal
from neuralfield.signals.image import ImageSignal
from neuralfield.signals.sampling import StratifiedBatches

_SHARE = 20  # samples of a step for one cell: with what a step costs besides its samples, below a tenth of the fit
_FEWEST = 8  # cells along an image's side, where they hold four samples or more
_SHIFTS = 16  # places of the lattice, in turn
_SPREAD = (0.7548776662466927, 0.5698402909980532)  # 1/p and 1/p^2 with p^3 = p + 1: see shifts
_SEEN = 2**16  # samples that the means of one lattice are taken over, at most
_TRACED = 256  # samples on which the kernel's trace is taken
_WAVES = ("sine", "gaussian")  # activations that make detail without an encoding


@dataclass(frozen=True)
class Cells:
    """What stands for the training samples in one step.

    - `x`, `y`: means over the samples of each cell; `weight`: the cell's part of all samples, 1 in sum.
    """

    x: Float[Tensor, "cells dim"]
    y: Float[Tensor, "cells channels"]
    weight: Float[Tensor, " cells"]


@dataclass(frozen=True)
class SmallFit:
    """How the fit went.

    - `field`: the copy, trained.
    - `steps`, `train_mse`, `heldout_mse`: errors of the copy on evenly spread samples of the signal, at the steps asked for;
      of values clamped to [0, 1], as PSNR is.
    - `weights`: by parameter, Adam's factor of its kernel at the end: its learning rate over the root of the mean of its
      second moment; relative to the largest.
    - `energy`: by parameter, its share of the trace of the kernel that trains, at the end.
    """

    field: Field
    steps: np.ndarray
    train_mse: np.ndarray
    heldout_mse: np.ndarray
    weights: dict[str, float]
    energy: dict[str, float]


def suits(field: Field, signal: Signal) -> bool:
    """Whether a field is smooth enough: an MLP on an image's plain coordinates, without waves for activations."""
    plain = isinstance(field.encoding, Identity) and isinstance(field.network, MLP)
    return plain and field.network.activation not in _WAVES and isinstance(signal, ImageSignal)


def small_fit(
    field: Field, signal: ImageSignal, options: FitOptions, at: Sequence[int] = (), most: int | None = None
) -> SmallFit:
    """Fit a copy of the field on cells.

    **Arguments**

    - `field`: at its initial weights, which stay.
    - `options`: of the fit that is stood for, with a number of steps; its schedule and optimiser are taken over. Its
      precision is not: few points are no faster in bfloat16.
    - `at`: steps to report besides the last.
    - `most`: cells along a square image's side, at most; None: as many as a twentieth of the batch makes.

    Raises :class:`~neuralfield.errors.DivergedError` where the copy's error stops being finite, as the fit's would.
    """
    assert options.steps is not None
    field, steps = copy.deepcopy(field), options.steps
    lattices = list(shifted_cells(signal, along(signal, options, most), field.device))
    adam = optimizer.build(field, options)
    judge = judge_of(signal)
    at = sorted({step for step in at if step < steps} | {steps})
    with torch.enable_grad(), one_thread():
        for step in range(steps + 1):
            if step in at:
                _finite(judge.look(field), step, adam)
            if step < steps:
                _train_step(field, adam, lattices[step % _SHIFTS], options, step)
    errors = judge.errors(field)
    weights = _weights(field, adam, options)
    return SmallFit(field, np.array(at), errors["train"], errors["heldout"], weights, _energy(field, signal, weights))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Products of some hundred rows are no faster on two threads, and ten times as slow where another program has a core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_last: OneResult[SmallFit] = OneResult()


def remember(field: Field, signal: ImageSignal, options: FitOptions, fit: SmallFit) -> SmallFit:
    """Keep a fit of a field, and no other, for :func:`remembered`."""
    return _last.keep(field, signal, options, fit)


def remembered(field: Field, signal: ImageSignal, options: FitOptions) -> SmallFit:
    """The fit that was made last, if it was of this field at these weights with these options; else a new one."""
    found = _last.find(field, signal, options)
    return remember(field, signal, options, small_fit(field, signal, options)) if found is None else found


def along(signal: ImageSignal, options: FitOptions, most: int | None = None) -> tuple[float, float]:
    """How many square cells lie along the image's width and height: a twentieth of a batch's samples, but on small images
    no fewer than 64 and no more than a quarter of the samples."""
    n = signal.split.n_train
    batch = options.samples_per_step(n)
    side = min(math.sqrt(batch / _SHARE), math.inf if most is None else most)
    side = max(min(max(side, _FEWEST), math.sqrt(n / 4)), 1.0)
    shape = math.sqrt(signal.width / signal.height)
    return side * shape, side / shape


def shifted_cells(signal: ImageSignal, counts: tuple[float, float], device: torch.device) -> Iterator[Cells]:
    """The cells of each place of the lattice.

    The places follow the additive recurrence of the plastic number (Roberts 2018), which spreads consecutive ones evenly.
    """
    n = signal.split.n_train
    batches = StratifiedBatches(n, _SEEN)
    x = y = torch.empty(0)
    for number in range(_SHIFTS):
        if number == 0 or not batches.full:
            index = signal.split.train(batches.batch(number))
            x, y = signal.coordinates(index), signal.values(index).float()
        shift = (torch.tensor(_SPREAD, dtype=torch.float64) * (number + 1)) % 1
        made = cells(x, y, counts, shift.float())
        yield Cells(made.x.to(device), made.y.to(device), made.weight.to(device))


def cells(
    x: Float[Tensor, "n dim"], y: Float[Tensor, "n channels"], counts: Sequence[float], shift: Float[Tensor, " dim"]
) -> Cells:
    """The means of samples over the cells of a lattice.

    **Arguments**

    - `counts`: cells per unit along each axis; `shift`: of the lattice, in cells.
    """
    place = torch.floor(x * torch.tensor(counts, dtype=x.dtype) + shift).long()
    place = place - place.amin(dim=0)
    number = place[:, 0]
    for axis in range(1, place.shape[1]):
        number = number * (int(place[:, axis].amax()) + 1) + place[:, axis]
    _, cell, size = torch.unique(number, return_inverse=True, return_counts=True)
    mean = lambda v: v.new_zeros(len(size), v.shape[1]).index_add_(0, cell, v) / size[:, None]  # noqa: E731
    return Cells(mean(x), mean(y), size / len(x))


def _train_step(field: Field, adam: torch.optim.Adam, at: Cells, options: FitOptions, step: int) -> None:
    """One step of Adam, as :meth:`~neuralfield.fitting.loop.Trainer.train_step` makes it."""
    assert options.steps is not None
    scale = schedule.warmup(step, options.warmup_steps)
    scale *= schedule.factor(options.schedule, step / options.steps, options.final_lr)
    for group in adam.param_groups:
        group["lr"] = group["base_lr"] * scale
    loss = ((field(at.x).float() - at.y).square().mean(dim=1) * at.weight).sum()
    adam.zero_grad(set_to_none=True)
    loss.backward()
    adam.step()


def _finite(error: float, step: int, adam: torch.optim.Adam) -> None:
    if not math.isfinite(error):
        rates = ", ".join(f"{group['base_lr']:g}" for group in adam.param_groups)
        raise DivergedError(
            f"predicting the fit, the error became {error} at or before step {step}; learning rates were {rates}. Try a "
            f"smaller fit.lr or fit.warmup_steps=100"
        )


def _weights(field: Field, adam: torch.optim.Adam, options: FitOptions) -> dict[str, float]:
    """Adam's factors by parameter, from its second moments; those of parameters that never had a gradient are 0."""
    rates = {p: group["base_lr"] for group in adam.param_groups for p in group["params"]}
    found = {}
    for name, parameter in field.named_parameters():
        if parameter in rates:
            state = adam.state[parameter]
            v = float(state["exp_avg_sq"].mean()) / (1 - options.beta2 ** float(state["step"]))
            found[name] = rates[parameter] / (math.sqrt(v) + options.eps) if v > 0 else 0.0
    largest = max(found.values()) or 1.0
    return {name: value / largest for name, value in found.items()}


def _energy(field: Field, signal: ImageSignal, weights: dict[str, float]) -> dict[str, float]:
    x = spread(signal, SampleSet(signal.split.n_train, signal.split.train), _TRACED).x
    parts = empirical_parts(field, x.to(field.device))
    traces = {name: weights[name] * float(part.diagonal().sum()) for name, part in parts.items()}
    total = sum(traces.values()) or 1.0
    return {name: value / total for name, value in traces.items()}
