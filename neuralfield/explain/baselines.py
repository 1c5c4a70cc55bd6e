"""What a prediction has to beat, always shown beside it: interpolation, fixed bandwidths, and a short sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CloughTocher2DInterpolator, NearestNDInterpolator, PchipInterpolator, RectBivariateSpline

from neuralfield.explain.baselines_3d import interpolation_psnr
from neuralfield.explain.curves import psnr
from neuralfield.explain.explanation import SigmaCurve
from neuralfield.explain.patches import Patch, whole
from neuralfield.signals.base import Signal
from neuralfield.signals.holdout import RandomSplit

AVERAGE_SIGMA = 10.0
"""Cycles per image side: the best of a sweep over natural images, on average (Tancik et al. 2020, section 6 and table 1)."""

_WHOLE = 2**18  # training pixels
_SCATTERED = 2**12  # training voxels that are no lattice
_AVERAGE_LATTICE = 256  # training pixels along a side there


def bicubic_psnr(windows: Sequence[Patch]) -> float:
    """PSNR of cubic interpolation of the training pixels on the held-out pixels that count, dB."""
    errors, counts = [], []
    for window in windows:
        error = np.square(bicubic(window) - window.y_test.cpu().numpy()).mean(axis=1)
        counted = window.counted.cpu().numpy()
        errors.append(float((error * counted).sum()))
        counts.append(float(counted.sum()))
    return float(psnr(np.array([sum(errors) / sum(counts)]))[0])


def bicubic(window: Patch) -> Float[np.ndarray, "m channels"]:
    """Training pixels interpolated at the held-out ones: a bicubic spline on a lattice, else piecewise cubic on triangles."""
    x, y = window.x.double().cpu().numpy(), window.y.double().cpu().numpy()
    at = window.x_test.double().cpu().numpy()
    columns, rows = np.unique(x[:, 0]), np.unique(x[:, 1])
    if len(columns) * len(rows) == len(x) and min(len(columns), len(rows)) > 1:
        grid = y.reshape(len(rows), len(columns), -1)  # training pixels come row by row
        orders = {"kx": min(3, len(rows) - 1), "ky": min(3, len(columns) - 1)}
        channels = [
            RectBivariateSpline(rows, columns, grid[:, :, c], **orders).ev(at[:, 1], at[:, 0])
            for c in range(grid.shape[2])
        ]
        return np.stack(channels, axis=1)
    inside = CloughTocher2DInterpolator(x, y)(at)
    # Outside the triangles there is nothing to interpolate.
    return np.where(np.isnan(inside), NearestNDInterpolator(x, y)(at), inside)


def baselines(
    signal: Signal, windows: Sequence[Patch], sigma: SigmaCurve | None
) -> dict[str, float | str | dict[str, Any]]:
    """Every baseline that needs no training.

    - `bicubic`: held-out PSNR of interpolation; of volumes and shapes `nearest`, `linear` and `cubic`.
    - `average_sigma`: the bandwidth that is best for photographs on average, in cycles per image side; only of images.
    - `nyquist_sigma`: the same as a fraction of the training lattice's Nyquist frequency, applied to this lattice.

    Each of the latter with the held-out PSNR that is predicted for it (`predicted`, read off the sigma curve) and by how
    much that is below the curve's maximum (`lost`); both None beyond the curve.
    """
    # On all of the image where that takes no long time: windows may be rougher or smoother.
    small = signal.split.n_train <= (_WHOLE if _on_lattice(signal) else _SCATTERED)
    seen = [whole(signal)] if small and signal.type != "shape" else windows
    found: dict[str, float | str | dict[str, Any]] = {}
    if signal.in_dim == 2:
        found["bicubic"] = bicubic_psnr(seen)
    else:
        found |= interpolation_psnr(seen)
    if sigma is not None and len(sigma.sigmas) > 1:
        if signal.in_dim == 2:
            found["average_sigma"] = _fixed(
                AVERAGE_SIGMA, sigma, "best on average over photographs in Tancik et al. 2020, table 1"
            )
        of_photographs = "" if signal.in_dim == 2 else ", as for photographs"
        share = f"{2 * AVERAGE_SIGMA / _AVERAGE_LATTICE:.3g} of Nyquist{of_photographs}"
        found["nyquist_sigma"] = _fixed(nyquist_sigma(signal), sigma, share)
    return found


def nyquist_sigma(signal: Signal) -> float:
    """The bandwidth that is best for photographs on average, as a fraction of Nyquist, on this signal's training lattice."""
    return AVERAGE_SIGMA * signal.lattice / _AVERAGE_LATTICE


def at_sigma(curve: SigmaCurve, sigma: float) -> float | None:
    """Predicted held-out PSNR at a bandwidth between those of the curve, dB; None beyond its ends."""
    if not curve.sigmas[0] <= sigma <= curve.sigmas[-1]:
        return None
    return float(PchipInterpolator(np.log2(curve.sigmas), curve.heldout_psnr)(math.log2(sigma)))


def _on_lattice(signal: Signal) -> bool:
    """Whether interpolation is that of a lattice, which is fast; an image's scattered pixels are triangulated as fast."""
    return signal.in_dim == 2 or not isinstance(signal.split, RandomSplit)


def _fixed(value: float, curve: SigmaCurve, source: str) -> dict[str, Any]:
    predicted = at_sigma(curve, value)
    lost = None if predicted is None else float(curve.heldout_psnr.max()) - predicted
    return {"sigma": value, "predicted": predicted, "lost": lost, "source": source}
