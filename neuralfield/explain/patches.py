"""Samples of a signal that are small enough for a dense kernel: windows with their training and held-out pixels.

A window keeps the lattice's own spacing, which decides between the bandwidths; a coarser copy of the whole image would not.
Held-out pixels count only where the window has training pixels on all sides of them, as almost all have in the image.
Those of a volume are in :mod:`~neuralfield.explain.voxel_patches`, of a shape in :mod:`~neuralfield.explain.point_patches`.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from neuralfield.checks import integer
from neuralfield.errors import ConfigError
from neuralfield.explain.words import words
from neuralfield.signals.base import Signal
from neuralfield.signals.holdout import EveryOther
from neuralfield.signals.image import ImageSignal

if TYPE_CHECKING:  # shapes need libraries that images do not
    from neuralfield.signals.shape import ShapeSignal
    from neuralfield.signals.volume import VolumeSignal

_LARGE = 2**22  # training pixels
_MARGIN = 3  # spacings of the training lattice between the window's edge and what counts


@dataclass(frozen=True)
class Patch:
    """One window.

    - `x`, `y`: training coordinates [n, 2] and values [n, C]; `x_test`, `y_test`: held out.
    - `counted`: 1 for held-out pixels that count, 0 for those too near to the window's edge, [m].
    - `box`: left, top, width and height in pixels; of a volume left, top, front, width, height and depth in voxels; of a
      shape the lowest corner x, y, z and the side, in the cube.
    - `stands_for`: how many training samples of the signal there are in the window for each that it holds.
    """

    x: Float[Tensor, "n dim"]
    y: Float[Tensor, "n channels"]
    x_test: Float[Tensor, "m dim"]
    y_test: Float[Tensor, "m channels"]
    counted: Float[Tensor, " m"]
    box: tuple[int | float, ...]
    stands_for: float = 1.0


def patches(signal: Signal, side: int | None = None, most: int = 9) -> list[Patch]:
    """Windows spread evenly over the image, the volume or the surface of the shape.

    **Arguments**

    - `side`: training pixels along each side of a window, about (their number decides the cost, side^6, or side^9 in
      three dimensions); an image whose lattice is not much larger is one window. None: 24, in three dimensions 9.
    - `most`: windows at most.

    Raises :class:`~neuralfield.errors.ConfigError` when the signal holds nothing out: between which pixels should a field be
    judged?
    """
    side = integer("side", words(signal).side_points if side is None else side, 4, 128)
    integer("most", most, 1)
    if not signal.split.n_heldout:
        samples = words(signal).samples
        raise ConfigError(
            f"an explanation judges held-out {samples}; give the signal a hold-out: signal.holdout=every_other"
        )
    if signal.type == "volume":
        from neuralfield.explain.voxel_patches import volume_patches

        return volume_patches(cast("VolumeSignal", signal), side, most)
    if signal.type == "shape":
        from neuralfield.explain.point_patches import shape_patches

        return shape_patches(cast("ShapeSignal", signal), side, most)
    return _image_patches(cast(ImageSignal, signal), side, most)


def _image_patches(signal: ImageSignal, side: int, most: int) -> list[Patch]:
    spacing = math.sqrt(signal.n_pixels / signal.split.n_train)
    wanted = 2 * round(side * spacing / 2)
    window = [length if length <= 1.5 * wanted else wanted for length in (signal.width, signal.height)]
    margin = round(_MARGIN * spacing)
    kinds = _kinds(signal)
    values = signal.values
    found = []
    for left, top in places((signal.width, signal.height), window, margin, most):
        columns, rows = torch.arange(left, left + window[0]), torch.arange(top, top + window[1])
        index = rows[:, None] * signal.width + columns
        inner = inner_part(columns, margin, signal.width)[None, :] & inner_part(rows, margin, signal.height)[:, None]
        train = index[kinds[index] == 1]
        test, counted = index[kinds[index] == 2], inner[kinds[index] == 2]
        if len(train) < 4 or not bool(counted.any()):
            continue
        found.append(
            Patch(
                signal.coordinates(train), values(train).float(), signal.coordinates(test), values(test).float(),
                counted.float(), (left, top, window[0], window[1]),
            )
        )  # fmt: skip
    if not found:
        raise ConfigError(f"no window of {window[0]} x {window[1]} pixels holds both training and held-out pixels")
    return found


def congruent(signal: Signal, windows: list[Patch]) -> bool:
    """Whether all windows have the same coordinates up to a shift, so that a stationary kernel is the same on all."""
    if signal.type == "volume":
        from neuralfield.signals.holdout_volume import EveryOtherVoxel

        return isinstance(signal.split, EveryOtherVoxel) and _shifted_copies(windows)
    return isinstance(signal.split, EveryOther) and _shifted_copies(windows)


def _shifted_copies(windows: list[Patch]) -> bool:
    return len({(len(p.x), len(p.x_test), p.box[len(p.box) // 2 :]) for p in windows}) == 1 and (
        all(torch.allclose(p.x - p.x[0], windows[0].x - windows[0].x[0], atol=1e-6) for p in windows)
        and all(torch.allclose(p.x_test - p.x[0], windows[0].x_test - windows[0].x[0], atol=1e-6) for p in windows)
    )


def whole(signal: Signal) -> Patch:
    """The image or volume as one window, all of whose held-out pixels count."""
    train = signal.split.train(torch.arange(signal.split.n_train))
    test = signal.split.heldout(torch.arange(signal.split.n_heldout))
    lengths = (signal.width, signal.height) if isinstance(signal, ImageSignal) else signal.shape[::-1]  # type: ignore[attr-defined]
    return Patch(
        signal.coordinates(train), signal.values(train).float(), signal.coordinates(test), signal.values(test).float(),
        torch.ones(len(test)), (*(0 for _ in lengths), *lengths),
    )  # fmt: skip


_typical: weakref.WeakKeyDictionary[Signal, dict[int, Patch]] = weakref.WeakKeyDictionary()


def typical(signal: Signal, most: int) -> Patch:
    """Of a few windows of about ``most`` training samples in an image or a volume the one that is about as rough as all of
    it; of a very large signal, whose roughness is not known, the one in the middle by roughness."""
    known = _typical.setdefault(signal, {})
    if most not in known:
        side = int(most ** (1 / signal.in_dim) + 1e-9)
        if signal.type == "volume":
            from neuralfield.explain.voxel_patches import volume_patches

            found = volume_patches(cast("VolumeSignal", signal), side, 8)
        else:
            found = _image_patches(cast(ImageSignal, signal), side, 9)
        # Once for each window: a search among a hundred thousand points.
        ranked = sorted(((roughness(window), window) for window in found), key=lambda pair: pair[0])
        wanted = signal_roughness(signal) if len(ranked) > 1 else None
        if wanted is None:
            known[most] = ranked[len(ranked) // 2][1]
        else:
            level = lambda rough: math.log(rough + 1e-12)  # noqa: E731
            known[most] = min(ranked, key=lambda pair: abs(level(pair[0]) - level(wanted)))[1]
    return known[most]


def roughness(window: Patch) -> float:
    """How far the held-out pixels that count are from the mean of their nearest training pixels, mean square.

    Of the four nearest ones in an image, where they are the corners of a cell; of eight in three dimensions.
    """
    counts = window.counted > 0
    near = _nearest(window.x_test[counts].cpu().numpy(), window.x.cpu().numpy(), 2 ** window.x.shape[1])
    guess = window.y[near].mean(dim=1)
    error = (guess - window.y_test[counts]).square().mean(dim=1)
    return float((error * window.counted[counts]).sum() / window.counted.sum())


def signal_roughness(signal: Signal, sample: int = 8192) -> float | None:
    """The same of the whole image or volume, from evenly spread held-out pixels; None for those too large to be worth it,
    and for shapes, whose windows lie where they are judged."""
    split, corners = signal.split, 2**signal.in_dim
    if signal.type == "shape" or split.n_train > _LARGE or split.n_train < corners:
        return None
    train = split.train(torch.arange(split.n_train))
    test = split.heldout(torch.linspace(0, split.n_heldout - 1, min(sample, split.n_heldout)).long())
    near = _nearest(_places(test, signal), _places(train, signal), corners)
    guess = signal.values(train[near.flatten()]).reshape(len(test), corners, -1).mean(dim=1)
    return float((guess - signal.values(test)).square().mean())


def _nearest(points: np.ndarray, among: np.ndarray, count: int) -> Tensor:
    """For each point the numbers of its nearest ones, [points, count]."""
    return torch.from_numpy(cKDTree(among).query(points, k=count)[1])


def _places(index: Tensor, signal: Signal) -> np.ndarray:
    """Where samples are: an image's by pixels, whose sides count alike, else by coordinates."""
    if isinstance(signal, ImageSignal):
        return torch.stack([index % signal.width, index // signal.width], dim=1).numpy()
    return signal.coordinates(index).numpy()


def _kinds(signal: ImageSignal) -> Tensor:
    """0, 1 or 2 for each pixel: in neither set, training, held out."""
    kinds = torch.zeros(signal.n_pixels, dtype=torch.uint8)
    split = signal.split
    for kind, count, take in ((1, split.n_train, split.train), (2, split.n_heldout, split.heldout)):
        for start in range(0, count, 1 << 22):
            kinds[take(torch.arange(start, min(start + (1 << 22), count)))] = kind
    return kinds


def places(lengths: Sequence[int], window: Sequence[int], margin: int, most: int) -> list[tuple[int, ...]]:
    """First corners, on even pixels, such that the parts that count lie evenly over the image; the first axis is fastest."""
    counts = [
        1 if w == n else math.ceil((n - 2 * margin) / (w - 2 * margin)) for w, n in zip(window, lengths, strict=True)
    ]
    while math.prod(counts) > most:
        counts[int(np.argmax(counts))] -= 1
    axes = []
    for count, w, n in zip(counts, window, lengths, strict=True):
        room = n - w
        starts = [room / 2] if count == 1 else [room * i / (count - 1) for i in range(count)]
        axes.append([2 * round(start / 2) if 2 * round(start / 2) <= room else 2 * int(start / 2) for start in starts])
    return [corner[::-1] for corner in product(*axes[::-1])]


def inner_part(positions: Tensor, margin: int, length: int) -> Tensor:
    """What lies away from the window's edges, or at the image's own."""
    first, last = int(positions[0]), int(positions[-1])
    low = positions >= (first + margin if first > 0 else 0)
    return low & (positions <= (last - margin if last < length - 1 else length))
