"""What there is to see of a candidate: its kernel around a pixel, its spectrum, and what it will leave unlearned.

In three dimensions pictures are slices across z, through the middle of the cube or of a window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from neuralfield.explain.bands import Bands, bands
from neuralfield.explain.explanation import KernelView
from neuralfield.explain.patches import Patch
from neuralfield.explain.predictor import look
from neuralfield.explain.window_kernels import window_kernels
from neuralfield.field import Field
from neuralfield.fitting.options import FitOptions
from neuralfield.signals.base import Signal
from neuralfield.signals.image import ImageSignal

if TYPE_CHECKING:
    from neuralfield.signals.shape import ShapeSignal
    from neuralfield.signals.volume import VolumeSignal

_REACH = 24  # pixels to each side of the middle one, at most
_FINE = 4  # distances per pixel along the row
_ACROSS = 32  # points along the side of a slice through a shape's window


@dataclass
class Views:
    """The pictures of one candidate, see :class:`~neuralfield.explain.explanation.Candidate`."""

    kernel: KernelView
    eigenvalues: np.ndarray
    energy: np.ndarray
    unlearned: np.ndarray
    bands: Bands


@torch.no_grad()
def views(field: Field, signal: Signal, options: FitOptions, window: Patch) -> Views:
    """All of them, from one window."""
    if signal.type == "shape":  # its held-out points are no picture: those of a slice are asked about instead
        from neuralfield.explain.point_patches import across, labels

        x = across(window, _ACROSS)
        y = labels(cast("ShapeSignal", signal), x)
        device = window.x.device
        window = replace(window, x_test=x.to(device), y_test=y.to(device), counted=torch.ones(len(x), device=device))
    with torch.enable_grad():
        inside = look(field, signal, options, window)
    values, vectors = modes(inside.kernel)
    left = inside.prediction.train_residual, inside.prediction.test_residual
    # A shape is learned near its surface, where windows are.
    at = torch.tensor(window.box[:3]) + window.box[3] / 2 if signal.type == "shape" else None
    return Views(
        kernel_view(inside.field, signal, at, inside.prediction.weights),
        (values / values[0]).cpu().numpy(),
        energies(vectors, window.y),
        picture(window, signal, *left),
        bands(vectors, window, signal, left[0]),
    )


def truth(signal: Signal, window: Patch) -> np.ndarray:
    """The window as it looks on a screen, 0 to 1, [height, width] or [height, width, 3]: what :func:`picture` shows the
    residual of. Of signed distances the least is black and the largest white."""
    if isinstance(signal, ImageSignal):
        left, top, width, height = (int(v) for v in window.box)
        index = torch.arange(top, top + height)[:, None] * signal.width + torch.arange(left, left + width)
    elif signal.type == "volume":
        from neuralfield.explain.voxel_patches import middle_layers

        volume = cast("VolumeSignal", signal)
        left, top, front, width, height, depth = (int(v) for v in window.box)
        rows = (front + middle_layers(depth)[0]) * volume.height + torch.arange(top, top + height)
        index = rows[:, None] * volume.width + torch.arange(left, left + width)
    else:
        from neuralfield.explain.point_patches import across, labels

        values = labels(cast("ShapeSignal", signal), across(window, _ACROSS)).reshape(_ACROSS, _ACROSS).numpy()
        low, high = float(values.min()), float(values.max())
        return values if high == low or signal.logits else (values - low) / (high - low)
    pixels = signal.values(index.flatten()).numpy().reshape(*index.shape, -1).clip(0, 1)
    return pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]


def kernel_view(
    field: Field, signal: Signal, at: Tensor | None = None, weights: Mapping[str, float] | None = None
) -> KernelView:
    """The tangent kernel between the signal's middle pixel, or another place, and those around it.

    **Arguments**

    - `at`: the other place, in the unit cube.
    - `weights`: by part of the network, the factors with which Adam trains, as :func:`~neuralfield.explain.predictor.look`
      finds them; None sums all parts alike, as gradient descent does.
    """
    middle, pixel = _middle(signal)
    middle = middle if at is None else at.to(middle)
    reach = _REACH
    if signal.in_dim == 3:  # a volume is as a rule few voxels wide, and beyond the cube there is no field
        reach = max(1, min(reach, int((torch.minimum(middle, 1 - middle) / pixel)[:2].min())))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    down, right = torch.meshgrid(offsets, offsets, indexing="ij")
    around = torch.stack([right.flatten(), down.flatten()], dim=1)
    distances = torch.arange(0, reach * _FINE + 1, dtype=torch.float32) / _FINE
    along = torch.stack([distances, torch.zeros_like(distances)], dim=1)
    shifts = torch.nn.functional.pad(torch.cat([along, around]), (0, signal.in_dim - 2))
    points = (middle + shifts * pixel).clamp(0, 1).to(field.device)
    values = _row(field, middle[None].to(field.device), points, weights).double().cpu().numpy()
    values = values / values[0] if values[0] > 0 else values
    row, plane = values[: len(distances)], values[len(distances) :].reshape(len(offsets), -1)
    return KernelView(distances.numpy(), row, plane, width(distances.numpy(), row))


def _middle(signal: Signal) -> tuple[Tensor, Tensor]:
    """Coordinates of the middle pixel, and how far the next one is along each axis."""
    if isinstance(signal, ImageSignal):
        middle = torch.tensor([(signal.width // 2 + 0.5) / signal.width, (signal.height // 2 + 0.5) / signal.height])
        return middle, torch.tensor([1 / signal.width, 1 / signal.height])
    if signal.type == "volume":
        from neuralfield.explain import voxel_patches

        volume = cast("VolumeSignal", signal)
        return torch.tensor(voxel_patches.middle(volume)), torch.tensor(voxel_patches.voxels_along(volume))
    return torch.full((signal.in_dim,), 0.5), torch.full((signal.in_dim,), 1 / signal.lattice)


def width(distances: np.ndarray, row: np.ndarray) -> float:
    """Full width at half of the value at distance 0; infinite where the kernel never drops below that half."""
    half = float(row[0]) / 2
    below = np.flatnonzero(row < half)
    if not len(below):
        return math.inf
    k = int(below[0])
    if k == 0:  # a kernel of nothing
        return 0.0
    before, after = row[k - 1], row[k]
    return float(2 * (distances[k - 1] + (distances[k] - distances[k - 1]) * (before - half) / (before - after)))


def modes(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, descending, none below zero, and eigenvectors as columns in the same order, in float64."""
    values, vectors = torch.linalg.eigh(kernel.double())
    return values.flip(0).clamp_min(0), vectors.flip(1)


