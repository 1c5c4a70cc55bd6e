r"""How close a fitted volume is to the truth: PSNR, SSIM and mean absolute error, streamed over slabs of slices.

The conventions are those of :mod:`~neuralfield.metrics`, one dimension up: values lie in [0, 1] (a volume's are normalised
to its own range), data range 1, mean over all voxels *and* channels, sums in float64; ``psnr``, ``mae`` and ``ssim`` see
values clamped to [0, 1], ``psnr_unclamped`` sees them as they are.

``ssim`` follows Wang et al. 2004 with the window carried over to three dimensions: a Gaussian of 11 x 11 x 11 voxels with
sigma 1.5 **voxels** (also where voxels are not cubes), population covariance, K1 = 0.01, K2 = 0.03, windows wholly inside
the volume, mean over voxels and channels. It is what scikit-image's ``structural_similarity(gaussian_weights=True,
sigma=1.5, use_sample_covariance=False)`` gives for the whole volume. It differs from a mean over slices of the 2D measure,
which some papers report.

Source: Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error visibility to structural
similarity", IEEE Trans. Image Processing 13 (2004) 600-612.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Real

from neuralfield.errors import SignalError
from neuralfield.metrics import ImageErrors

Slab = Callable[[int, int], np.ndarray]
"""``slab(start, stop)``: slices ``start`` to ``stop`` (excluded) of a volume, ``[stop - start, y, x, channels]``."""

_RADIUS = 5  # of the SSIM window: 11 voxels a side
_HALO = 2 * _RADIUS
_SLAB_VALUES = 1 << 24  # per slab: 64 MiB in float32
_MOST_SLICES = 32
_BLOCK_VALUES = 1 << 20  # whose similarity is computed at once: about 130 MB of float64 work space


class VolumeSSIM:
    """Mean structural similarity of two volumes that arrive in slabs of slices, from the first slice to the last.

    The result equals that of the whole volume: the last ten slices are kept, so that every window is seen once. Memory
    is that of the slab and ten slices, in float32, twice, and 130 MB of work space.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.count = 0
        self._kept: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, truth: Real[np.ndarray, "k y x channels"], fit: Real[np.ndarray, "k y x channels"]) -> None:
        """Add the next slices; values are clamped to [0, 1]."""
        a, b = _clamped(truth), _clamped(fit)
        if self._kept is not None:
            a, b = np.concatenate([self._kept[0], a]), np.concatenate([self._kept[1], b])
        if min(a.shape[:3]) > _HALO:
            # Strips of rows, which overlap as slabs do; a channel at a time.
            rows = max(_HALO, _BLOCK_VALUES // (len(a) * a.shape[2]) - _HALO)
            for start in range(0, a.shape[1] - _HALO, rows):
                strip = slice(start, start + rows + _HALO)
                for channel in range(a.shape[3]):
                    inside = _similarity(a[:, strip, :, channel], b[:, strip, :, channel])
                    self.total += float(inside.sum())
                    self.count += inside.size
        self._kept = a[-_HALO:].copy(), b[-_HALO:].copy()

    def result(self) -> float | None:
        """Mean over all windows and channels, at most 1; ``None`` if no window fitted inside the volume."""
        return self.total / self.count if self.count else None


def volume_quality(
    truth_slab: Slab,
    fit_slab: Slab,
    depth: int,
    height: int,
    width: int,
    channels: int,
    *,
    slices: int | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Compare two volumes that need not fit into memory.

    Args:
        truth_slab: gives slices ``[start, stop)`` of the truth as ``[stop - start, height, width, channels]``, values in
            [0, 1].
        fit_slab: the same of the fit. Each slice of both is asked for once, in order, so that it may evaluate the field.
        depth: slices of the volume (along z).
        height: voxels along y.
        width: voxels along x.
        channels: values per voxel.
        slices: in a slab; by default up to 32, of at most 16 million values together. Does not change the results.
        on_progress: called with the fraction done, after each slab.

    Returns:
        ``psnr`` and ``psnr_unclamped`` in dB, infinity for equal volumes; ``mae`` in [0, 1]; ``ssim`` in [-1, 1]. A measure
        that cannot be computed is ``None``, with the cause in ``psnr_reason`` (values that are not finite; these three and
        SSIM) or ``ssim_reason`` (also a side below 11 voxels).

    Raises:
        SignalError: a function returned slices of another shape.
    """
    step = max(1, min(_MOST_SLICES, _SLAB_VALUES // max(1, height * width * channels)) if slices is None else slices)
    errors, similarity = ImageErrors(), VolumeSSIM()
    large_enough = min(depth, height, width) > _HALO
    for start in range(0, depth, step):
        stop = min(start + step, depth)
        truth, fit = np.asarray(truth_slab(start, stop)), np.asarray(fit_slab(start, stop))
        for name, slab in (("truth", truth), ("fit", fit)):
            if slab.shape != (stop - start, height, width, channels):
                expected = [stop - start, height, width, channels]
                raise SignalError(
                    f"slices {start} to {stop} of the {name} have shape {list(slab.shape)}, not {expected}"
                )
        _add_errors(errors, truth, fit)
        if large_enough and not errors.not_finite:
            similarity.add(truth, fit)
        if on_progress is not None:
            on_progress(stop / depth)

    quality = errors.results()
    del quality["psnr_8bit"]  # no one looks at a volume through an 8-bit file
    quality["ssim"] = None
    if "psnr_reason" in quality:
        quality["ssim_reason"] = quality["psnr_reason"]
    elif not large_enough:
        quality["ssim_reason"] = (
            f"SSIM needs sides of at least {_HALO + 1} voxels, the volume has {width} x {height} x {depth}"
        )
    else:
        quality["ssim"] = similarity.result()
    return quality


def _add_errors(errors: ImageErrors, truth: np.ndarray, fit: np.ndarray) -> None:
    """Rows of voxels at a time: sums in float64 take several copies."""
    flat = truth.reshape(-1), fit.reshape(-1)
    for start in range(0, truth.size, _BLOCK_VALUES):
        errors.add(flat[0][start : start + _BLOCK_VALUES], flat[1][start : start + _BLOCK_VALUES])


def _clamped(values: np.ndarray) -> Float32[np.ndarray, "k y x channels"]:
    """In float32, which halves the memory and moves SSIM by less than 1e-7."""
    return np.clip(values, 0, 1).astype(np.float32, copy=False)


def _similarity(truth: np.ndarray, fit: np.ndarray) -> Float64[np.ndarray, "z y x"]:
    """SSIM of each window that lies wholly inside ``[slices, rows, columns]``."""
    from skimage.metrics import structural_similarity  # half a second to import

    _, full = structural_similarity(
        truth.astype(np.float64),
        fit.astype(np.float64),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        full=True,
    )
    return full[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
