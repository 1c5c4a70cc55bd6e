"""How far a field that is being trained is from the samples of a signal: on few of them on the way, on many at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.explain.patches import Patch
from neuralfield.field import Field
from neuralfield.fitting.evaluation import evaluate
from neuralfield.signals.base import SampleSet, Signal
from neuralfield.signals.sampling import StratifiedBatches

_FEW, _MANY = 2**10, 2**13


@dataclass(frozen=True)
class Samples:
    """Coordinates, values and how much each counts; `clamped`: whether errors are of values clamped to [0, 1], as PSNR is."""

    x: Float[Tensor, "n dim"]
    y: Float[Tensor, "n channels"]
    counted: Float[Tensor, " n"]
    clamped: bool

    def error(self, of: Field) -> float:
        """Mean square error; not a number if any value is infinite."""
        found = evaluate(of, self.x)
        if not bool(found.isfinite().all()):
            return math.nan
        difference = found.clamp(0, 1) - self.y.clamp(0, 1) if self.clamped else found - self.y
        return float((difference.square().mean(dim=1) * self.counted).sum() / self.counted.sum())


@dataclass
class Judge:
    """Looks at a field from time to time.

    - `few`, `many`: samples by name, "train" and "heldout". `found`: what was seen, by name.
    """

    few: dict[str, Samples]
    many: dict[str, Samples]
    found: dict[str, list[float]] = field(default_factory=lambda: {"train": [], "heldout": []})

    def look(self, of: Field) -> float:
        """Take down the errors; returns their sum, which is not a number where one is not."""
        for name, samples in self.few.items():
            self.found[name].append(samples.error(of))
        return sum(seen[-1] for seen in self.found.values())

    def errors(self, of: Field) -> dict[str, np.ndarray]:
        """What was seen, for all samples: the few may be smoother or rougher than the many, as the field of the last look
        shows."""
        return {
            name: np.array(seen) * (self.many[name].error(of) / max(seen[-1], 1e-30))
            for name, seen in self.found.items()
        }


def judge_of(signal: Signal) -> Judge:
    """On evenly spread samples."""
    parts = {
        "train": SampleSet(signal.split.n_train, signal.split.train),
        "heldout": SampleSet(signal.split.n_heldout, signal.split.heldout),
    }
    few, many = ({name: spread(signal, part, most) for name, part in parts.items()} for most in (_FEW, _MANY))
    return Judge(few, many)


def judge_of_windows(windows: Sequence[Patch]) -> Judge:
    """On what counts of the windows' samples."""
    x, y, x_test, y_test, counted = (
        torch.cat([getattr(window, name).cpu() for window in windows])
        for name in ("x", "y", "x_test", "y_test", "counted")
    )
    samples = {
        "train": Samples(x, y, torch.ones_like(y[:, 0]), False),
        "heldout": Samples(x_test, y_test, counted, False),
    }
    return Judge(samples, samples)


def spread(signal: Signal, samples: SampleSet, most: int) -> Samples:
    """Evenly spread ones."""
    index = samples.index(StratifiedBatches(samples.n, most).batch(0))
    x, y = signal.coordinates(index), signal.values(index).float()
    return Samples(x, y, torch.ones(len(x)), True)
