r"""The grid in plain torch: the truth that every engine is held to, and the one that runs anywhere.

For a level of scale $s$ a point $x \in [0,1]^D$ has position $p = s x + 1/2$, cell $c = \lfloor p \rfloor$ and fraction
$w = p - c$. Its feature is the D-linear interpolation of the table's rows at the cell's $2^D$ corners $k \in \{0,1\}^D$,

$$ f(x) = \sum_k \Big(\prod_d \omega_{k_d}(w_d)\Big)\, T[\,i(c + k)\,], \qquad \omega_1(w) = h(w),\; \omega_0 = 1 - h(w), $$

with $h(w) = w$ (linear) or $w^2(3 - 2w)$ (smoothstep), and $i$ the dense or hashed index. The gradients to the table and
to x are written out below in differentiable torch operations: run without recording they are the backward pass, run with
recording they can be differentiated again, to any order. One level is in memory at a time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralfield.encodings.hashgrid.layout import PRIMES, GridLayout, Level


def positions(x: Float[Tensor, "n dim"], level: Level) -> tuple[Int[Tensor, "n dim"], Float[Tensor, "n dim"]]:
    """Cell (int64) and fraction of each coordinate.

    The product and the sum are rounded once, as the fused multiply-add of the specification does: for float32 input they
    are formed in float64, where the product is exact.
    """
    position = (x.double() * level.scale + 0.5).to(x.dtype)
    cell = position.detach().floor()
    return cell.long(), position - cell


def corner_index(cell: Int[Tensor, "n dim"], corner: tuple[int, ...], level: Level) -> Int[Tensor, " n"]:
    """Row of the level's table for one corner of each cell.

    Dense: $\\sum_d c_d R^d$, x fastest. Hashed: $\\bigoplus_d c_d \\pi_d$ in 32-bit unsigned arithmetic (Müller et al. 2022,
    eq. 4). Both modulo the number of entries, so that no coordinate ever reads outside the table.
    """
    index = cell[:, 0] + corner[0]
    for axis in range(1, cell.shape[1]):
        coordinate = cell[:, axis] + corner[axis]
        if level.hashed:
            index = index ^ (coordinate * PRIMES[axis])  # entries is a power of two <= 2^32: higher bits drop out below
        else:
            index = index + coordinate * level.resolution**axis
    if level.hashed:
        return index & (level.entries - 1)
    # The specification's index is unsigned: a negative dense index wraps at 2^32 first.
    return (index & 0xFFFFFFFF) % level.entries


def shape_function(w: Tensor, interpolation: str, order: int = 0) -> Tensor:
    """h(w) of the module's formula, or its derivative of the given order (0 or 1), as a differentiable expression."""
    if interpolation == "smoothstep":
        return w * w * (3 - 2 * w) if order == 0 else 6 * w * (1 - w)
    return w if order == 0 else torch.ones_like(w)


def corners(
    x: Float[Tensor, "n dim"], level: Level, interpolation: str
) -> Iterator[tuple[Int[Tensor, " n"], Float[Tensor, " n"]]]:
    """Index and weight of every corner that a point touches: 2^D of them, or one for nearest."""
    cell, fraction = positions(x, level)
    dim = x.shape[1]
    if interpolation == "nearest":
        yield corner_index(cell, (0,) * dim, level), torch.ones_like(x[:, 0])
        return
    upper = shape_function(fraction, interpolation)
    weights = (1 - upper, upper)
    for corner in itertools.product((0, 1), repeat=dim):
        yield corner_index(cell, corner, level), math.prod(weights[k][:, d] for d, k in enumerate(corner))  # type: ignore[misc]


def encode_level(
    x: Float[Tensor, "n dim"], table: Float[Tensor, "entries features"], level: Level, interpolation: str
) -> Float[Tensor, "n features"]:
    """Interpolated features of one level."""
    out = x.new_zeros(x.shape[0], table.shape[1])
    for index, weight in corners(x, level, interpolation):
        out = out + weight[:, None] * table[index]
    return out


