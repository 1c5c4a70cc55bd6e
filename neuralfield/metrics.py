"""How close a fitted image is to the truth: PSNR, SSIM and mean absolute error, streamed over blocks of rows.

Conventions (papers and libraries differ, and the third digit depends on them):

* values lie in [0, 1], data range 1, mean over all pixels *and* channels, sums in float64;
* ``psnr`` and ``mae`` compare values clamped to [0, 1]: what a viewer would see;
* ``psnr_8bit`` compares what an 8-bit file would hold, ``round(255 clip(x)) / 255``, of both images;
* ``psnr_unclamped`` compares the raw values: larger overshoots lower it;
* ``ssim`` follows Wang et al. 2004: Gaussian window 11 x 11 with sigma 1.5, population covariance, K1 = 0.01,
  K2 = 0.03, windows wholly inside the image, mean over pixels and channels of the clamped values.

Source: Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error visibility to
structural similarity", IEEE Trans. Image Processing 13 (2004) 600-612, computed here by scikit-image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Real
from torch import Tensor

from neuralfield.errors import SignalError

Rows = Callable[[int, int], np.ndarray]
"""``rows(start, stop)``: rows ``start`` to ``stop`` (excluded) of an image, ``[stop - start, width, channels]``."""

_RADIUS = 5  # of the SSIM window: 11 pixels a side
_BLOCK_PIXELS = 1 << 19  # per block: about 60 MB of float64 work space


def psnr_from_mse(mse: float) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 1: ``-10 log10(mse)``; infinity for ``mse == 0``.

    Raises:
        SignalError: ``mse`` is negative or not a number.
    """
    if not mse >= 0:
        raise SignalError(f"a mean squared error must be at least 0, got {mse}")
    return -10 * math.log10(mse) if mse > 0 else math.inf


@dataclass
class ImageErrors:
    """Sums of squared and absolute errors over any number of blocks, in float64.

    Blocks may have any shape and may be held-out pixels as well as rows; the results do not depend on how the values
    were cut into blocks. A single value that is not finite (in the truth or in the fit) makes every result ``None``:
    clamping would turn an infinite value into a harmless looking 0 or 1.
    """

    count: int = 0
    not_finite: int = 0
    squared: float = 0.0
    squared_8bit: float = 0.0
    squared_unclamped: float = 0.0
    absolute: float = 0.0

    def add(self, truth: Real[np.ndarray, ...], fit: Real[np.ndarray, ...]) -> None:
        """Add one block of values, [0, 1] nominally; both arrays have the same shape."""
        a, b = np.asarray(truth, np.float64), np.asarray(fit, np.float64)
        if a.shape != b.shape:
            raise SignalError(f"the truth has shape {a.shape} and the fit {b.shape}; they must be the same")
        self.count += a.size
        bad = int(np.count_nonzero(~(np.isfinite(a) & np.isfinite(b))))
        self.not_finite += bad
        if bad:
            return
        self.squared_unclamped += _sum_of_squares(a - b)
        a, b = a.clip(0, 1), b.clip(0, 1)
        difference = a - b
        self.squared += _sum_of_squares(difference)
        self.absolute += float(np.abs(difference).sum())
        self.squared_8bit += _sum_of_squares((np.rint(a * 255) - np.rint(b * 255)) / 255)

    def results(self) -> dict[str, Any]:
        """``psnr``, ``psnr_8bit``, ``psnr_unclamped`` in dB (infinity if equal) and ``mae``, in units of the values.

        All four are ``None``, with the cause in ``psnr_reason``, if nothing was added or a value was not finite.
        """
        if self.count == 0 or self.not_finite:
            reason = (
                f"{self.not_finite} of {self.count} values are not finite" if self.count else "no values to compare"
            )
            return {"psnr": None, "psnr_8bit": None, "psnr_unclamped": None, "mae": None, "psnr_reason": reason}
        return {
            "psnr": psnr_from_mse(self.squared / self.count),
            "psnr_8bit": psnr_from_mse(self.squared_8bit / self.count),
            "psnr_unclamped": psnr_from_mse(self.squared_unclamped / self.count),
            "mae": self.absolute / self.count,
        }


