"""The multiresolution grid one point, one level and one corner at a time: a slow second opinion.

Written from the specification (Müller et al. 2022, section 3; the arithmetic of tiny-cuda-nn 2.0), not from the
package's reference. Integers are Python's, reduced modulo 2^32 where the specification says uint32; real numbers are
exact fractions, rounded to float32 where the specification rounds and only there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

import numpy as np

PRIMES = (1, 2654435761, 805459861, 3674653429)


def float32(value: Fraction | float) -> Fraction:
    """The float32 nearest to ``value`` (ties to the even one), as an exact fraction."""
    exact = Fraction(value)
    near = np.float32(float(exact))
    around = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))]

    def distance_then_oddness(candidate: np.float32) -> tuple[Fraction, int]:
        return abs(Fraction(float(candidate)) - exact), int(candidate.view(np.uint32)) & 1

    return Fraction(float(min(around, key=distance_then_oddness)))


@dataclass(frozen=True)
class ScalarLevel:
    """One level: `scale` (an exact float32 number), `resolution` (vertices per axis), rows, and where they start."""

    dim: int
    scale: Fraction
    resolution: int
    entries: int
    offset: int
    hashed: bool


def levels(
    dim: int, n_levels: int, log2_hashmap_size: int, base_resolution: int, per_level_scale: float
) -> list[ScalarLevel]:
    """All levels of a grid; each operation of the scale is rounded to float32."""
    log2_growth = float32(math.log2(float32(per_level_scale)))
    result: list[ScalarLevel] = []
    offset = 0
    for index in range(n_levels):
        power = float32(2.0 ** float(float32(index * log2_growth)))
        scale = float32(float32(power * base_resolution) - 1)
        resolution = math.ceil(scale) + 1
        vertices = resolution**dim
        rounded_up = vertices + (-vertices) % 8
        entries = min(rounded_up, 2**log2_hashmap_size)
        result.append(ScalarLevel(dim, scale, resolution, entries, offset, vertices > 2**log2_hashmap_size))
        offset += entries
    return result


def position(x: float, level: ScalarLevel) -> Fraction:
    """fma(scale, x, 0.5): one rounding."""
    return float32(level.scale * Fraction(x) + Fraction(1, 2))


def row(vertex: tuple[int, ...], level: ScalarLevel) -> int:
    """Where the features of a vertex stand in the level's table."""
    if level.hashed:
        index = 0
        for coordinate, prime in zip(vertex, PRIMES, strict=False):
            index ^= (coordinate * prime) % 2**32
    else:
        index = sum(coordinate * level.resolution**axis for axis, coordinate in enumerate(vertex)) % 2**32
    return index % level.entries


def touched(x: np.ndarray, level: ScalarLevel, interpolation: str) -> list[tuple[int, float]]:
    """(row, weight) of every vertex that contributes at the point ``x``, corner by corner, the last axis fastest."""
    located = [position(float(coordinate), level) for coordinate in x]
    cell = [math.floor(p) for p in located]
    if interpolation == "nearest":
        return [(row(tuple(cell), level), 1.0)]
    fraction = [float(p - c) for p, c in zip(located, cell, strict=True)]
    if interpolation == "smoothstep":
        fraction = [w * w * (3 - 2 * w) for w in fraction]
    result = []
    for corner in product((0, 1), repeat=len(cell)):
        weight = 1.0
        for bit, w in zip(corner, fraction, strict=True):
            weight *= w if bit else 1 - w
        vertex = tuple(c + bit for c, bit in zip(cell, corner, strict=True))
        result.append((row(vertex, level), weight))
    return result


def encode(
    x: np.ndarray, params: np.ndarray, pyramid: list[ScalarLevel], n_features: int, interpolation: str
) -> list[float]:
    """All features of one point, level-major."""
    features: list[float] = []
    for level in pyramid:
        vertices = touched(x, level, interpolation)
        for feature in range(n_features):
            features.append(sum(w * float(params[(level.offset + r) * n_features + feature]) for r, w in vertices))
    return features
