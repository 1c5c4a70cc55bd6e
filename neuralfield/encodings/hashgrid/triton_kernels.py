r"""The kernels of the Triton engine. Imported on first use only; needs Triton and nothing else.

One program takes one block of points at one level, and programs are numbered so that all blocks of a level come before the
next level: those that run at the same time read one table, which then stays in the GPU's cache. A block has as many points
as threads: each thread reads the F numbers of a row, several at once (they are contiguous), and has 2^D independent reads
under way, which is what hides the latency of memory; nothing is exchanged between threads. The numbers of a level (scale,
entries, strides) are read from memory, so that one compiled kernel serves every level of every grid of the same D and F.

Which thread has which number is the compiler's choice, made anew for each access to memory. So that all choices agree, only
the table is accessed in tiles, [BLOCK, VECTOR], and they are no wider than what one instruction reads or adds: a wider tile
(or one at an address that is no multiple of 16 bytes, which torch does not allocate) is dealt out to several threads per
point, which then exchange rows, weights and values at every corner.

`levels` has one row of 3 + D int64 per level: entries, offset (rows of the levels before), whether hashed, and what one
vertex along each axis means for the row: R^d (dense) or a prime (hashed), modulo 2^32. `scales` are float32. `tables` is
the flat vector of parameters (an argument called `params` would collide with a variable of Triton's launcher).

Names in capitals are constants of a compilation: D coordinates; F features, VECTOR at a time, a power of two that divides F;
INTERPOLATION; WIDE, whether offsets need 64 bits (32 are faster); BLOCK points per program. Loops over axes, corners and
features unroll, and tuples hold one element per axis or one tile per VECTOR features.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def _block(n, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """Numbers of this program's points, and which of them exist."""
    block = tl.program_id(0)
    if WIDE:
        block = block.to(tl.int64)
    i = block * BLOCK + tl.arange(0, BLOCK)
    return i, i < n


@triton.jit
@no_type_check
def _features(VECTOR: tl.constexpr, WIDE: tl.constexpr):
    """Numbers of a tile's features, [1, VECTOR], counted from the tile's first."""
    features = tl.arange(0, VECTOR)[None, :]
    return features.to(tl.int64) if WIDE else features


@triton.jit
@no_type_check
def _coordinates(x, i, inside, D: tl.constexpr):
    """The points' coordinates, one tensor per axis."""
    coordinates = ()
    for d in tl.static_range(D):
        coordinates += (tl.load(x + i * D + d, mask=inside, other=0.0),)
    return coordinates


@triton.jit
@no_type_check
def _axis(x, scale, stride, INTERPOLATION: tl.constexpr):
    r"""For one axis: what the lower and the upper vertex mean for the row; their shares $\omega_0, \omega_1$ of the
    interpolation; and the derivative $s\,h'(w)$ of the upper share. See :mod:`.reference`.
    """
    position = tl.fma(x, scale, 0.5)  # rounded once, as the specification has it
    cell = tl.floor(position)
    w = position - cell
    # Converting NaN or what int32 cannot hold is undefined; such a point has no fraction, so vertex 0 will do.
    vertex = tl.where(tl.abs(cell) < 2147483648.0, cell, 0.0).to(tl.int32)
    low = vertex.to(tl.uint32) * stride
    upper = w
    slope = w * 0.0 + scale
    if INTERPOLATION == "smoothstep":
        upper = w * w * (3.0 - 2.0 * w)
        slope = 6.0 * w * (1.0 - w) * scale
    return low, low + stride, 1.0 - upper, upper, slope


@triton.jit
@no_type_check
def _axes(scales, levels, level, coordinates, D: tl.constexpr, INTERPOLATION: tl.constexpr):
    """Every axis at a level."""
    scale = tl.load(scales + level)
    axes = ()
    for d in tl.static_range(D):
        stride = tl.load(levels + level * (3 + D) + 3 + d).to(tl.uint32)
        axes += (_axis(coordinates[d], scale, stride, INTERPOLATION),)
    return axes


@triton.jit
@no_type_check
def _table(levels, level, D: tl.constexpr):
    """A level's entries, offset, and whether it is hashed."""
    record = levels + level * (3 + D)
    return tl.load(record).to(tl.uint32), tl.load(record + 1), tl.load(record + 2) != 0