class SSIM:
    """Mean structural similarity of two images that arrive in blocks of rows from top to bottom.

    The result equals that of the whole image: the last ten rows of each block are kept, so that every 11 x 11 window
    is seen once. Memory is that of one block and ten rows.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.count = 0
        self._kept: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, truth: Real[np.ndarray, "rows width channels"], fit: Real[np.ndarray, "rows width channels"]) -> None:
        """Add the next rows; values are clamped to [0, 1]."""
        a, b = np.asarray(truth, np.float64).clip(0, 1), np.asarray(fit, np.float64).clip(0, 1)
        if self._kept is not None:
            a, b = np.concatenate([self._kept[0], a]), np.concatenate([self._kept[1], b])
        if min(a.shape[:2]) > 2 * _RADIUS:
            for channel in range(a.shape[2]):  # one at a time: the work space is ten times its input
                inside = _similarity(a[..., channel], b[..., channel])
                self.total += float(inside.sum())
                self.count += inside.size
        self._kept = a[-2 * _RADIUS :].copy(), b[-2 * _RADIUS :].copy()

    def result(self) -> float | None:
        """Mean over all windows and channels, at most 1; ``None`` if no window fitted inside the image."""
        return self.total / self.count if self.count else None


def image_quality(
    rows_truth: Rows, rows_fit: Rows, height: int, width: int, channels: int, block_rows: int | None = None
) -> dict[str, Any]:
    """Compare two images that need not fit into memory.

    Args:
        rows_truth: gives rows ``[start, stop)`` of the truth as ``[stop - start, width, channels]``, values in [0, 1].
        rows_fit: the same of the fit. Each row of both is asked for once, from top to bottom, so that the function may
            render them.
        height: rows of the image, in pixels.
        width: columns of the image, in pixels.
        channels: values per pixel.
        block_rows: rows per block; by default as many as make half a million pixels. Does not change the results.

    Returns:
        ``psnr``, ``psnr_8bit``, ``psnr_unclamped`` in dB, infinity for equal images; ``mae`` in [0, 1]; ``ssim`` in
        [-1, 1]. A measure that cannot be computed is ``None``, with the cause in ``psnr_reason`` (values that are not
        finite; these four and SSIM) or ``ssim_reason`` (also a side below 11 pixels).

    Raises:
        SignalError: a function returned rows of another shape.
    """
    step = max(1, _BLOCK_PIXELS // max(1, width)) if block_rows is None else max(1, block_rows)
    errors, similarity = ImageErrors(), SSIM()
    wide_enough = min(height, width) > 2 * _RADIUS
    for start in range(0, height, step):
        stop = min(start + step, height)
        truth, fit = np.asarray(rows_truth(start, stop)), np.asarray(rows_fit(start, stop))
        for name, rows in (("truth", truth), ("fit", fit)):
            if rows.shape != (stop - start, width, channels):
                expected = [stop - start, width, channels]
                raise SignalError(f"rows {start} to {stop} of the {name} have shape {list(rows.shape)}, not {expected}")
        errors.add(truth, fit)
        if wide_enough and not errors.not_finite:
            similarity.add(truth, fit)

    quality = errors.results()
    quality["ssim"] = None
    if "psnr_reason" in quality:
        quality["ssim_reason"] = quality["psnr_reason"]
    elif not wide_enough:
        quality["ssim_reason"] = (
            f"SSIM needs sides of at least {2 * _RADIUS + 1} pixels, the image has {width} x {height}"
        )
    else:
        quality["ssim"] = similarity.result()
    return quality


def _sum_of_squares(values: np.ndarray) -> float:
    return float(np.square(values).sum())


def _similarity(truth: np.ndarray, fit: np.ndarray) -> np.ndarray:
    """SSIM of each window that lies wholly inside ``[rows, columns]``."""
    from skimage.metrics import structural_similarity  # half a second to import

    _, full = structural_similarity(
        truth, fit, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, full=True
    )
    return full[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]


def psnr_over(
    truth: Callable[[Tensor], Tensor], fit: Callable[[Tensor], np.ndarray], portions: Iterable[Tensor]
) -> float | None:
    """PSNR over some samples alone, a portion of their indices at a time; None where the fit is not finite."""
    errors = ImageErrors()
    for index in portions:
        errors.add(truth(index).numpy(), fit(index))
    psnr: float | None = errors.results()["psnr"]
    return psnr
