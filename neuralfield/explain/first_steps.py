"""Behind a hash grid: some real steps, then the prediction from the field as it stands there.

A grid starts from features of 1e-4, where its network sees next to nothing, and both change most in the first dozens of
steps. A copy of the field makes those, on the signal itself, and keeps Adam's moments of them; the kernel is that of the
weights then. What windows say of the steps to come is joined to what all of the signal said of the last real one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuralfield.explain.curves import Curve
from neuralfield.explain.follow import alike, follow, iou, mean_curve
from neuralfield.explain.judge import judge_of, judge_of_windows
from neuralfield.explain.one_result import OneResult
from neuralfield.explain.patches import Patch, patches
from neuralfield.explain.window_kernels import by_part
from neuralfield.field import Field
from neuralfield.fitting.loop import Trainer
from neuralfield.fitting.options import FitOptions
from neuralfield.ntk.adam_moments import Start
from neuralfield.signals.base import Signal

_FEWEST, _SHARE = 64, 16  # real steps: so many, of a long fit a sixteenth
_SIDE, _MOST = 16, 9  # training pixels along a window of an image, and how many windows
_MOST_LARGE = 5  # windows of other signals


@dataclass(frozen=True)
class Begun:
    """The first steps of a fit.

    - `field`: a copy, as it stands after `steps` of them.
    - `at`, `train_mse`, `heldout_mse`: errors on the way, and at the end.
    - `moments`: by parameter, what Adam keeps of squared gradients.
    """

    field: Field
    steps: int
    at: np.ndarray
    train_mse: np.ndarray
    heldout_mse: np.ndarray
    moments: dict[str, Tensor]

    def errors(self, at: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the steps ``at`` those that were made, and the errors on training and held-out samples there."""
        wanted = np.isin(self.at, at)
        return self.at[wanted], self.train_mse[wanted], self.heldout_mse[wanted]

    def start(self, parts: Iterable[str]) -> Start:
        """Where Adam stands, by part of the kernel."""
        found = by_part(self.field, parts, self.moments)
        return Start(self.steps, {name: float(value.mean()) for name, value in found.items()})


_last: OneResult[Begun] = OneResult()


def first_steps(options: FitOptions, first: int | None = None) -> int:
    """How many steps are real: ``first``, or as many as the budget suggests; all of a short fit."""
    assert options.steps is not None
    return min(max(_FEWEST, options.steps // _SHARE) if first is None else first, options.steps)


def begin(
    field: Field, signal: Signal, options: FitOptions, count: int, windows: Sequence[Patch], at: Sequence[int] = ()
) -> Begun:
    """Make the first ``count`` steps of a fit, or take those that were made last if they were of the same.

    **Arguments**

    - `at`: steps at which errors are measured: on the signal's samples, of a shape on those of its windows.
    """
    found = _last.find(field, signal, options)
    if found is not None and found.steps == count and set(at) <= set(found.at.tolist()):
        return found
    trained = copy.deepcopy(field)
    judge = judge_of_windows(windows) if signal.type == "shape" else judge_of(signal)
    trainer = Trainer(trained, signal, options, progress=False)
    looks = sorted({step for step in at if step < count} | {count})
    for step in range(count + 1):
        if step in looks:
            judge.look(trained)
        if step < count:
            trainer.train_step()
            trainer.state.step = step + 1
    errors = judge.errors(trained)
    state = trainer.optimizer.state
    moments = {
        name: state[p]["exp_avg_sq"] if "exp_avg_sq" in state[p] else torch.zeros_like(p)
        for name, p in trained.named_parameters()
    }
    begun = Begun(trained, count, np.array(looks), errors["train"], errors["heldout"], moments)
    return _last.keep(field, signal, options, begun)


def behind_a_grid(
    field: Field, signal: Signal, options: FitOptions, windows: list[Patch], at: list[int], first: int | None = None
) -> Curve:
    """The curve of a field with a hash grid; ``first``: how many steps are real, at most."""
    count = first_steps(options, first)
    begun = begin(field, signal, options, count, windows, [step for step in at if step <= count])
    steps, train, heldout = begun.errors(at)
    later = [step - count for step in at if step > count]
    if not later:
        with torch.no_grad():
            residuals = [begun.field(w.x_test) - w.y_test for w in windows]
        return Curve(steps, train, heldout, 0 * heldout, {}, {}, iou(signal, residuals, windows))
    groups = alike(_fewer(signal, windows))
    pieces = [follow(begun.field, signal, options, group, [0, *later], begun=begun) for group in groups]
    curve = mean_curve(signal, pieces, groups)
    # On windows it was as far by now as `curve` begins; on all of the signal as the last real step left it.
    curve = curve.scaled(
        begun.train_mse[-1] / max(curve.train_mse[0], 1e-30), begun.heldout_mse[-1] / max(curve.heldout_mse[0], 1e-30)
    )
    return Curve(
        np.concatenate([steps, curve.steps[1:] + count]),
        np.concatenate([train, curve.train_mse[1:]]),
        np.concatenate([heldout, curve.heldout_mse[1:]]),
        np.concatenate([0 * heldout, curve.f0_mse[1:]]),
        curve.weights,
        curve.energy,
        curve.iou,
    )


def _fewer(signal: Signal, windows: list[Patch]) -> list[Patch]:
    """Windows whose kernels, which are all different, do not cost too much: smaller ones of an image, else fewer."""
    if signal.in_dim == 2:
        small = math.prod(windows[0].box[2:]) <= (2 * _SIDE) ** 2
        return windows if small else patches(signal, _SIDE, _MOST)
    return [windows[i] for i in np.linspace(0, len(windows) - 1, min(_MOST_LARGE, len(windows))).astype(int)]
