"""The kernels of the Triton engine's deterministic table gradient. Imported on first use only.

Every visit of a point to a row is listed with its weight (:func:`visits`), the list is sorted by row, and each row adds up
its own part of it, always in the same order (:func:`segment_sum`). Sums do not depend on which program runs first.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

from neuralfield.encodings.hashgrid.triton_kernels import _axes, _block, _coordinates, _row, _table, _weight


@triton.jit
@no_type_check
def _list(
    rows, weights, axes, i, inside, n, entries, D: tl.constexpr,
    INTERPOLATION: tl.constexpr, HASHED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    for k in tl.static_range(1 if INTERPOLATION == "nearest" else 2**D):
        place = i + n * k
        tl.store(rows + place, _row(axes, k, entries, D, HASHED, False), mask=inside)
        tl.store(weights + place, _weight(axes, k, D, INTERPOLATION), mask=inside)


@triton.jit(do_not_specialize=["n", "level"])
@no_type_check
def visits(
    x, rows, weights, scales, levels, n, level,
    D: tl.constexpr, INTERPOLATION: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Row (int32) and weight of every corner of every point at one level, into `rows` and `weights` [corners, n]."""
    i, inside = _block(n, BLOCK, WIDE)
    entries, _, hashed = _table(levels, level, D)
    axes = _axes(scales, levels, level, _coordinates(x, i, inside, D), D, INTERPOLATION)
    if WIDE:
        n = n.to(tl.int64)
    if hashed:
        _list(rows, weights, axes, i, inside, n, entries, D, INTERPOLATION, True, WIDE)
    else:
        _list(rows, weights, axes, i, inside, n, entries, D, INTERPOLATION, False, WIDE)


@triton.jit(do_not_specialize=["n", "entries"], do_not_specialize_on_alignment=["grad", "out"])
@no_type_check
def segment_sum(
    order, weights, bounds, grad, out, n, entries, stride_n, stride_c,
    F: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Sum of each row's visits into `out` [entries, F]; one program takes `ROWS` rows and one feature.

    `order` (int64) is the list's order by row, and row r has the part of it from ``bounds[r]`` to ``bounds[r + 1]``. `grad`
    points at the level's first feature. `LANES` threads share a row, because on a coarse level few rows have many visits.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    feature = tl.program_id(1)
    inside = rows < entries
    start = tl.load(bounds + rows, mask=inside, other=0)
    end = tl.load(bounds + rows + 1, mask=inside, other=0)
    total = tl.zeros([ROWS, LANES], tl.float32)
    for step in range(0, tl.max(end - start, axis=0), LANES):
        place = start[:, None] + step + tl.arange(0, LANES)[None, :]
        mask = place < end[:, None]
        visit = tl.load(order + place, mask=mask, other=0)
        weight = tl.load(weights + visit, mask=mask, other=0.0)
        total += weight * tl.load(grad + (visit % n) * stride_n + feature * stride_c, mask=mask, other=0.0)
    tl.store(out + rows.to(tl.int64) * F + feature, tl.sum(total, axis=1), mask=inside)
