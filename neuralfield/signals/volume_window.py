"""Boxes and slices of a volume, and what cutting and averaging do to its place in the world."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from neuralfield import checks
from neuralfield.errors import ConfigError

_AXES = "xyz"
_FORMS = "null, N, [width, height, depth] or [x, y, z, width, height, depth]"


def box_of(crop: object, depth: int, height: int, width: int, factor: int = 1) -> tuple[int, int, int, int, int, int]:
    """``(x, y, z, width, height, depth)`` of a crop: None | N (centred cube) | [w, h, d] (centred) | [x, y, z, w, h, d].

    ``factor`` voxels along each side will be averaged: sides are cut to multiples of it at their far ends.

    Raises:
        ConfigError: another form, not inside the volume, or fewer than two (averaged) voxels along an axis.
    """
    whole = (width, height, depth)
    if crop is None:
        start, size = [0, 0, 0], list(whole)
    else:
        given = [crop] if isinstance(crop, (int, float)) else list(crop) if isinstance(crop, Sequence) else []
        if isinstance(crop, (str, bool)) or len(given) not in (1, 3, 6):
            raise ConfigError(f"signal.crop must be {_FORMS}, got {crop!r}")
        numbers = [checks.integer("signal.crop", value, 0) for value in given]
        size = numbers * 3 if len(numbers) == 1 else numbers[-3:]
        start = numbers[:3] if len(numbers) == 6 else [(n - s) // 2 for n, s in zip(whole, size, strict=True)]
        if any(s < 0 or s + n > most for s, n, most in zip(start, size, whole, strict=True)):
            raise ConfigError(
                f"signal.crop={given} reaches outside the volume, which is {width} x {height} x {depth} voxels (x, y, z); "
                "make it smaller"
            )
    left = [n // factor for n in size]
    if min(left) < 2:
        raise ConfigError(
            f"signal.crop and signal.downsample leave {' x '.join(map(str, left))} voxels of {width} x {height} x "
            f"{depth}; at least 2 x 2 x 2 are needed"
        )
    x, y, z = start
    w, h, d = (n * factor for n in left)
    return x, y, z, w, h, d


def moved_affine(
    affine: Float[np.ndarray, "4 4"], start: tuple[int, int, int], factor: int
) -> Float[np.ndarray, "4 4"]:
    r"""The affine of what is left: index $i$ becomes $\text{start} + \text{factor}\, i + (\text{factor} - 1) / 2$."""
    step = np.diag([factor, factor, factor, 1.0])
    step[:3, 3] = np.asarray(start) + (factor - 1) / 2
    return affine @ step


def slice_indices(shape: tuple[int, int, int], axis: str, position: float) -> Int64[Tensor, "h w"]:
    """Flat indices of the slice of ``[z, y, x]`` across "x", "y" or "z" at a fraction ``position`` of its length."""
    across = 2 - _AXES.index(checks.choice("axis", axis, _AXES))
    length = shape[across]
    chosen = min(int(checks.number("position", position, 0, 1) * length), length - 1)
    k, j, i = (torch.arange(n) if d != across else torch.tensor([chosen]) for d, n in enumerate(shape))
    return ((k[:, None, None] * shape[1] + j[:, None]) * shape[2] + i).squeeze(across)


def size_words(
    shape: tuple[int, int, int], channels: int, spacing: tuple[float, float, float] | None, unit: str
) -> str:
    """``57 x 67 x 56, 2.75 mm``: along x, y, z; channels where there are several, the spacing where it is known."""
    words = " x ".join(str(n) for n in reversed(shape))
    if channels > 1:
        words += f", {channels} channels"
    if spacing is None or (spacing == (1.0, 1.0, 1.0) and not unit):
        return words
    equal = max(spacing) <= 1.001 * min(spacing)
    numbers = f"{spacing[0]:.4g}" if equal else " x ".join(f"{s:.4g}" for s in spacing)
    return f"{words}, {numbers} {unit or 'units'}"
