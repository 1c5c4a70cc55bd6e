r"""The loops of the CPU engine's double backward: its three kernels, differentiated along a vector v at each point.

The first backward pass gives $\nabla_x (g \cdot f)$ and $\sum_k W_k(x)\, g$ at the rows k, where f(x) = $\sum_k W_k T_k$.
The derivative of $v \cdot \nabla_x (g \cdot f)$ is, by the symmetry of second derivatives,

- to g: $\partial_v f = \sum_k (\partial_v W_k)\, T_k$, the directional derivative of the features,
- to row $T_k$: $(\partial_v W_k)\, g$, that of the table's gradient,
- to x: $\partial_v \nabla_x (g \cdot f)$, that of the gradient to x,

with $\partial_v = \sum_d v_d\, \partial / \partial x_d$. So each is a kernel of :mod:`.cpu_kernels` run on dual numbers: what
it computes, and how fast that changes along v. A module of its own, so that nobody compiles it who differentiates once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, no_type_check

import numba
import numpy as np

from neuralfield.encodings.hashgrid.cpu_kernels import (
    BLOCK,
    allocate,
    compiled,
    f32,
    f64,
    gather,
    locate,
    pull,
    scatter,
)


@numba.njit(inline="always")
@no_type_check
def turn(v, count, buffers, turns, dim):
    """The rate of each axis's upper share along v, `turns` [D, BLOCK]; the lower share's is its negative."""
    slope = buffers[4]
    for d in range(dim):
        slope_d, turns_d = slope[d], turns[d]
        for i in range(count):
            turns_d[i] = slope_d[i] * v[i * dim + d]


@numba.njit(inline="always")
@no_type_check
def rates(count, buffers, turns, rate, dim):
    """The rates of all corners' weights along v, `rate` [K, BLOCK], by doubling as in `locate`; the weights are redone."""
    near, far, weight = buffers[2], buffers[3], buffers[6]
    weight_0, weight_1, rate_0, rate_1 = weight[0], weight[1], rate[0], rate[1]
    near_d, far_d, turns_d = near[0], far[0], turns[0]
    for i in range(count):
        weight_0[i], weight_1[i] = near_d[i], far_d[i]
        rate_0[i], rate_1[i] = -turns_d[i], turns_d[i]
    for d in range(1, dim):
        near_d, far_d, turns_d = near[d], far[d], turns[d]
        for k in range(1 << d):
            weight_k, rate_k = weight[k], rate[k]
            weight_new, rate_new = weight[k + (1 << d)], rate[k + (1 << d)]
            for i in range(count):
                w, r, t = weight_k[i], rate_k[i], turns_d[i]
                rate_new[i] = r * far_d[i] + w * t
                rate_k[i] = r * near_d[i] - w * t
                weight_new[i] = w * far_d[i]
                weight_k[i] = w * near_d[i]


