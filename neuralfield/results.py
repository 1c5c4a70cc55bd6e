"""What a finished fit leaves in its folder: numbers and pictures."""

from __future__ import annotations

import copy
import csv
import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from neuralfield import devices, encodings, viz
from neuralfield import field as fields
from neuralfield.encodings.hashgrid import HashGrid, engines
from neuralfield.export import render, write_image
from neuralfield.field import Field
from neuralfield.files import write_text
from neuralfield.fitting.loop import Outcome
from neuralfield.fitting.progress import LOG_SECONDS, Silent
from neuralfield.lpips import LARGEST_AUTO_PIXELS, lpips_distance
from neuralfield.metrics import ImageErrors, image_quality
from neuralfield.run_folder import BEST, COMPARISON, FIELD, HISTORY, RECONSTRUCTION, TRAINING
from neuralfield.signals.colour import convert, to_display
from neuralfield.signals.image import ImageSignal
from neuralfield.signals.resizing import averaged

FILES = (FIELD, BEST, HISTORY, RECONSTRUCTION, COMPARISON, TRAINING)
"""What a finished run leaves beside its metrics."""
PICTURE_SIDE = 1024
"""Longest side of an image within a figure; larger ones are reduced first."""


def write(
    signal: ImageSignal,
    field: Field,
    outcome: Outcome,
    folder: Path,
    *,
    lpips: str = "auto",
    tell: Silent | None = None,
) -> dict[str, Any]:
    """Write the field, its history and its pictures into `folder`; returns the numbers for `metrics.json`."""
    tell = tell or Silent()
    state = outcome.state
    fields.save(field, folder / FIELD)
    if state.best_step == state.step:
        (folder / BEST).unlink(missing_ok=True)
    else:
        with_best = copy.deepcopy(field)
        with_best.load_state_dict(outcome.best)
        fields.save(with_best, folder / BEST)
    _write_history(folder / HISTORY, state.history)
    height, width = signal.shape
    fit = render(field, width, height, on_rows=_Drawing(height, tell))
    metrics = {
        **measure(signal, fit, lpips),
        "steps": state.step,
        "train_seconds": state.seconds,
        "stopped_by": outcome.stopped_by,
        "best_psnr": state.best_psnr,
        "best_step": state.best_step,
        "n_parameters": field.n_parameters,
        "parameters_per_value": field.n_parameters / signal.n_values,
        "batch_size": outcome.batch_size,
        "encoding": encodings.registry.name_of(field.encoding),
        "device": devices.describe(field.device),
        "engine": engine_of(field),
        "signal": signal.describe(),
        "versions": devices.versions(),
    }
    write_image(folder / RECONSTRUCTION, fit if signal.out_dim <= 4 else fit[..., :3], signal.space)
    _write_pictures(signal, fit, metrics, state.history, folder)
    return metrics


class _Drawing:
    """Says how far the drawing of a large image has come, every few seconds."""

    def __init__(self, height: int, tell: Silent) -> None:
        self._height, self._tell = height, tell
        self._next = time.monotonic() + LOG_SECONDS

    def __call__(self, rows: int) -> None:
        if time.monotonic() >= self._next:
            self._tell.note(f"drawing the reconstruction: {100 * rows / self._height:.0f} %")
            self._next = time.monotonic() + LOG_SECONDS


def engine_of(field: Field) -> str:
    """The engine that evaluates the field's encoding: a hash grid's, else "torch"."""
    for module in field.encoding.modules():
        if isinstance(module, HashGrid):
            return engines.choose(module.engine, field.device).name
    return "torch"


def measure(signal: ImageSignal, fit: Float[np.ndarray, "height width channels"], lpips: str = "off") -> dict[str, Any]:
    """Quality of a reconstruction: over all pixels, and PSNR over the training and the held-out ones alone."""
    height, width = signal.shape
    metrics = image_quality(signal.rows, lambda start, stop: fit[start:stop], height, width, signal.out_dim)
    metrics["psnr_train"], metrics["psnr_heldout"] = metrics["psnr"], None
    if signal.split.n_heldout:
        metrics["psnr_train"] = _psnr(signal, fit, signal.split.train, signal.split.n_train)
        metrics["psnr_heldout"] = _psnr(signal, fit, signal.split.heldout, signal.split.n_heldout)
    # A stand-in of the same shape is enough for LPIPS to say that it is off or the image too large.
    small = lpips != "off" and signal.n_pixels <= LARGEST_AUTO_PIXELS
    truth = signal.rows(0, height) if small or lpips == "download" else np.broadcast_to(np.float32(0), fit.shape)
    distance = lpips_distance(truth, fit, mode=lpips)
    metrics["lpips"] = distance.value
    if distance.reason is not None:
        metrics["lpips_reason"] = distance.reason
    return metrics


def _psnr(signal: ImageSignal, fit: np.ndarray, select: Callable[[torch.Tensor], torch.Tensor], n: int) -> float | None:
    errors = ImageErrors()
    flat = fit.reshape(-1, fit.shape[2])
    for start in range(0, n, 2**20):
        index = select(torch.arange(start, min(start + 2**20, n)))
        errors.add(signal.values(index).numpy(), flat[index.numpy()])
    psnr: float | None = errors.results()["psnr"]
    return psnr


def _write_history(path: Path, history: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(path, text.getvalue())


def _write_pictures(
    signal: ImageSignal, fit: np.ndarray, metrics: Mapping[str, Any], history: list[dict[str, Any]], folder: Path
) -> None:
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
        captions={key: metrics[key] for key in shown},
    )
    viz.training_curve(history, folder / TRAINING, title=f"{signal.name}, {metrics['encoding']}: training")


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
