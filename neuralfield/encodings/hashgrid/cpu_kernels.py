r"""The loops of the CPU engine, compiled by numba. Imported on first use only.

A kernel takes one level and a range of points, in blocks of `BLOCK`. `locate` does the arithmetic that vectorises
(positions, weights, rows) and leaves the rows and weights of all corners in buffers that stay in the innermost cache;
then a scalar loop does nothing but read (or add to) rows of the table, so that many cache misses are in flight at once.
Passing over all points with one level, then with the next, keeps one table at a time in the outer caches.

Kernels are made per (dimensions D, features F, corners K) with these numbers as constants, so that inner loops unroll. Input
and output arrays are flat, so that strides are constants too. Buffers have one row of `BLOCK` numbers per corner or axis,
and loops take these rows as arrays of their own, or the compiler finds no vector code for them (it is 7 times slower then).
Sums and products of uint32 are cast back explicitly, because numba widens them to 64 bits.

Beyond IEEE arithmetic only contraction is allowed (a*b + c rounded once): NaN stays NaN. Kernels release the GIL and share
nothing; threads are the business of :mod:`.cpu`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple, no_type_check

import numba
import numpy as np
from numba.core import event

logger = logging.getLogger("neuralfield")

f32, f64, u32, u64 = np.float32, np.float64, np.uint32, np.uint64

# Points per block: the rows and weights of 8 corners take 8 KiB, a quarter of the smallest first-level caches.
BLOCK = 128

# Points transposed at a time: 8 KiB of 32 features.
TILE = 64

_FAR = f32(2.0**31)


@numba.njit(inline="always")
@no_type_check
def allocate(dim, corners):
    """Buffers for :func:`locate`, which names them. Zero at first, so that rows beyond a short block are valid."""
    low, high = np.zeros((dim, BLOCK), u32), np.zeros((dim, BLOCK), u32)
    near, far, slope = np.zeros((dim, BLOCK), f32), np.zeros((dim, BLOCK), f32), np.zeros((dim, BLOCK), f32)
    return low, high, near, far, slope, np.zeros((corners, BLOCK), u32), np.zeros((corners, BLOCK), f32)


@numba.njit(inline="always")
@no_type_check
def locate(x, count, scale, entries, hashed, strides, smooth, buffers, dim, corners):
    r"""Rows and weights of all corners of `count` points, for one level.

    Written are `row` and `weight` [K, BLOCK]; `near`, `far` [D, BLOCK], the shares $\omega_0, \omega_1$ of the lower and
    upper vertex along each axis; and `slope` [D, BLOCK], the derivative $s\,h'(w_d)$ of the upper share. `low` and `high`
    [D, BLOCK] are scratch: what the vertices add to the row (dense) or toggle in it (hashed), from `strides` per axis.
    Corner k takes the upper vertex along axis d where bit d of k is set; with K = 1 only corner 0 is found, of weight 1.
    """
    low, high, near, far, slope, row, weight = buffers
    for d in range(dim):
        stride, low_d, high_d = strides[d], low[d], high[d]
        near_d, far_d, slope_d = near[d], far[d], slope[d]
        for i in range(count):
            # In float64 the product is exact, so the sum is rounded like a fused multiply-add: see reference.positions.
            p = f32(f64(x[i * dim + d]) * scale + 0.5)
            cell = np.floor(p)
            w = p - cell
            # Converting NaN or what int32 cannot hold is undefined; such a point has no fraction, so vertex 0 will do.
            vertex = np.int32(cell if abs(cell) < _FAR else f32(0))
            lower = u32(u32(vertex) * stride)
            low_d[i] = lower
            high_d[i] = u32(lower + stride)
            h = w
            derivative = f32(scale)
            if smooth:
                h = w * w * (f32(3) - w - w)
                derivative = f32(6) * w * (f32(1) - w) * f32(scale)
            near_d[i] = f32(1) - h
            far_d[i] = h
            slope_d[i] = derivative
    # Corners by doubling: the corners of the first d axes become those of d + 1. Corner k + 2^d comes from corner k.
    for i in range(BLOCK):
        row[0, i] = low[0, i]
        weight[0, i] = near[0, i] if corners > 1 else f32(1)
        if corners > 1:
            row[1, i] = high[0, i]
            weight[1, i] = far[0, i]
    for d in range(1, dim):
        low_d, high_d, near_d, far_d = low[d], high[d], near[d], far[d]
        for k in range(min(corners, 1 << d)):
            row_k, weight_k = row[k], weight[k]
            if corners > 1:
                row_new, weight_new = row[k + (1 << d)], weight[k + (1 << d)]
                for i in range(count):
                    row_new[i] = u32(row_k[i] ^ high_d[i]) if hashed else u32(row_k[i] + high_d[i])
                for i in range(count):
                    w = weight_k[i]
                    weight_new[i] = w * far_d[i]
                    weight_k[i] = w * near_d[i]
            for i in range(count):
                row_k[i] = u32(row_k[i] ^ low_d[i]) if hashed else u32(row_k[i] + low_d[i])
    # Modulo the number of entries.
    size = u32(entries)
    if hashed:
        for k in range(corners):
            for i in range(BLOCK):
                row[k, i] = u32(row[k, i] & u32(size - u32(1)))
    else:
        largest = u32(0)
        for k in range(corners):
            for i in range(BLOCK):
                j = row[k, i]
                largest = max(largest, j)
                row[k, i] = min(j, u32(j - size))  # subtracts once where j >= size; inside the unit cube that is enough
        if largest >= u64(2) * u64(size):
            for k in range(corners):
                for i in range(BLOCK):
                    row[k, i] = row[k, i] % size


@numba.njit(inline="always")
@no_type_check
def gather(rows, row, weight, target, width, count, features, corners):
    """Set the features of `count` points to their rows' sum by weight."""
    for i in range(count):
        for f in range(0, features - 1, 2):  # pairs: one load of 8 bytes serves both
            a, b = f32(0), f32(0)
            for k in range(corners):
                w, j = weight[k, i], u64(row[k, i]) * u64(features) + u64(f)
                a += w * rows[j]
                b += w * rows[j + u64(1)]
            target[i * width + f] = a
            target[i * width + f + 1] = b
        if features % 2:
            a = f32(0)
            for k in range(corners):
                j = u64(row[k, i]) * u64(features) + u64(features - 1)
                a += weight[k, i] * rows[j]
            target[i * width + features - 1] = a