@triton.jit
@no_type_check
def _row(axes, k: tl.constexpr, entries, D: tl.constexpr, HASHED: tl.constexpr, WIDE: tl.constexpr):
    """Row of the level's table at corner k, which takes the upper vertex along axis d where bit d of k is set."""
    row = axes[0][k & 1]
    for d in tl.static_range(1, D):
        if HASHED:
            row = row ^ axes[d][(k >> d) & 1]
        else:
            row = row + axes[d][(k >> d) & 1]
    if HASHED:
        row = row & (entries - 1)  # a power of two
    else:
        row = row % entries
    return row.to(tl.int64 if WIDE else tl.int32)


@triton.jit
@no_type_check
def _weight(axes, k: tl.constexpr, D: tl.constexpr, INTERPOLATION: tl.constexpr):
    """Weight of corner k."""
    weight = axes[0][2 + (k & 1)]
    for d in tl.static_range(1, D):
        weight = weight * axes[d][2 + ((k >> d) & 1)]
    if INTERPOLATION == "nearest":
        weight = tl.full(weight.shape, 1.0, tl.float32)
    return weight


@triton.jit
@no_type_check
def _interpolate(
    table, axes, entries, features, inside, D: tl.constexpr, F: tl.constexpr, VECTOR: tl.constexpr,
    INTERPOLATION: tl.constexpr, HASHED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Features of one level, in tiles, summed in float32."""
    values = ()
    for _ in tl.static_range(F // VECTOR):
        values += (tl.zeros([inside.shape[0], VECTOR], tl.float32),)
    for k in tl.static_range(1 if INTERPOLATION == "nearest" else 2**D):
        row = _row(axes, k, entries, D, HASHED, WIDE)[:, None]
        weight = _weight(axes, k, D, INTERPOLATION)[:, None]
        added = ()
        for t in tl.static_range(F // VECTOR):
            found = tl.load(table + row * F + (t * VECTOR + features), mask=inside[:, None], other=0.0)
            added += (values[t] + weight * found.to(tl.float32),)
        values = added
    return values


@triton.jit(do_not_specialize=["n"])
@no_type_check
def forward(
    x, tables, out, scales, levels, n,
    D: tl.constexpr, F: tl.constexpr, VECTOR: tl.constexpr,
    INTERPOLATION: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Features of points `x` [n, D] into `out` [L F, n], where neighbouring threads write to neighbouring places."""
    i, inside = _block(n, BLOCK, WIDE)
    features = _features(VECTOR, WIDE)
    level = tl.program_id(1)
    entries, offset, hashed = _table(levels, level, D)
    axes = _axes(scales, levels, level, _coordinates(x, i, inside, D), D, INTERPOLATION)
    table = tables + offset * F
    # One branch for the whole program: hashed levels do not pay for the division of the dense ones.
    if hashed:
        values = _interpolate(table, axes, entries, features, inside, D, F, VECTOR, INTERPOLATION, True, WIDE)
    else:
        values = _interpolate(table, axes, entries, features, inside, D, F, VECTOR, INTERPOLATION, False, WIDE)
    for t in tl.static_range(F // VECTOR):
        place = (level * F + t * VECTOR + features) * n + i[:, None]
        tl.store(out + place, values[t], mask=inside[:, None])


@triton.jit
@no_type_check
def _upstream(
    grad, i, inside, level, stride_n, stride_c, F: tl.constexpr, VECTOR: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    """Gradient of a level's features, in tiles. `grad` [n, L F] has any strides.

    It is read feature by feature and joined, each thread its own point: were tiles read, the strides would decide which
    thread reads what.
    """
    tiles = ()
    for t in tl.static_range(F // VECTOR):
        parts = ()
        for f in tl.static_range(VECTOR):
            column = tl.cast(level * F + (t * VECTOR + f), tl.int64 if WIDE else tl.int32)
            parts += (tl.load(grad + i * stride_n + column * stride_c, mask=inside, other=0.0),)
        # Joining adds a last axis of two; paired so, the axes are the bits of the feature's number, the highest first.
        for bit in tl.static_range(1, 4):
            joined = ()
            for f in tl.static_range(VECTOR >> bit):
                joined += (tl.join(parts[f], parts[f + (VECTOR >> bit)]),)
            if VECTOR >> bit:
                parts = joined
        tiles += (tl.reshape(parts[0], [inside.shape[0], VECTOR]),)
    return tiles


@triton.jit
@no_type_check
def _scatter(
    table, axes, upstream, entries, features, inside, D: tl.constexpr, F: tl.constexpr, VECTOR: tl.constexpr,
    INTERPOLATION: tl.constexpr, HASHED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    for k in tl.static_range(1 if INTERPOLATION == "nearest" else 2**D):
        row = _row(axes, k, entries, D, HASHED, WIDE)[:, None]
        weight = _weight(axes, k, D, INTERPOLATION)[:, None]
        for t in tl.static_range(F // VECTOR):
            place = table + row * F + (t * VECTOR + features)
            tl.atomic_add(place, weight * upstream[t], mask=inside[:, None], sem="relaxed")


@triton.jit(do_not_specialize=["n"])
@no_type_check
def table_gradient(
    x, grad, out, scales, levels, n, stride_n, stride_c,
    D: tl.constexpr, F: tl.constexpr, VECTOR: tl.constexpr,
    INTERPOLATION: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add the gradient of every point to its rows in `out` [parameters, float32], in no particular order.

    Additions at a row are done by the cache, without a round trip to the thread.
    """
    i, inside = _block(n, BLOCK, WIDE)
    features = _features(VECTOR, WIDE)
    level = tl.program_id(1)
    entries, offset, hashed = _table(levels, level, D)
    axes = _axes(scales, levels, level, _coordinates(x, i, inside, D), D, INTERPOLATION)
    g = _upstream(grad, i, inside, level, stride_n, stride_c, F, VECTOR, WIDE)
    table = out + offset * F
    if hashed:
        _scatter(table, axes, g, entries, features, inside, D, F, VECTOR, INTERPOLATION, True, WIDE)
    else:
        _scatter(table, axes, g, entries, features, inside, D, F, VECTOR, INTERPOLATION, False, WIDE)


@triton.jit
@no_type_check
def _pull(
    table, axes, upstream, entries, features, inside, D: tl.constexpr, F: tl.constexpr, VECTOR: tl.constexpr,
    HASHED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Gradient to each coordinate through one level."""
    parts = ()
    for d in tl.static_range(D):
        parts += (axes[d][4] * 0.0,)
    for k in tl.static_range(2**D):
        row = _row(axes, k, entries, D, HASHED, WIDE)[:, None]
        pulled = tl.zeros([inside.shape[0]], tl.float32)
        for t in tl.static_range(F // VECTOR):
            found = tl.load(table + row * F + (t * VECTOR + features), mask=inside[:, None], other=0.0)
            pulled += tl.sum(found.to(tl.float32) * upstream[t], axis=1)
        added = ()
        for d in tl.static_range(D):
            # The derivative of the corner's weight along axis d: the other axes' shares, and the slope with its sign.
            share = pulled
            for e in tl.static_range(D):
                if e != d:
                    share = share * axes[e][2 + ((k >> e) & 1)]
            if (k >> d) & 1:
                added += (parts[d] + share,)
            else:
                added += (parts[d] - share,)
        parts = added
    scaled = ()
    for d in tl.static_range(D):
        scaled += (parts[d] * axes[d][4],)
    return scaled


@triton.jit(do_not_specialize=["n", "n_levels"])
@no_type_check
def input_gradient(
    x, tables, grad, out, scales, levels, n, n_levels, stride_n, stride_c,
    D: tl.constexpr, F: tl.constexpr, VECTOR: tl.constexpr,
    INTERPOLATION: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient to `x` into `out` [n, D]; not for nearest.

    A program goes through the levels and keeps the sum in registers: always in the same order, with no memory for parts.
    Programs run through the levels nearly in step, so that here too few tables are in use at a time.
    """
    i, inside = _block(n, BLOCK, WIDE)
    features = _features(VECTOR, WIDE)
    coordinates = _coordinates(x, i, inside, D)
    total = ()
    for _ in tl.static_range(D):
        total += (tl.zeros([BLOCK], tl.float32),)
    for level in range(n_levels):
        entries, offset, hashed = _table(levels, level, D)
        axes = _axes(scales, levels, level, coordinates, D, INTERPOLATION)
        g = _upstream(grad, i, inside, level, stride_n, stride_c, F, VECTOR, WIDE)
        table = tables + offset * F
        if hashed:
            parts = _pull(table, axes, g, entries, features, inside, D, F, VECTOR, True, WIDE)
        else:
            parts = _pull(table, axes, g, entries, features, inside, D, F, VECTOR, False, WIDE)
        added = ()
        for d in tl.static_range(D):
            added += (total[d] + parts[d],)
        total = added
    for d in tl.static_range(D):
        tl.store(out + i * D + d, total[d], mask=inside)