@no_type_check
def _functions(dim: int, features: int) -> tuple[Callable[..., None], ...]:
    """The kernels in Python, for D coordinates and F features; arguments are those of the kernels that they differentiate.

    `v` [n D] comes last. `forward_along` sets `out`, `table_gradient_along` adds to `rows`, `input_gradient_along` to `out`.
    """
    corners = 2**dim

    def forward_along(x, rows, out, base, width, scale, entries, hashed, strides, smooth, lo, hi, v):
        buffers = allocate(dim, corners)
        row = buffers[5]
        turns, rate = np.zeros((dim, BLOCK), f32), np.zeros((corners, BLOCK), f32)
        for first in range(lo, hi, BLOCK):
            count = min(BLOCK, hi - first)
            some = slice(first * dim, (first + count) * dim)
            locate(x[some], count, scale, entries, hashed, strides, smooth, buffers, dim, corners)
            turn(v[some], count, buffers, turns, dim)
            rates(count, buffers, turns, rate, dim)
            gather(rows, row, rate, out[base + first * width :], width, count, features, corners)

    def table_gradient_along(x, rows, grad, base, width, scale, entries, hashed, strides, smooth, lo, hi, v):
        buffers = allocate(dim, corners)
        row = buffers[5]
        turns, rate = np.zeros((dim, BLOCK), f32), np.zeros((corners, BLOCK), f32)
        for first in range(lo, hi, BLOCK):
            count = min(BLOCK, hi - first)
            some = slice(first * dim, (first + count) * dim)
            locate(x[some], count, scale, entries, hashed, strides, smooth, buffers, dim, corners)
            turn(v[some], count, buffers, turns, dim)
            rates(count, buffers, turns, rate, dim)
            scatter(rows, row, rate, grad[base + first * width :], width, count, features, corners)

    def input_gradient_along(x, rows, grad, base, width, scale, entries, hashed, strides, smooth, lo, hi, out, v):
        buffers = allocate(dim, corners)
        near, far, slope, row, pulled = buffers[2:]  # as in input_gradient, the weights are not needed
        turns = np.zeros((dim, BLOCK), f32)
        part, rate = np.zeros((corners, BLOCK), f32), np.zeros((corners, BLOCK), f32)
        for first in range(lo, hi, BLOCK):
            count = min(BLOCK, hi - first)
            some = slice(first * dim, (first + count) * dim)
            points, ways, target = x[some], v[some], out[some]
            locate(points, count, scale, entries, hashed, strides, smooth, buffers, dim, corners)
            turn(ways, count, buffers, turns, dim)
            pull(rows, row, grad[base + first * width :], width, pulled, count, features, corners)
            for d in range(dim):
                # Differences along axis d, on the 2^(D-1) corners of the other axes; they do not change along v ...
                for k in range(corners // 2):
                    corner = (k & ((1 << d) - 1)) + ((k >> d) << (d + 1))
                    part_k, rate_k, lower, upper = part[k], rate[k], pulled[corner], pulled[corner + (1 << d)]
                    for i in range(count):
                        part_k[i] = upper[i] - lower[i]
                        rate_k[i] = f32(0)
                # ... but how they are interpolated does.
                for place in range(dim - 2, -1, -1):
                    axis = place + (1 if place >= d else 0)
                    near_e, far_e, turns_e = near[axis], far[axis], turns[axis]
                    for k in range(1 << place):
                        part_k, other, rate_k, rate_other = (
                            part[k],
                            part[k + (1 << place)],
                            rate[k],
                            rate[k + (1 << place)],
                        )
                        for i in range(count):
                            a, b = part_k[i], other[i]
                            rate_k[i] = rate_k[i] * near_e[i] + rate_other[i] * far_e[i] + (b - a) * turns_e[i]
                            part_k[i] = a * near_e[i] + b * far_e[i]
                slope_d = slope[d]
                for i in range(count):
                    target[i * dim + d] += rate[0, i] * slope_d[i]
                if smooth:  # the slope itself changes as well: 6 w (1 - w) has the derivative 6 - 12 w
                    for i in range(count):
                        p = f32(f64(points[i * dim + d]) * scale + 0.5)
                        curve = (f32(6) - f32(12) * (p - np.floor(p))) * f32(scale) * f32(scale)
                        target[i * dim + d] += part[0, i] * curve * ways[i * dim + d]

    return forward_along, table_gradient_along, input_gradient_along


class DoubleKernels(NamedTuple):
    """The compiled functions of one specialisation; every array is flat. See `_functions`."""

    forward_along: Any
    table_gradient_along: Any
    input_gradient_along: Any


@functools.cache
def make(dim: int, features: int) -> DoubleKernels:
    """Kernels for D coordinates and F features; interpolation by nearest has no derivatives, and no kernels."""
    suffix = f"_d{dim}_f{features}"
    return DoubleKernels(*(compiled(function, suffix) for function in _functions(dim, features)))