@numba.njit(inline="always")
@no_type_check
def scatter(rows, row, weight, source, width, count, features, corners):
    """Add the gradients of `count` points to their rows, by weight."""
    for i in range(count):
        for f in range(0, features - 1, 2):
            a, b = source[i * width + f], source[i * width + f + 1]
            for k in range(corners):
                w, j = weight[k, i], u64(row[k, i]) * u64(features) + u64(f)
                rows[j] += w * a
                rows[j + u64(1)] += w * b
        if features % 2:
            a = source[i * width + features - 1]
            for k in range(corners):
                j = u64(row[k, i]) * u64(features) + u64(features - 1)
                rows[j] += weight[k, i] * a


@numba.njit(inline="always")
@no_type_check
def pull(rows, row, source, width, pulled, count, features, corners):
    """The product of each corner's row with the gradient of its point, `pulled` [K, BLOCK]."""
    for i in range(count):
        for k in range(corners):
            j = u64(row[k, i]) * u64(features)
            a = f32(0)
            for f in range(features):
                a += rows[j + u64(f)] * source[i * width + f]
            pulled[k, i] = a


@no_type_check
def _functions(dim: int, features: int, corners: int) -> tuple[Callable[..., None], ...]:
    """The kernels in Python, for D coordinates, F features, and K = 2^D corners (or 1: nearest).

    `forward`, `table_gradient` and `input_gradient` take points `lo` to `hi` of `x` [n D] at one level, which is given by
    `scale`, `entries`, `hashed`, `strides`, and whose part of the table (or of its gradient) is `rows`. The features of
    point i begin at `base + i * width` in `out` or `grad`, whether these are in the order [n, L, F] or [L, n, F].
    `table_gradient` adds to `rows`, `input_gradient` to `out` [n D]. `transpose` goes from [n, L, F] to [L, n, F], or back.
    """

    def forward(x, rows, out, base, width, scale, entries, hashed, strides, smooth, lo, hi):
        buffers = allocate(dim, corners)
        row, weight = buffers[5:]
        for first in range(lo, hi, BLOCK):
            count = min(BLOCK, hi - first)
            points = x[first * dim : (first + count) * dim]
            locate(points, count, scale, entries, hashed, strides, smooth, buffers, dim, corners)
            gather(rows, row, weight, out[base + first * width :], width, count, features, corners)

    def table_gradient(x, rows, grad, base, width, scale, entries, hashed, strides, smooth, lo, hi):
        buffers = allocate(dim, corners)
        row, weight = buffers[5:]
        for first in range(lo, hi, BLOCK):
            count = min(BLOCK, hi - first)
            points = x[first * dim : (first + count) * dim]
            locate(points, count, scale, entries, hashed, strides, smooth, buffers, dim, corners)
            scatter(rows, row, weight, grad[base + first * width :], width, count, features, corners)

    def input_gradient(x, rows, grad, base, width, scale, entries, hashed, strides, smooth, lo, hi, out):
        buffers = allocate(dim, corners)
        near, far, slope, row, weight = buffers[2:]
        part = np.zeros((corners, BLOCK), f32)
        for first in range(lo, hi, BLOCK):
            count = min(BLOCK, hi - first)
            points = x[first * dim : (first + count) * dim]
            locate(points, count, scale, entries, hashed, strides, smooth, buffers, dim, corners)
            target = out[first * dim : (first + count) * dim]
            pulled = weight  # the weights are not needed: what is differentiated is their product along the axes
            pull(rows, row, grad[base + first * width :], width, pulled, count, features, corners)
            for d in range(dim):
                # Differences along axis d, on the 2^(D-1) corners of the other axes ...
                for k in range(corners // 2):
                    corner = (k & ((1 << d) - 1)) + ((k >> d) << (d + 1))
                    part_k, lower, upper = part[k], pulled[corner], pulled[corner + (1 << d)]
                    for i in range(count):
                        part_k[i] = upper[i] - lower[i]
                # ... and interpolated along these, the last first.
                for place in range(dim - 2, -1, -1):
                    axis = place + (1 if place >= d else 0)
                    near_e, far_e = near[axis], far[axis]
                    for k in range(1 << place):
                        part_k, other = part[k], part[k + (1 << place)]
                        for i in range(count):
                            part_k[i] = part_k[i] * near_e[i] + other[i] * far_e[i]
                slope_d = slope[d]
                for i in range(count):
                    target[i * dim + d] += part[0, i] * slope_d[i]

    def transpose(source, target, n, levels, back, lo, hi):
        for first in range(lo, hi, TILE):
            for level in range(levels):
                for i in range(first, min(first + TILE, hi)):
                    for f in range(features):
                        point_major, level_major = (i * levels + level) * features + f, (level * n + i) * features + f
                        if back:
                            target[point_major] = source[level_major]
                        else:
                            target[level_major] = source[point_major]

    return forward, table_gradient, input_gradient, transpose


class Kernels(NamedTuple):
    """The compiled functions of one specialisation, and its number of corners; every array is flat. See `_functions`."""

    forward: Any
    table_gradient: Any
    input_gradient: Any
    transpose: Any
    corners: int


@functools.cache
def make(dim: int, features: int, corners: int) -> Kernels:
    """Kernels for D coordinates, F features, and K = 2^D corners (or 1: nearest)."""
    suffix = f"_d{dim}_f{features}_k{corners}"
    forward, table, points, transpose = (compiled(f, suffix) for f in _functions(dim, features, corners))
    return Kernels(forward, table, points, transpose, corners)


def compiled(function: Callable[..., None], suffix: str = "") -> Any:
    """numba's compiler for a kernel: it runs at the first call, and leaves its result on disk where it can write."""
    function.__name__ = function.__qualname__ = function.__name__ + suffix
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        kernel = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder to write to, not even the user's
        kernel = numba.njit(**options)(function)
    _ours.add(kernel)
    return kernel


_ours: set[Any] = set()


class _Announcer(event.Listener):  # type: ignore[misc]
    """Says once per process that kernels are being compiled; nothing when they come from the disk."""

    announced = False

    def on_start(self, event: event.Event) -> None:
        if not _Announcer.announced and event.data["dispatcher"] in _ours:
            _Announcer.announced = True
            logger.info("compiling the hash grid for this CPU (a few seconds; kept on disk for next time)")

    def on_end(self, event: event.Event) -> None:
        pass


event.register("numba:compile", _Announcer())
