r"""Which triangle each place of a picture sees: scan conversion with a depth buffer, in NumPy.

A ray tracer asks ray by ray, which Python cannot do a million times; a rasteriser asks triangle by triangle, all of them
at once. Triangles are cut into rows and rows into spans of samples, in blocks of bounded size, so that the work is
proportional to the samples covered and not to the boxes around slivers.

An edge crosses a row at $x_a + (y - y_a)(x_b - x_a)/(y_b - y_a)$, $a$ being its upper end, so both triangles of an edge
compute the same number, and spans are half open: a closed surface has neither gaps nor samples that are hit twice.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int64

from neuralfield.viz.camera import Camera

_ROWS, _SAMPLES = 2**19, 2**20  # of a block: about 150 MB of arrays
_NEAR = 1e-6  # of the largest depth: triangles that reach nearer are left out
_LAST = np.uint64(0xFFFFFFFF)


def visible_faces(
    vertices: Float[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"], camera: Camera, width: int, height: int
) -> Int64[np.ndarray, "height width"]:
    """The number of the nearest triangle at each pixel's centre, -1 where there is none.

    Both sides of a triangle are seen. Of triangles at one depth (to 1e-9 of the range) the first is seen. Triangles with
    a vertex that is not finite, or not in front of the camera, are left out.
    """
    placed = camera.project(vertices, width, height)
    with np.errstate(invalid="ignore"):
        near = _NEAR * np.nanmax(np.where(np.isfinite(placed[:, 2]), placed[:, 2], 0), initial=0)
        usable = np.isfinite(placed).all(axis=1) & (placed[:, 2] > near)
    kept = np.flatnonzero(usable[faces].all(axis=1))
    buffer = np.zeros(height * width, np.uint64)
    if len(kept):
        # 1 / depth, unlike depth, is linear across the picture. Scaled to 32 bits it shares a word with the number of the
        # triangle, so that one maximum finds both.
        closeness = np.divide(1.0, placed[:, 2], where=usable, out=np.zeros(len(placed)))
        used = closeness[faces[kept]]
        low, extent = used.min(), np.ptp(used)
        placed[:, 2] = (closeness - low) * ((2.0**32 - 1) / extent if extent > 0 else 0.0)
        for block in _blocks(np.full(len(kept), 1), _ROWS):
            _draw(placed[faces[kept[block]]], kept[block], buffer, width, height)
    found = np.where(buffer > 0, (_LAST - (buffer & _LAST)).astype(np.int64), -1)
    return found.reshape(height, width)


def _draw(
    triangles: Float[np.ndarray, "n 3 3"], numbers: Int64[np.ndarray, " n"], buffer: np.ndarray, width: int, height: int
) -> None:
    """Draw triangles (column, row, closeness) into the buffer."""
    order = np.argsort(triangles[:, :, 1], axis=1, kind="stable")
    (x0, y0, w0), (x1, y1, w1), (x2, y2, w2) = np.take_along_axis(triangles, order[:, :, None], axis=1).transpose(
        1, 2, 0
    )
    first, rows = _centres(y0, y2, height)
    rows[np.minimum(np.minimum(x0, x1), x2) >= width] = 0
    rows[np.maximum(np.maximum(x0, x1), x2) <= 0] = 0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        long, upper, lower = (x2 - x0) / (y2 - y0), (x1 - x0) / (y1 - y0), (x2 - x1) / (y2 - y1)
        # The plane through the three values of closeness; a triangle without area has none, and covers nothing.
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        across = ((w1 - w0) * (y2 - y0) - (w2 - w0) * (y1 - y0)) / area
        down = ((w2 - w0) * (x1 - x0) - (w1 - w0) * (x2 - x0)) / area
    least, most = np.minimum(np.minimum(w0, w1), w2), np.maximum(np.maximum(w0, w1), w2)
    for block in _blocks(rows, _ROWS):
        t, step = _expand(rows[block])
        t += block.start
        row = first[t] + step
        y = row + 0.5
        one = x0[t] + (y - y0[t]) * long[t]
        above = y < y1[t]
        with np.errstate(invalid="ignore"):  # of the edge that is not chosen
            other = np.where(above, x0[t] + (y - y0[t]) * upper[t], x1[t] + (y - y1[t]) * lower[t])
        start, length = _centres(np.minimum(one, other), np.maximum(one, other), width)
        begun = w0[t] + (y - y0[t]) * down[t] - x0[t] * across[t]
        for part in _blocks(length, _SAMPLES):
            span, offset = _expand(length[part])
            span += part.start
            column, owner = start[span] + offset, t[span]
            value = begun[span] + (column + 0.5) * across[owner]
            value = np.clip(np.nan_to_num(value), least[owner], most[owner])  # a sliver's plane is steep: stay on it
            key = (value.astype(np.uint64) << np.uint64(32)) | (_LAST - numbers[owner].astype(np.uint64))
            np.maximum.at(buffer, row[span] * width + column, key)


def _centres(low: np.ndarray, high: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The first of the pixels whose centres lie in ``[low, high)``, and how many there are."""
    start = np.clip(np.ceil(low - 0.5), 0, size).astype(np.int64)
    return start, np.maximum(np.clip(np.ceil(high - 0.5), 0, size).astype(np.int64) - start, 0)


def _expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For counts 2, 0, 3: the owners 0, 0, 2, 2, 2 and the positions 0, 1, 0, 1, 2."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def _blocks(counts: np.ndarray, most: int) -> Iterator[slice]:
    """Consecutive slices whose counts add up to about ``most``, never to more than that and one element's."""
    total = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = total[start - 1] if start else 0
        end = max(int(np.searchsorted(total, done + most, side="right")), start + 1)
        yield slice(start, end)
        start = end
