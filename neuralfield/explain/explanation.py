"""What an explanation holds: for each candidate what it will reach and why, and the sentence that follows from all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from neuralfield.explain.predictor import Curve


@dataclass
class KernelView:
    """A candidate's kernel to look at, all of it scaled to K(x, x) = 1 on average.

    - `pixels`: distances along a row of the image, in pixels; `row`: the kernel at those distances from the middle pixel.
    - `plane`: the kernel between the middle pixel and those around it, [size, size].
    - `fwhm`: full width at half maximum above the far level along the row, pixels.
    """

    pixels: Float[np.ndarray, " distances"]
    row: Float[np.ndarray, " distances"]
    plane: Float[np.ndarray, "size size"]
    fwhm: float


@dataclass
class Candidate:
    """One setting and its prediction.

    - `name`: as people call it: "fourier sigma=4"; `overrides`: as fit.py takes it: ["encoding=fourier", "encoding.sigma=4"].
    - `encoding`: options for :func:`neuralfield.field.build`.
    - `curve`: predicted; `n_parameters`, `seconds`: of the prediction.
    - `kernel`: to look at.
    - `eigenvalues`: of the kernel that trains, on one window, descending, relative to the first; `energy`: the part of the
      image's energy (mean removed) in each mode, same order.
    - `unlearned`: the predicted residual at the budget on one window, [height, width] root mean square over channels, or
      None.
    - `trained`: evaluations of a real fit (rows with step, psnr_train, psnr_heldout), where one was made.
    """

    name: str
    overrides: list[str]
    encoding: dict[str, Any]
    curve: Curve
    n_parameters: int
    seconds: float
    kernel: KernelView
    eigenvalues: Float[np.ndarray, " modes"]
    energy: Float[np.ndarray, " modes"]
    unlearned: Float[np.ndarray, "height width"] | None = None
    trained: list[dict[str, Any]] = field(default_factory=list)

    @property
    def heldout(self) -> float:
        """Predicted held-out PSNR at the budget, dB."""
        return float(self.curve.heldout_psnr[-1])

    @property
    def measured(self) -> float | None:
        """Measured held-out PSNR at the end of a real fit, dB."""
        return float(self.trained[-1]["psnr_heldout"]) if self.trained else None
