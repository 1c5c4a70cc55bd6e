"""What the budget leaves of an image, by the kernel's modes: learned, learned in part, not learned."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from neuralfield.explain.patches import Patch
from neuralfield.signals.base import Signal
from neuralfield.signals.image import ImageSignal

LEARNED, UNTOUCHED = 0.1, 0.9
"""Of a mode's amplitude: with less than the first remaining it counts as learned, with more than the second as not."""


NAMES = ("learned", "in_part", "not_learned")


@dataclass
class Bands:
    """An image's window by what becomes of it: the kernel's modes, fastest first, cut into three bands.

    Of the amplitude of the modes in each, over 90 % is learned at the budget, a part, or less than 10 %. Energies are shares
    of the window's, its mean removed.

    - `modes`: how many there are; `energy`: of the image in them; `left`: what remains of it, predicted.
    - `image`, `residual`: both as pictures, with the sign, [3, height, width, channels]; of an image alone, else None.
    """

    modes: Int[np.ndarray, " bands"]
    energy: Float[np.ndarray, " bands"]
    left: Float[np.ndarray, " bands"]
    image: Float[np.ndarray, "bands height width channels"] | None = None
    residual: Float[np.ndarray, "bands height width channels"] | None = None

    def to_dict(self) -> dict[str, dict[str, float]]:
        """The bands by name, without their pictures."""
        rows = zip(NAMES, self.modes, self.energy, self.left, strict=True)
        return {name: {"modes": int(n), "energy": float(e), "left": float(rest)} for name, n, e, rest in rows}


def bands(
    vectors: Float[Tensor, "n modes"], window: Patch, signal: Signal, residual: Float[Tensor, "n channels"]
) -> Bands:
    """Cut the modes into three bands by how much of the image in them is predicted to remain.

    A mode's own ratio of residual to image says little where the image has next to nothing in it. Slower modes keep a larger
    part, so the ratios of energies are made to rise from mode to mode, pooled with weights that are the image's energies.

    **Arguments**

    - `vectors`: of the kernel that trains, on the window's training samples, fastest first.
    - `residual`: f - y there, at the budget.
    """
    target = (window.y - window.y.mean(dim=0)).double()
    own, rest = vectors.T @ target, vectors.T @ -residual.double()
    energy, left = (c.square().sum(dim=1).cpu().numpy() for c in (own, rest))
    remains = np.sqrt(rising(left, energy))
    cuts = [0, *np.searchsorted(remains, (LEARNED, UNTOUCHED)), len(remains)]
    pieces = [slice(a, b) for a, b in pairwise(cuts)]
    total = float(target.square().sum()) or 1.0
    of = lambda values: np.array([float(values[piece].sum()) / total for piece in pieces])  # noqa: E731
    found = Bands(np.diff(cuts), of(energy), of(left))
    if isinstance(signal, ImageSignal):
        for name, part in (("image", own), ("residual", rest)):
            drawn = [_drawn(window, signal, vectors[:, piece] @ part[piece]) for piece in pieces]
            setattr(found, name, np.stack(drawn))
    return found


def rising(left: Float[np.ndarray, " modes"], energy: Float[np.ndarray, " modes"]) -> Float[np.ndarray, " modes"]:
    """The non-decreasing ratios nearest to left / energy, least squares with weights energy: neighbours that fall are pooled
    (pool adjacent violators; Barlow et al. 1972, section 1.2)."""
    blocks: list[tuple[float, float, int]] = []
    for top, bottom in zip(left.tolist(), energy.tolist(), strict=True):
        count = 1
        # top / bottom <= that of the block before, without dividing: a mode may hold nothing of the image
        while blocks and top * blocks[-1][1] <= blocks[-1][0] * bottom:
            before = blocks.pop()
            top, bottom, count = top + before[0], bottom + before[1], count + before[2]
        blocks.append((top, bottom, count))
    ratios = [top / bottom if bottom > 0 else (1.0 if top > 0 else 0.0) for top, bottom, _ in blocks]
    return np.maximum.accumulate(np.repeat(ratios, [count for *_, count in blocks]))


def _drawn(window: Patch, signal: ImageSignal, values: Tensor) -> Float[np.ndarray, "height width channels"]:
    """Values of the training pixels over the whole window; others take the nearest one's."""
    left, top, width, height = (int(v) for v in window.box)
    size = np.array([signal.width, signal.height])
    known = window.x.double().cpu().numpy() * size - 0.5 - [left, top]
    rows, columns = np.mgrid[0:height, 0:width]
    nearest = cKDTree(known).query(np.stack([columns.ravel(), rows.ravel()], axis=1) - 1e-3)[1]
    picture: np.ndarray = values.float().cpu().numpy()[nearest].reshape(height, width, -1)
    return picture


__all__ = ["LEARNED", "NAMES", "UNTOUCHED", "Bands", "bands", "rising"]
