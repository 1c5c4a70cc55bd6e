"""What there is to see of a candidate: its kernel around a pixel, its spectrum, and what it will leave unlearned."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuralfield.explain.explanation import KernelView
from neuralfield.explain.patches import Patch
from neuralfield.explain.predictor import look
from neuralfield.explain.window_kernels import covered
from neuralfield.field import Field
from neuralfield.fitting.options import FitOptions
from neuralfield.ntk.empirical import empirical_ntk
from neuralfield.ntk.kernels import MLPKernel
from neuralfield.signals.image import ImageSignal

_REACH = 24  # pixels to each side of the middle one
_FINE = 4  # distances per pixel along the row


@dataclass
class Views:
    """The pictures of one candidate, see :class:`~neuralfield.explain.explanation.Candidate`."""

    kernel: KernelView
    eigenvalues: np.ndarray
    energy: np.ndarray
    unlearned: np.ndarray


@torch.no_grad()
def views(field: Field, signal: ImageSignal, options: FitOptions, window: Patch) -> Views:
    """All of them, from one window."""
    with torch.enable_grad():
        inside = look(field, signal, options, window)
    values, energy = spectrum(inside.kernel, window.y)
    left = inside.prediction.train_residual, inside.prediction.test_residual
    return Views(kernel_view(inside.field, signal), values, energy, picture(window, signal, *left))


def kernel_view(field: Field, signal: ImageSignal) -> KernelView:
    """The tangent kernel between the image's middle pixel and those around it."""
    middle = torch.tensor([(signal.width // 2 + 0.5) / signal.width, (signal.height // 2 + 0.5) / signal.height])
    pixel = torch.tensor([1 / signal.width, 1 / signal.height])
    offsets = torch.arange(-_REACH, _REACH + 1, dtype=torch.float32)
    down, right = torch.meshgrid(offsets, offsets, indexing="ij")
    around = torch.stack([right.flatten(), down.flatten()], dim=1)
    distances = torch.arange(0, _REACH * _FINE + 1, dtype=torch.float32) / _FINE
    along = torch.stack([distances, torch.zeros_like(distances)], dim=1)
    points = (middle + torch.cat([along, around]) * pixel).clamp(0, 1).to(field.device)
    values = _row(field, middle[None].to(field.device), points).double().cpu().numpy()
    values = values / values[0] if values[0] > 0 else values
    row, plane = values[: len(distances)], values[len(distances) :].reshape(len(offsets), -1)
    return KernelView(distances.numpy(), row, plane, width(distances.numpy(), row))


def width(distances: np.ndarray, row: np.ndarray) -> float:
    """Full width at half maximum above the far level (the mean of the last quarter); infinite where it does not fall."""
    far = float(row[-max(len(row) // 4, 1) :].mean())
    half = (float(row[0]) + far) / 2
    below = np.flatnonzero(row < half)
    if not len(below) or row[0] - far < 1e-6 * abs(row[0]):
        return math.inf
    k = int(below[0])
    before, after = row[k - 1], row[k]
    return float(2 * (distances[k - 1] + (distances[k] - distances[k - 1]) * (before - half) / (before - after)))


def spectrum(kernel: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, descending, relative to the first, and the part of the energy of y (mean removed) in each mode."""
    values, vectors = torch.linalg.eigh(kernel.double())
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    centred = (y - y.mean(dim=0)).double()
    energy = (vectors.T @ centred).square().sum(dim=1)
    total = centred.square().sum()
    shares = energy / total if float(total) > 0 else energy
    return (values / values[0]).cpu().numpy(), shares.cpu().numpy()


def picture(window: Patch, signal: ImageSignal, train: Tensor, test: Tensor | None) -> np.ndarray:
    """Root mean square residual over channels, pixel by pixel; not a number where a pixel is in neither set."""
    left, top, columns, rows = window.box
    found = np.full((rows, columns), np.nan)
    for x, residual in ((window.x, train), (window.x_test, test)):
        if residual is None:
            continue
        column = (x[:, 0].cpu().numpy() * signal.width - 0.5).round().astype(int) - left
        row = (x[:, 1].cpu().numpy() * signal.height - 0.5).round().astype(int) - top
        found[row, column] = residual.square().mean(dim=1).sqrt().cpu().numpy()
    return found


def _row(field: Field, middle: Tensor, points: Tensor) -> Tensor:
    """The kernel between one point and many."""
    if covered(field):
        return MLPKernel.of(field).ntk(middle, points)[0]
    return empirical_ntk(field, middle, points)[0]
