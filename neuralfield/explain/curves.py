"""The curve of a fit: mean squared errors and PSNR against steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Curve:
    """A predicted fit.

    - `steps`: when.
    - `train_mse`, `heldout_mse`: mean squared errors over pixels and channels.
    - `f0_mse`: the part of heldout_mse that the initial function leaves there; 0 where errors were measured on real steps.
    - `weights`: by part of the network, its kernel's factor at the end, relative to the largest.
    - `energy`: by part, its share of the kernel that trains (of the trace), at the end.
    - `iou`: of a shape, the intersection over union of its inside on held-out points, at the end; else None.
    """

    steps: np.ndarray
    train_mse: np.ndarray
    heldout_mse: np.ndarray
    f0_mse: np.ndarray
    weights: dict[str, float]
    energy: dict[str, float]
    iou: float | None = None

    @property
    def train_psnr(self) -> np.ndarray:
        """dB, for values in [0, 1]."""
        return psnr(self.train_mse)

    @property
    def heldout_psnr(self) -> np.ndarray:
        """dB, for values in [0, 1]."""
        return psnr(self.heldout_mse)

    def scaled(self, train: float, heldout: float) -> Curve:
        """With all errors multiplied by these."""
        return replace(
            self, train_mse=train * self.train_mse, heldout_mse=heldout * self.heldout_mse, f0_mse=heldout * self.f0_mse
        )


def psnr(mse: np.ndarray) -> np.ndarray:
    """-10 log10 of mean squared errors, at most 150 dB, where float32 ends."""
    return -10 * np.log10(np.maximum(mse, 1e-15))


def powers(steps: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 11, 16, ... up to ``steps``, which is the last."""
    found = {int(2 ** (i / 2)) for i in range(2 * math.ceil(math.log2(max(steps, 2))) + 1)}
    return sorted({step for step in found if step < steps} | {steps})