def table_gradient(
    x: Float[Tensor, "n dim"], grad: Float[Tensor, "n features"], level: Level, interpolation: str
) -> Float[Tensor, "entries features"]:
    """Gradient to the level's table: each point's gradient is added to the rows that it touches, by weight."""
    rows, values = [], []
    for index, weight in corners(x, level, interpolation):
        rows.append(index)
        values.append(weight[:, None] * grad)
    # A column at a time: adding scalars at 1-D indices is torch's fast, sequential (hence deterministic) path on a CPU.
    all_rows, all_values = torch.cat(rows), torch.cat(values)
    zeros = grad.new_zeros(level.entries)
    return torch.stack([zeros.index_add(0, all_rows, column) for column in all_values.unbind(1)], dim=1)


def input_gradient(
    x: Float[Tensor, "n dim"],
    table: Float[Tensor, "entries features"],
    grad: Float[Tensor, "n features"],
    level: Level,
    interpolation: str,
) -> Float[Tensor, "n dim"]:
    """Gradient to x: the level's scale times the derivative of each axis's weight, summed over the corners.

    Zero for nearest. With linear weights the second derivative along one axis is zero inside a cell, and the gradient
    jumps at its faces; smoothstep's gradient is continuous and vanishes there.
    """
    if interpolation == "nearest":
        return torch.zeros_like(x)
    cell, fraction = positions(x, level)
    upper = shape_function(fraction, interpolation)
    slope = shape_function(fraction, interpolation, order=1) * level.scale
    weights, slopes = (1 - upper, upper), (-slope, slope)
    dim = x.shape[1]
    parts = [x.new_zeros(x.shape[0]) for _ in range(dim)]
    for corner in itertools.product((0, 1), repeat=dim):
        pulled = (table[corner_index(cell, corner, level)] * grad).sum(1)
        for axis in range(dim):
            factors = [slopes[k][:, d] if d == axis else weights[k][:, d] for d, k in enumerate(corner)]
            parts[axis] = parts[axis] + pulled * math.prod(factors)  # type: ignore[arg-type]
    return torch.stack(parts, dim=1)


def level_tables(params: Float[Tensor, " parameters"], layout: GridLayout) -> list[Float[Tensor, "entries features"]]:
    """A view of the flat parameter vector for each level, [entries, features]."""
    rows = params.view(-1, layout.n_features)
    return [rows[level.offset : level.offset + level.entries] for level in layout.levels]


def forward(
    x: Float[Tensor, "n dim"], params: Float[Tensor, " parameters"], layout: GridLayout, interpolation: str
) -> Float[Tensor, "n out_dim"]:
    """Features of all levels, level-major."""
    tables = level_tables(params, layout)
    return torch.cat(
        [encode_level(x, table, level, interpolation) for table, level in zip(tables, layout.levels, strict=True)],
        dim=1,
    )


def backward(
    grad: Float[Tensor, "n out_dim"],
    x: Float[Tensor, "n dim"],
    params: Float[Tensor, " parameters"],
    layout: GridLayout,
    interpolation: str,
    needs_x: bool,
    needs_params: bool,
) -> tuple[Float[Tensor, "n dim"] | None, Float[Tensor, " parameters"] | None]:
    """Gradients to x and to the flat parameters, each only where it is needed."""
    grads = grad.split(layout.n_features, dim=1)
    grad_x = grad_params = None
    if needs_params:
        per_level = [table_gradient(x, g, level, interpolation) for g, level in zip(grads, layout.levels, strict=True)]
        grad_params = torch.cat(per_level).reshape(-1)
    if needs_x:
        tables = level_tables(params, layout)
        grad_x = torch.zeros_like(x)
        for g, table, level in zip(grads, tables, layout.levels, strict=True):
            grad_x = grad_x + input_gradient(x, table, g, level, interpolation)
    return grad_x, grad_params
