"""What every choice by prediction shares: how one setting is judged, and what is told of the curve that decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from neuralfield.explain.candidates import budget, setting
from neuralfield.explain.patches import Patch
from neuralfield.explain.predictor import QUICK, predict
from neuralfield.explain.verdict import TOLERANCE
from neuralfield.fitting.options import FitOptions
from neuralfield.signals.base import Signal


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The predicted curve that a number was chosen by.

    - `heldout_psnr`: what was predicted, in the order of the numbers that were tried.
    - `maximum`: the predicted maximum, dB, `at` this number; `flat`: those between which it is within 0.1 dB of it.
    - `steps`: the budget; `seconds`: what the choice took.
    - `assumed_holdout`: predicted with every other pixel held out, because the signal holds out none.
    - `sample`: "pixel", "voxel" or "point"; `note`: what is predicted in place of what is fitted, or nothing.
    """

    heldout_psnr: list[float]
    maximum: float
    at: float
    flat: tuple[float, float]
    steps: int
    seconds: float
    assumed_holdout: bool
    sample: str = "pixel"
    note: str = ""

    def _sentence(self, taken: str, unit: str, evidence: str) -> str:
        assumed = f"; judged with every other {self.sample} held out" if self.assumed_holdout else ""
        return (
            f"{taken} for {self.steps:,} steps: the highest predicted held-out PSNR is {self.maximum:.1f} dB at "
            f"{unit}{self.at:g}, and within {TOLERANCE:g} dB of it from {self.flat[0]:g} to {self.flat[1]:g} "
            f"({evidence} {self.seconds:.1f} s{assumed})"
        ) + (f". {self.note}" if self.note else "")


def flat_range(values: Sequence[float] | Float[np.ndarray, " n"], tolerance: float = TOLERANCE) -> tuple[int, int]:
    """The first and the last place around the maximum between which all values are within ``tolerance`` of it."""
    values = np.asarray(values)
    low = high = int(values.argmax())
    least = values[low] - tolerance
    while low > 0 and values[low - 1] >= least:
        low -= 1
    while high < len(values) - 1 and values[high + 1] >= least:
        high += 1
    return low, high


def heldout_at_budget(
    judge: Signal,
    encoding: Mapping[str, Any],
    network: Mapping[str, Any] | nn.Module | None,
    options: FitOptions,
    windows: Sequence[Patch],
    seed: int,
    device: torch.device,
    wide: int | None = None,
) -> float:
    """Predicted held-out PSNR at the budget, dB; with little effort: the order of settings is the same.

    **Arguments**

    - `judge`: the signal, with something held out. `windows`, `wide`: see :func:`~neuralfield.explain.predictor.predict`.
    - `device`: of the fit, which decides its batch size; the prediction is made on the CPU.
    """
    one = setting(judge, encoding, network, seed)
    field = one.build(judge, seed, torch.device("cpu"))
    return float(
        predict(field, judge, one.options(options, device), windows, [budget(options)], wide, QUICK).heldout_psnr[-1]
    )
