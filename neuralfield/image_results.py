"""What a finished fit of an image leaves in its folder: its quality and its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from neuralfield import viz
from neuralfield.export import render, write_image
from neuralfield.field import Field
from neuralfield.fitting.progress import Notes, Silent
from neuralfield.lpips import LARGEST_AUTO_PIXELS, lpips_distance
from neuralfield.metrics import image_quality, psnr_over
from neuralfield.run_folder import COMPARISON, RECONSTRUCTION
from neuralfield.signals.colour import convert, to_display
from neuralfield.signals.image import ImageSignal
from neuralfield.signals.resizing import averaged

PICTURE_SIDE = 1024
"""Longest side of an image within a figure; larger ones are reduced first."""


def write(
    signal: ImageSignal,
    field: Field,
    known: Mapping[str, Any],
    folder: Path,
    *,
    metrics: Mapping[str, Any],
    tell: Silent,
    **_: Any,
) -> dict[str, Any]:
    """Write the reconstruction and its comparison into `folder`; returns what was measured.

    `known` are the numbers of the fit, for captions; `metrics` the options of that group.
    """
    height, width = signal.shape
    notes = Notes(tell, "drawing the reconstruction")
    fit = render(field, width, height, on_rows=lambda rows: notes(rows / height))
    found = measure(signal, fit, metrics.get("lpips", "auto"))
    write_image(folder / RECONSTRUCTION, fit if signal.out_dim <= 4 else fit[..., :3], signal.space)
    _compare(signal, fit, {**known, **found}, folder)
    return found


def measure(signal: ImageSignal, fit: Float[np.ndarray, "height width channels"], lpips: str = "off") -> dict[str, Any]:
    """Quality of a reconstruction: over all pixels, and PSNR over the training and the held-out ones alone."""
    height, width = signal.shape
    metrics = image_quality(signal.rows, lambda start, stop: fit[start:stop], height, width, signal.out_dim)
    metrics["psnr_train"], metrics["psnr_heldout"] = metrics["psnr"], None
    if signal.split.n_heldout:
        flat = fit.reshape(-1, fit.shape[2])
        for name, samples in signal.judged_on().items():
            metrics[name] = psnr_over(signal.values, lambda index: flat[index.numpy()], samples.portions())
    # A stand-in of the same shape is enough for LPIPS to say that it is off or the image too large.
    small = lpips != "off" and signal.n_pixels <= LARGEST_AUTO_PIXELS
    truth = signal.rows(0, height) if small or lpips == "download" else np.broadcast_to(np.float32(0), fit.shape)
    distance = lpips_distance(truth, fit, mode=lpips)
    metrics["lpips"] = distance.value
    if distance.reason is not None:
        metrics["lpips_reason"] = distance.reason
    return metrics


def _compare(signal: ImageSignal, fit: np.ndarray, numbers: Mapping[str, Any], folder: Path) -> None:
    truth = signal.preview(PICTURE_SIDE)
    error = np.empty(signal.shape, np.float32)
    for start in range(0, signal.height, 256):
        rows = slice(start, min(start + 256, signal.height))
        difference = np.clip(signal.rows(rows.start, rows.stop), 0, 1) - np.clip(fit[rows], 0, 1)
        error[rows] = np.abs(difference).mean(axis=2)
    shown = ("encoding", "psnr", "psnr_heldout", "ssim", "steps", "train_seconds", "n_parameters")
    viz.comparison(
        truth,
        thumbnail(fit, signal.space),
        _reduced(error[..., None], "linear")[..., 0],
        title=f"{signal.name}: truth, fit and error",
        path=folder / COMPARISON,
        captions={key: numbers[key] for key in shown},
    )


def thumbnail(
    image: Float[np.ndarray, "height width channels"], space: str, side: int = PICTURE_SIDE
) -> UInt8[np.ndarray, "h w 3"]:
    """An sRGB picture for a figure, its longest side at most `side`; reduced by averaging whole blocks."""
    if max(image.shape[:2]) <= side:
        return to_display(image, space)
    return to_display(_reduced(image, space, side), "linear")


def _reduced(image: np.ndarray, space: str, side: int = PICTURE_SIDE) -> np.ndarray:
    """Block averages in linear light, the longest side at most `side`."""
    factor = -(-max(image.shape[:2]) // side)
    if factor == 1:
        return image
    return averaged(lambda start, stop: convert(image[start:stop], space, "linear"), image.shape[0], factor)
