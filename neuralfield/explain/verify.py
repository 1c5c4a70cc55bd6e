"""The truth beside the prediction: real fits of the candidates, and the short sweeps that people make instead."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from neuralfield.checks import integer
from neuralfield.explain.after import After, Watch, moments
from neuralfield.explain.candidates import Setting, budget
from neuralfield.explain.curves import psnr
from neuralfield.explain.explanation import Candidate
from neuralfield.explain.patches import Patch
from neuralfield.field import Field
from neuralfield.fitting.evaluation import evaluate
from neuralfield.fitting.loop import Trainer
from neuralfield.fitting.options import FitOptions
from neuralfield.fitting.progress import Silent
from neuralfield.signals.base import SampleSet, Signal

_MOST = 2**18

SHORT = (5, 10)
"""Per cent of the budget that a short sweep gives each setting."""


def train(one: Setting, signal: Signal, options: FitOptions, seed: int, device: torch.device) -> list[dict[str, Any]]:
    """A real fit, of a shape by its own loss; its evaluations (step, seconds, loss, psnr_train, psnr_heldout).

    Those of a shape have iou_uniform and iou_surface instead; the last one has the PSNR of its labels or distances, too, on
    training points and on those near the surface.
    """
    return _trained(_trainer(Trainer, one, signal, options, seed, device))


def train_watched(
    one: Setting,
    signal: Signal,
    options: FitOptions,
    seed: int,
    device: torch.device,
    window: Patch,
    at: Sequence[int] | None = None,
) -> tuple[list[dict[str, Any]], After]:
    """:func:`train`, and how the kernel changed meanwhile on the window's training samples.

    **Arguments**

    - `at`: steps after which it is looked at, beside the last; None: 1, 3, 10, 32, ...
    """
    steps = budget(options)
    trainer = _trainer(_Watched, one, signal, options, seed, device)
    trainer.watch = Watch(trainer.field, signal, window)
    trainer.at = {
        steps,
        *(integer("a step to look at", step, 1, steps) for step in (moments(steps) if at is None else at)),
    }
    return _trained(trainer), trainer.watch.after()


class _Watched(Trainer):
    """Looks at its field's kernel after some of its steps, which is no training time."""

    watch: Watch
    at: set[int]

    def train_step(self) -> Tensor:
        loss = super().train_step()
        if self.state.step + 1 in self.at:
            paused = time.perf_counter()
            self.watch.see(self.state.step + 1)
            self._started += time.perf_counter() - paused
        return loss


_T = TypeVar("_T", bound=Trainer)


def _trainer(kind: type[_T], one: Setting, signal: Signal, options: FitOptions, seed: int, device: torch.device) -> _T:
    field = one.build(signal, seed, device)
    # Every held-out pixel is looked at: this is the truth. Of a volume, which may be far larger, enough of them are.
    every = signal.split.n_heldout if signal.type == "image" else min(signal.split.n_heldout, _MOST)
    options = replace(one.options(options, device), eval_points=max(options.eval_points, every))
    return kind(field, signal, options, seed=seed, progress=False)


def _trained(trainer: Trainer) -> list[dict[str, Any]]:
    history, field, signal = trainer.run().state.history, trainer.field, trainer.signal
    if signal.type == "shape":
        heldout = signal.judged_on()["iou_surface"]
        history[-1]["psnr_heldout"] = _psnr(field, signal, heldout)
        history[-1]["psnr_train"] = _psnr(field, signal, SampleSet(signal.split.n_train, signal.split.train))
    return history


def _psnr(field: Field, signal: Signal, samples: SampleSet) -> float:
    """Of labels, where the field gives logits, or of distances; on at most 2^18 samples, evenly spread."""
    index = samples.index(torch.linspace(0, samples.n - 1, min(samples.n, _MOST)).long())
    given = evaluate(field, signal.coordinates(index))
    given = given.sigmoid() if signal.logits else given
    error = float((given - signal.values(index)).square().mean())
    return float(psnr(np.array([error]))[0])


def short_sweeps(
    settings: Sequence[Setting],
    candidates: Sequence[Candidate],
    signal: Signal,
    options: FitOptions,
    seed: int,
    device: torch.device,
    tell: Silent,
) -> dict[str, dict[str, Any]]:
    """What a sweep of every candidate at 5 % and 10 % of the steps would have chosen.

    By "short_sweep_5" and "short_sweep_10": the setting it takes (`name`), the `steps` and `seconds` it takes in all, by how
    much the full fit of that setting is below the best full fit (`lost`, dB), and the rank correlation (`spearman`, None for
    fewer than three candidates). The candidates have to be trained.
    """
    full = np.array([candidate.measured for candidate in candidates])
    found: dict[str, dict[str, Any]] = {}
    for percent in SHORT:
        began = time.perf_counter()
        steps = max(1, budget(options) * percent // 100)
        shorter = replace(options, steps=steps)
        reached = np.array([train(one, signal, shorter, seed, device)[-1]["psnr_heldout"] for one in settings])
        chosen = int(reached.argmax())
        found[f"short_sweep_{percent}"] = {
            "name": candidates[chosen].name,
            "steps": steps * len(settings),
            "seconds": time.perf_counter() - began,
            "lost": float(full.max() - full[chosen]),
            "spearman": correlation(reached, full),
        }
        tell.note(f"  a sweep of {percent} % of the steps takes {candidates[chosen].name}")
    return found


def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's rank correlation; None for fewer than three numbers, or equal ones."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    from scipy.stats import spearmanr  # takes seconds to import

    return float(spearmanr(a, b).statistic)
