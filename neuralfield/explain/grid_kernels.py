"""All training samples of an image or a volume at once, where they lie on a grid and the kernel is stationary.

A window does not see what lies outside it. That is little where the kernel falls off with distance, but it never does so
entirely: of m random frequencies the similarity of far points scatters by 1/sqrt(2 m), and there are many far points; and
a kernel of low frequencies reaches across the image. On a grid products with a stationary kernel are convolutions, and
hundreds of thousands of points can be followed (:mod:`~neuralfield.ntk.adam_lattice`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuralfield.explain.patches import Patch, typical, whole
from neuralfield.explain.window_kernels import BANDS, Kernels, is_stationary
from neuralfield.field import Field
from neuralfield.ntk.kernels import MLPKernel
from neuralfield.ntk.lattice_parts import lattice_parts
from neuralfield.ntk.regular import lattice, unravel
from neuralfield.signals.base import Signal

MOST = {1: 2**17, 2: 2**17, 3: 2**15}
"""By dimension, training samples that are followed at most; a transform has 2^D times as many points."""


@dataclass(frozen=True)
class Grid:
    """Training samples on a grid, and held-out ones on the same grid shifted by half a step or so.

    - `shape`: training samples along each axis; `steps`: what a step along each adds to the coordinates, [axes, dim].
    - `shift`: from training to held-out samples, [dim]; `rows`: which of the shifted grid's points exist.
    """

    shape: tuple[int, ...]
    steps: Tensor
    shift: Tensor
    rows: Tensor


def grid_window(field: Field, signal: Signal, most: int | None = None) -> tuple[Patch, Kernels] | None:
    """The signal as one window, or a typical part of it where it has more than ``most`` training samples (None: as
    :data:`MOST` has it), and the kernels on it.

    The window's held-out samples are filled up to as many as there are training samples; those that were added do not count.

    None where the samples lie on no grid, or the kernel is not stationary.
    """
    if signal.type == "shape" or not is_stationary(field):
        return None
    most = MOST[signal.in_dim] if most is None else most
    window = whole(signal) if signal.split.n_train <= most else typical(signal, most)
    grid = grid_of(window)
    if grid is None:
        return None
    kernel = MLPKernel.of(field)
    device = field.device
    steps, shift = grid.steps.to(device), grid.shift.to(device)
    parts, shares = lattice_parts(kernel, grid.shape, steps, bands=BANDS)
    test, _ = lattice_parts(kernel, grid.shape, steps, shift, bands=BANDS)
    tensors = {name: p.numel() for name, p in field.named_parameters()}
    sizes = {name: tensors[name.split(".band")[0]] * share for name, share in shares.items()}
    return _filled(window, grid, device), (dict(parts), dict(test), sizes)


def grid_of(window: Patch) -> Grid | None:
    """The grid that a window's samples lie on, if they do."""
    train, test = lattice(window.x), lattice(window.x_test)
    if train is None or test is None or len(train[0]) != window.x.shape[1] or len(test[0]) != len(train[0]):
        return None
    (shape, steps), (other, other_steps) = train, test
    for axis, count in enumerate(other):
        if count > shape[axis] or (count > 1 and not torch.allclose(other_steps[axis], steps[axis], rtol=1e-4)):
            return None
    index = unravel(torch.arange(len(window.x_test)), other)
    rows = torch.zeros(len(index), dtype=torch.int64)
    for axis, count in enumerate(shape):
        rows = rows * count + index[:, axis]
    shift = window.x_test[0].double() - window.x[0].double()
    return Grid(tuple(shape), steps, shift, rows)


def _filled(window: Patch, grid: Grid, device: torch.device) -> Patch:
    n = math.prod(grid.shape)
    everywhere = (window.x.double() + grid.shift.to(window.x.device)).float()
    y_test, counted = window.y_test.new_zeros(n, window.y_test.shape[1]), window.counted.new_zeros(n)
    everywhere[grid.rows], y_test[grid.rows], counted[grid.rows] = window.x_test, window.y_test, window.counted
    return replace(
        window, x=window.x.to(device), y=window.y.to(device), x_test=everywhere.to(device), y_test=y_test.to(device),
        counted=counted.to(device),
    )  # fmt: skip
