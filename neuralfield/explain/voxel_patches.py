"""Windows of a volume: boxes of voxels with their training and held-out ones.

As in an image (:mod:`~neuralfield.explain.patches`) a window keeps the lattice's own spacing. Nine training voxels a side are
729 points; the held-out ones count where two training voxels lie on all sides of them, or the volume ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from neuralfield.errors import ConfigError
from neuralfield.explain.patches import Patch, inner_part
from neuralfield.signals.holdout import Split
from neuralfield.signals.volume import VolumeSignal

_MARGIN = 2  # spacings of the training lattice between the window's edge and what counts
_WHOLE = 1.05  # a volume that is no longer along an axis than so many windows has one window there


def volume_patches(signal: VolumeSignal, side: int, most: int) -> list[Patch]:
    """Boxes spread evenly over the volume; `box` is their first voxel and size, both x, y, z.

    **Arguments**

    - `side`: training voxels along each side, about (time grows as its ninth power); `most`: windows at most.

    Raises :class:`~neuralfield.errors.ConfigError` where no window holds training and held-out voxels.
    """
    spacing = (signal.n_samples / signal.split.n_train) ** (1 / 3)
    wanted = 2 * round(side * spacing / 2)
    lengths = signal.shape[::-1]
    window = [length if length <= _WHOLE * wanted else wanted for length in lengths]
    margin = min(round(_MARGIN * spacing), (wanted - 2) // 2)
    found = []
    for corner in _corners(lengths, window, margin, most):
        i, j, k = (torch.arange(first, first + count) for first, count in zip(corner, window, strict=True))
        index = ((k[:, None, None] * signal.height + j[:, None]) * signal.width + i).flatten()
        inner = inner_part(k, margin, lengths[2])[:, None, None] & inner_part(j, margin, lengths[1])[:, None]
        inner = (inner & inner_part(i, margin, lengths[0])).flatten()
        train, test = members(signal.split, index, heldout=False), members(signal.split, index, heldout=True)
        if int(train.sum()) < 8 or not bool((inner & test).any()):
            continue
        found.append(
            Patch(
                signal.coordinates(index[train]), signal.values(index[train]),
                signal.coordinates(index[test]), signal.values(index[test]),
                inner[test].float(), (*corner, *window),
            )
        )  # fmt: skip
    if not found:
        size = " x ".join(map(str, window))
        raise ConfigError(f"no window of {size} voxels holds both training and held-out voxels")
    return found


def _corners(lengths: Sequence[int], window: Sequence[int], margin: int, most: int) -> list[tuple[int, ...]]:
    """First voxels of the windows, even, x fastest.

    Where `most` are enough, the parts that count cover the volume. Else they stand in the middle of equal parts of it: its
    corners, which windows from end to end would see most of, are often empty.
    """
    covering = [
        1 if w == n else math.ceil((n - 2 * margin) / (w - 2 * margin)) for w, n in zip(window, lengths, strict=True)
    ]
    counts = list(covering)
    while math.prod(counts) > most:
        counts[int(np.argmax(counts))] -= 1
    axes = []
    for count, enough, w, n in zip(counts, covering, window, lengths, strict=True):
        places = range(count)
        starts = [(n - w) * (i / (count - 1) if count == enough and count > 1 else (i + 0.5) / count) for i in places]
        axes.append([2 * int(start / 2) for start in starts])
    return [corner[::-1] for corner in product(*axes[::-1])]


def members(split: Split, index: Int64[Tensor, " n"], heldout: bool) -> Tensor:
    """Which of the indices are in a set of the split: by bisection, since indices grow with the position. No memory."""
    count, take = (split.n_heldout, split.heldout) if heldout else (split.n_train, split.train)
    low, high = torch.zeros_like(index), torch.full_like(index, count)
    for _ in range(max(count, 1).bit_length()):  # the first position whose index is not smaller
        middle = (low + high) // 2
        smaller = (take(middle.clamp(max=count - 1)) < index) & (low < high)
        low, high = torch.where(smaller, middle + 1, low), torch.where(smaller, high, middle)
    return (low < count) & (take(low.clamp(max=count - 1)) == index)


def middle_slice(
    signal: VolumeSignal, window: Patch, train: Tensor, test: Tensor | None
) -> Float[np.ndarray, "height width"]:
    """Root mean square over channels of residuals, in the two layers across z at the window's middle.

    With ``every_other`` training voxels lie in even layers and held-out ones in odd ones. Not a number where a voxel is in
    neither set.
    """
    left, top, front, columns, rows, layers = (int(v) for v in window.box)
    found = np.full((rows, columns), np.nan)
    for x, residual in ((window.x, train), (window.x_test, test)):
        if residual is None:
            continue
        i, j, k = (indices(signal, x) - np.array([left, top, front])).T
        chosen = np.isin(k, middle_layers(layers))
        found[j[chosen], i[chosen]] = residual.square().mean(dim=1).sqrt().cpu().numpy()[chosen]
    return found


def middle_layers(layers: int) -> tuple[int, int]:
    """The layer at the middle, which is even, and the one behind it."""
    even = layers // 2 // 2 * 2
    return even, min(even + 1, layers - 1)


def indices(signal: VolumeSignal, x: Float[Tensor, "n 3"]) -> np.ndarray:
    """The voxels, i, j, k, whose centres the points are."""
    placement = signal.placement
    world = placement.to_world(x.double().cpu().numpy())
    return np.asarray((world / np.asarray(signal.spacing) - 0.5).round().astype(int))


def voxels_along(signal: VolumeSignal) -> tuple[float, float, float]:
    """How far one voxel is from the next along x, y and z, in the cube."""
    sx, sy, sz = (s / signal.placement.scale for s in signal.spacing)
    return sx, sy, sz


def middle(signal: VolumeSignal) -> tuple[float, float, float]:
    """The centre of the volume's middle voxel, in the cube."""
    centre = signal.coordinates(
        torch.tensor([(signal.depth // 2 * signal.height + signal.height // 2) * signal.width + signal.width // 2])
    )[0]
    x, y, z = (float(v) for v in centre)
    return x, y, z
