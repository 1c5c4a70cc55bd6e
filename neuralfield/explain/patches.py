"""Samples of an image that are small enough for a dense kernel: windows with their training and held-out pixels.

A window keeps the lattice's own spacing, which decides between the bandwidths; a coarser copy of the whole image would not.
Held-out pixels count only where the window has training pixels on all sides of them, as almost all have in the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from neuralfield.checks import integer
from neuralfield.errors import ConfigError
from neuralfield.signals.holdout import EveryOther
from neuralfield.signals.image import ImageSignal

_LARGE = 2**22  # training pixels
_MARGIN = 3  # spacings of the training lattice between the window's edge and what counts


@dataclass(frozen=True)
class Patch:
    """One window.

    - `x`, `y`: training coordinates [n, 2] and values [n, C]; `x_test`, `y_test`: held out.
    - `counted`: 1 for held-out pixels that count, 0 for those too near to the window's edge, [m].
    - `box`: left, top, width and height in pixels.
    """

    x: Float[Tensor, "n dim"]
    y: Float[Tensor, "n channels"]
    x_test: Float[Tensor, "m dim"]
    y_test: Float[Tensor, "m channels"]
    counted: Float[Tensor, " m"]
    box: tuple[int, int, int, int]


def patches(signal: ImageSignal, side: int = 24, most: int = 9) -> list[Patch]:
    """Windows spread evenly over the image.

    **Arguments**

    - `side`: training pixels along each side of a window, about (their number decides the cost, side^6); an image whose
      lattice is not much larger is one window.
    - `most`: windows at most.

    Raises :class:`~neuralfield.errors.ConfigError` when the signal holds nothing out: between which pixels should a field be
    judged?
    """
    integer("side", side, 4, 128)
    integer("most", most, 1)
    if not signal.split.n_heldout:
        raise ConfigError(
            "an explanation judges held-out pixels; give the signal a hold-out: signal.holdout=every_other"
        )
    spacing = math.sqrt(signal.n_pixels / signal.split.n_train)
    wanted = 2 * round(side * spacing / 2)
    window = [length if length <= 1.5 * wanted else wanted for length in (signal.width, signal.height)]
    margin = round(_MARGIN * spacing)
    kinds = _kinds(signal)
    values = signal.values
    found = []
    for left, top in _places(signal, window, margin, most):
        columns, rows = torch.arange(left, left + window[0]), torch.arange(top, top + window[1])
        index = rows[:, None] * signal.width + columns
        inner = _inner(columns, margin, signal.width)[None, :] & _inner(rows, margin, signal.height)[:, None]
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


def congruent(signal: ImageSignal, windows: list[Patch]) -> bool:
    """Whether all windows have the same coordinates up to a shift, so that a stationary kernel is the same on all."""
    return (
        isinstance(signal.split, EveryOther)
        and len({(len(p.x), len(p.x_test), p.box[2:]) for p in windows}) == 1
        and (
            all(torch.allclose(p.x - p.x[0], windows[0].x - windows[0].x[0], atol=1e-6) for p in windows)
            and all(torch.allclose(p.x_test - p.x[0], windows[0].x_test - windows[0].x[0], atol=1e-6) for p in windows)
        )
    )


def whole(signal: ImageSignal) -> Patch:
    """The image as one window, all of whose held-out pixels count."""
    train = signal.split.train(torch.arange(signal.split.n_train))
    test = signal.split.heldout(torch.arange(signal.split.n_heldout))
    return Patch(
        signal.coordinates(train), signal.values(train).float(), signal.coordinates(test), signal.values(test).float(),
        torch.ones(len(test)), (0, 0, signal.width, signal.height),
    )  # fmt: skip


def roughness(window: Patch) -> float:
    """How far the held-out pixels that count are from the mean of their four nearest training pixels, mean square."""
    near = torch.cdist(window.x_test, window.x).topk(4, largest=False).indices
    error = (window.y[near].mean(dim=1) - window.y_test).square().mean(dim=1)
    return float((error * window.counted).sum() / window.counted.sum())


def image_roughness(signal: ImageSignal, sample: int = 8192) -> float | None:
    """The same of the whole image, from evenly spread held-out pixels; None for images too large to be worth it."""
    split = signal.split
    if split.n_train > _LARGE or split.n_train < 4:
        return None
    train = split.train(torch.arange(split.n_train))
    test = split.heldout(torch.linspace(0, split.n_heldout - 1, min(sample, split.n_heldout)).long())
    near = cKDTree(_pixels(train, signal)).query(_pixels(test, signal), k=4)[1]
    guess = signal.values(train[torch.from_numpy(near).flatten()]).reshape(len(test), 4, -1).mean(dim=1)
    return float((guess - signal.values(test)).square().mean())


def _pixels(index: Tensor, signal: ImageSignal) -> np.ndarray:
    return torch.stack([index % signal.width, index // signal.width], dim=1).numpy()


def _kinds(signal: ImageSignal) -> Tensor:
    """0, 1 or 2 for each pixel: in neither set, training, held out."""
    kinds = torch.zeros(signal.n_pixels, dtype=torch.uint8)
    split = signal.split
    for kind, count, take in ((1, split.n_train, split.train), (2, split.n_heldout, split.heldout)):
        for start in range(0, count, 1 << 22):
            kinds[take(torch.arange(start, min(start + (1 << 22), count)))] = kind
    return kinds


def _places(signal: ImageSignal, window: list[int], margin: int, most: int) -> list[tuple[int, int]]:
    """Top left corners, on even pixels, such that the parts that count lie evenly over the image."""
    lengths = (signal.width, signal.height)
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
    return [(x, y) for y in axes[1] for x in axes[0]]


def _inner(positions: Tensor, margin: int, length: int) -> Tensor:
    """What lies away from the window's edges, or at the image's own."""
    first, last = int(positions[0]), int(positions[-1])
    low = positions >= (first + margin if first > 0 else 0)
    return low & (positions <= (last - margin if last < length - 1 else length))
