r"""How much of the sky each pixel sees past its surroundings: what makes hollows and contacts readable.

Of what a picture shows, points about a pixel and nearer than R block the sky by
$(\max(0, \cos\theta - b))\,(1 - d^2/R^2)$, where $\theta$ is the angle between the normal and the direction to the point
and $d$ the distance; b keeps flat surfaces from blocking themselves. This is the estimator of McGuire, Osman, Bukowski and
Hennessy ("The Alchemy screen-space ambient obscurance algorithm", HPG 2011) with cosines. The points of 4 x 4 neighbouring
pixels differ, and the result is averaged over 4 x 4 pixels.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32

_POINTS, _TILE = 14, 4
_BIAS, _STRENGTH = 0.06, 2.4


def open_sky(
    place: Float32[np.ndarray, "h w 3"], normal: Float32[np.ndarray, "h w 3"], reach: float, pixels: float
) -> Float32[np.ndarray, "h w"]:
    """The share of the sky that is open, 0 to 1.

    Args:
        place: of what each pixel shows, x right, y up, z away from the viewer; NaN where there is nothing.
        normal: unit normals there, turned to the viewer, in the same axes.
        reach: R, in the units of the places.
        pixels: R in pixels.
    """
    height, width = place.shape[:2]
    blocked = np.zeros((height, width), np.float32)
    known = np.isfinite(place[..., 0])
    if reach > 0 and pixels >= 1:
        border = math.ceil(pixels)
        padded = np.pad(place, ((border, border), (border, border), (0, 0)), constant_values=np.nan)
        for tile in range(_TILE**2):
            _add(blocked, padded, place, normal, tile, reach, pixels)
    total, weight = _box(np.where(known, blocked, 0)), _box(known.astype(np.float32))
    mean = np.divide(total, weight, where=weight > 0, out=np.zeros_like(total))
    return np.clip(1 - _STRENGTH * mean, 0, 1)


def _add(
    blocked: np.ndarray,
    padded: np.ndarray,
    place: np.ndarray,
    normal: np.ndarray,
    tile: int,
    reach: float,
    pixels: float,
) -> None:
    """Add what blocks every fourth pixel of every fourth row, which share one pattern of points: a turned spiral."""
    i, j = divmod(tile, _TILE)
    own, out = place[i::_TILE, j::_TILE], normal[i::_TILE, j::_TILE]
    border, (height, width) = math.ceil(pixels), blocked.shape
    turn, shift = (7 * tile % 16) / 16, (11 * tile % 16 + 0.5) / 16  # neighbours differ in angle and in distance
    for k in range(_POINTS):
        angle, radius = 2 * math.pi * (k * 0.618034 + turn), pixels * math.sqrt((k + shift) / _POINTS)
        down, across = round(radius * math.sin(angle)), round(radius * math.cos(angle))
        rows = slice(border + down + i, border + down + height, _TILE)
        step = padded[rows, border + across + j : border + across + width : _TILE] - own
        square = np.einsum("ijk,ijk->ij", step, step)
        with np.errstate(invalid="ignore", divide="ignore"):
            cosine = np.einsum("ijk,ijk->ij", step, out) / np.sqrt(square)
            amount = np.maximum(cosine - _BIAS, 0) * np.maximum(1 - square / reach**2, 0)
        blocked[i::_TILE, j::_TILE] += np.nan_to_num(amount / _POINTS)


def _box(values: np.ndarray) -> np.ndarray:
    """Sums over the 4 x 4 pixels about each."""
    for axis in (0, 1):
        padded = np.pad(values, [(2, 1) if a == axis else (0, 0) for a in (0, 1)])
        size = values.shape[axis]
        values = sum(np.take(padded, range(k, k + size), axis) for k in range(_TILE))  # type: ignore[assignment]
    return values
