r"""The loops of the CPU engine, compiled by numba. Imported on first use only.

A block of points is handled in two stages. `locate` does the arithmetic that vectorises (positions, weights, rows) and
leaves rows and weights of all corners in buffers that stay in the innermost cache; then a scalar loop walks the points and
does nothing but read (or add to) rows of the table, so that many cache misses are in flight at once. Levels are the outer
loop: one level's table at a time competes for the cache.

Kernels release the GIL and take ranges of points or lists of levels; threads are the business of :mod:`.cpu`. They are
made once per (dimensions D, features F, corners K) with these numbers as constants, and every array is flat, so that
inner loops unroll and strides are constants. Only contraction (a*b + c rounded once) is allowed beyond IEEE arithmetic:
NaN stays NaN.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numba
import numpy as np

f32, f64, u32 = np.float32, np.float64, np.uint32

# Points per block: rows and weights of 8 corners take 8 KiB, a quarter of the smallest first-level cache in use.
BLOCK = 128

_BEYOND = f32(2.0**31)


@numba.njit(inline="always")
def locate(x, count, scale, entries, hashed, strides, smooth, step, share, slope, row, weight, dim, corners):  # type: ignore[no-untyped-def]
    entries = u32(entries)
    for d in range(dim):
        stride = strides[d]
        for i in range(count):
            # In float64 the product is exact, so the sum is rounded like a fused multiply-add: see reference.positions.
            p = f32(f64(x[i * dim + d]) * scale + 0.5)
            cell = np.floor(p)
            w = p - cell
            # Beyond int32, and for NaN, conversion is undefined; any vertex will do, as no fraction is left there.
            vertex = np.int32(cell if abs(cell) < _BEYOND else f32(0))
            low = u32(u32(vertex) * stride)
            step[2 * d * BLOCK + i] = low
            step[(2 * d + 1) * BLOCK + i] = u32(low + stride)
            h = w
            dh = f32(scale)
            if smooth:
                h = w * w * (f32(3) - w - w)
                dh = f32(6) * w * (f32(1) - w) * f32(scale)
            share[2 * d * BLOCK + i] = f32(1) - h
            share[(2 * d + 1) * BLOCK + i] = h
            slope[d * BLOCK + i] = dh
    top = u32(0)
    if hashed:
        for k in range(corners):
            for i in range(count):
                j = step[(k & 1) * BLOCK + i]
                for d in range(1, dim):
                    j = u32(j ^ step[(2 * d + ((k >> d) & 1)) * BLOCK + i])
                row[k * BLOCK + i] = u32(j & u32(entries - u32(1)))
    else:
        for k in range(corners):
            for i in range(count):
                j = step[(k & 1) * BLOCK + i]
                for d in range(1, dim):
                    j = u32(j + step[(2 * d + ((k >> d) & 1)) * BLOCK + i])
                top = max(top, j)
                row[k * BLOCK + i] = min(j, u32(j - entries))  # one wrap, without a division: enough inside the unit cube
        if top >= u32(2) * entries:
            for k in range(corners * BLOCK):
                row[k] = row[k] % entries  # the wrap above changed no remainder
    for k in range(corners):
        for i in range(count):
            w = share[(k & 1) * BLOCK + i] if corners > 1 else f32(1)
            if corners > 1:
                for d in range(1, dim):
                    w = w * share[(2 * d + ((k >> d) & 1)) * BLOCK + i]
            weight[k * BLOCK + i] = w


class Kernels(NamedTuple):
    """The compiled functions of one specialisation."""

    forward: Any
    table_gradient: Any
    input_gradient: Any


@functools.cache
def make(dim: int, features: int, corners: int) -> Kernels:
    """Kernels for D coordinates, F features, and K = 2^D corners or 1."""

    def forward(x, table, out, scales, shapes, strides, smooth, lo, hi):
        step, share = np.empty(2 * dim * BLOCK, u32), np.empty(2 * dim * BLOCK, f32)
        row, weight = np.zeros(corners * BLOCK, u32), np.empty(corners * BLOCK, f32)
        slope = np.empty(dim * BLOCK, f32)
        width = len(scales) * features
        for level in range(len(scales)):
            entries, offset, hashed = shapes[level]
            rows = table[offset * features : (offset + entries) * features]
            for first in range(lo, hi, BLOCK):
                count = min(BLOCK, hi - first)
                locate(x[first * dim : (first + count) * dim], count, scales[level], entries, hashed, strides[level],
                    smooth, step, share, slope, row, weight, dim, corners)
                target = out[first * width + level * features : (first + count) * width]
                for i in range(count):
                    for f in range(0, features - 1, 2):
                        a, b = f32(0), f32(0)
                        for k in range(corners):
                            w, j = weight[k * BLOCK + i], np.uint64(row[k * BLOCK + i]) * np.uint64(features)
                            a += w * rows[j + np.uint64(f)]
                            b += w * rows[j + np.uint64(f + 1)]
                        target[i * width + f] = a
                        target[i * width + f + 1] = b
                    if features % 2:
                        a = f32(0)
                        for k in range(corners):
                            a += weight[k * BLOCK + i] * rows[np.uint64(row[k * BLOCK + i]) * np.uint64(features) + np.uint64(features - 1)]
                        target[i * width + features - 1] = a

    def table_gradient(x, grad, rows, scales, shapes, strides, smooth, level, lo, hi):
        step, share = np.empty(2 * dim * BLOCK, u32), np.empty(2 * dim * BLOCK, f32)
        row, weight = np.zeros(corners * BLOCK, u32), np.empty(corners * BLOCK, f32)
        slope = np.empty(dim * BLOCK, f32)
        width = len(scales) * features
        entries, offset, hashed = shapes[level]
        for first in range(lo, hi, BLOCK):
            count = min(BLOCK, hi - first)
            locate(x[first * dim : (first + count) * dim], count, scales[level], entries, hashed, strides[level],
                smooth, step, share, slope, row, weight, dim, corners)
            source = grad[first * width + level * features : (first + count) * width]
            for i in range(count):
                for f in range(0, features - 1, 2):
                    a, b = source[i * width + f], source[i * width + f + 1]
                    for k in range(corners):
                        w, j = weight[k * BLOCK + i], np.uint64(row[k * BLOCK + i]) * np.uint64(features)
                        rows[j + np.uint64(f)] += w * a
                        rows[j + np.uint64(f + 1)] += w * b
                if features % 2:
                    a = source[i * width + features - 1]
                    for k in range(corners):
                        rows[np.uint64(row[k * BLOCK + i]) * np.uint64(features) + np.uint64(features - 1)] += weight[k * BLOCK + i] * a

    def input_gradient(x, grad, table, out, scales, shapes, strides, smooth, lo, hi):
        step, share = np.empty(2 * dim * BLOCK, u32), np.empty(2 * dim * BLOCK, f32)
        row, weight = np.zeros(corners * BLOCK, u32), np.empty(corners * BLOCK, f32)
        slope = np.empty(dim * BLOCK, f32)
        width = len(scales) * features
        out[lo * dim : hi * dim] = f32(0)
        for level in range(len(scales)):
            entries, offset, hashed = shapes[level]
            rows = table[offset * features : (offset + entries) * features]
            for first in range(lo, hi, BLOCK):
                count = min(BLOCK, hi - first)
                locate(x[first * dim : (first + count) * dim], count, scales[level], entries, hashed, strides[level],
                    smooth, step, share, slope, row, weight, dim, corners)
                source = grad[first * width + level * features : (first + count) * width]
                target = out[first * dim : (first + count) * dim]
                for i in range(count):
                    for k in range(corners):
                        a = f32(0)
                        j = np.uint64(row[k * BLOCK + i]) * np.uint64(features)
                        for f in range(features):
                            a += rows[j + np.uint64(f)] * source[i * width + f]
                        weight[k * BLOCK + i] = a
                for d in range(dim):
                    for i in range(count):
                        total = f32(0)
                        for k in range(corners):
                            if not (k >> d) & 1:
                                w = weight[(k + (1 << d)) * BLOCK + i] - weight[k * BLOCK + i]
                                for e in range(dim):
                                    if e != d:
                                        w = w * share[(2 * e + ((k >> e) & 1)) * BLOCK + i]
                                total += w
                        target[i * dim + d] += total * slope[d * BLOCK + i]

    suffix = f"_d{dim}_f{features}_k{corners}"
    compiled = []
    for function in (forward, table_gradient, input_gradient):
        function.__name__ = function.__name__ + suffix
        function.__qualname__ = function.__name__
        compiled.append(numba.njit(nogil=True, error_model="numpy", fastmath={"contract"}, cache=True)(function))
    return Kernels(*compiled)