def energies(vectors: Tensor, y: Tensor) -> np.ndarray:
    """The part of the energy of y (mean removed) in each mode."""
    centred = (y - y.mean(dim=0)).double()
    energy = (vectors.T @ centred).square().sum(dim=1)
    total = centred.square().sum()
    shares: np.ndarray = (energy / total if float(total) > 0 else energy).cpu().numpy()
    return shares


def picture(window: Patch, signal: Signal, train: Tensor, test: Tensor | None) -> np.ndarray:
    """Root mean square residual over channels, pixel by pixel; not a number where a pixel is in neither set.

    Of a volume's window the two middle layers across z. Of a shape the test points are those of a slice.
    """
    if signal.type == "volume":
        from neuralfield.explain.voxel_patches import middle_slice

        return middle_slice(cast("VolumeSignal", signal), window, train, test)
    if not isinstance(signal, ImageSignal):
        across = train.new_zeros(_ACROSS**2, 1) if test is None else test
        return across.square().mean(dim=1).sqrt().cpu().numpy().reshape(_ACROSS, _ACROSS)
    left, top, columns, rows = (int(v) for v in window.box)
    found = np.full((rows, columns), np.nan)
    for x, residual in ((window.x, train), (window.x_test, test)):
        if residual is None:
            continue
        column = (x[:, 0].cpu().numpy() * signal.width - 0.5).round().astype(int) - left
        row = (x[:, 1].cpu().numpy() * signal.height - 0.5).round().astype(int) - top
        found[row, column] = residual.square().mean(dim=1).sqrt().cpu().numpy()
    return found


def _row(field: Field, middle: Tensor, points: Tensor, weights: Mapping[str, float] | None) -> Tensor:
    """The kernel between one point and many, its parts weighted."""
    blank = middle.new_zeros(1, 1), middle.new_zeros(len(points), 1)
    around = Patch(middle, blank[0], points, blank[1], blank[1][:, 0], ())
    _, parts, _ = window_kernels(field, around)
    row = torch.stack([(1.0 if weights is None else weights[name]) * part[:, 0] for name, part in parts.items()])
    return row.sum(dim=0)
