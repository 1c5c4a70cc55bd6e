"""How a fit is judged while it runs and at its end: one number, and its words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

Values = Float[Tensor, "n channels"]


@dataclass(frozen=True)
class Quality:
    """A number that is higher for a better fit.

    - `key`: its name in files ("psnr"); `label`: for a person ("PSNR"); `unit`: behind the number (" dB", or nothing).
    - `digits`: behind the point.
    - `measure`: from what the field gives and the truth, at the same samples.
    """

    key: str
    label: str
    unit: str
    digits: int
    measure: Callable[[Values, Values], float]

    def words(self, value: float | None) -> str:
        """``PSNR 31.20 dB``."""
        return f"{self.label} not a number" if value is None else f"{self.label} {value:.{self.digits}f}{self.unit}"


def _psnr(prediction: Values, target: Values) -> float:
    error = prediction.clamp(0, 1) - target.clamp(0, 1)
    mse = error.double().square().mean().item()
    return -10 * math.log10(mse) if mse > 0 else math.inf


def intersection_over_union(inside: Any, truth: Any) -> float:
    r"""$|A \cap B| / |A \cup B|$ of two solids, from booleans (tensors or arrays) at the same points; 1 if both are empty."""
    union = int((inside | truth).sum())
    return int((inside & truth).sum()) / union if union else 1.0


PSNR = Quality("psnr", "PSNR", " dB", 2, _psnr)
r"""$-10 \log_{10}$ of the mean squared error of values clamped to [0, 1]."""

IOU_OF_LOGITS = Quality(
    "iou", "IoU", "", 4, lambda prediction, target: intersection_over_union(prediction > 0, target > 0.5)
)
"""Intersection over union of the insides, where the field gives logits and the truth is 0 or 1."""

IOU_OF_DISTANCES = Quality(
    "iou", "IoU", "", 4, lambda prediction, target: intersection_over_union(prediction < 0, target < 0)
)
"""Intersection over union of the insides, where both are distances, negative inside."""
