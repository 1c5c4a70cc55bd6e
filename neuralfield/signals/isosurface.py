"""The boundary of anything that can say which points lie inside, as triangles: :func:`boundary_mesh`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float64, Int64

from neuralfield import checks
from neuralfield.errors import SignalError
from neuralfield.signals.mesh import TriangleMesh

Inside = Callable[[Float64[np.ndarray, "n 3"]], Bool[np.ndarray, " n"]]

_BLOCK = 1 << 18
_BISECTIONS = 24
_MOST_CELLS = 640  # along the longest side: beyond, the lattice alone takes more than a gigabyte
# How far the lattice begins before the box, in cells: no round part of one, so that planes of symmetry and the flat
# sides of a box do not fall on the lattice, where triangles would collapse.
_LEAD = 1.283


def boundary_mesh(
    inside: Inside, low: np.ndarray, high: np.ndarray, resolution: int = 256, name: str = "the solid"
) -> TriangleMesh:
    r"""Marching cubes (Lorensen and Cline 1987) on a lattice, with its vertices moved onto the surface.

    Each vertex lies on an edge of the lattice between a point inside and one outside; bisection places it to within
    $2^{-24}$ of the edge. Where the surface is smooth, with curvature $\kappa$, the triangles stay within
    $\kappa h^2 / 2$ of it for a spacing $h$, because each lies in one cell; sharp edges are cut off
    by less than $h$, and what is thinner than $h$ can be missed. About $5 N^3$ bytes are needed.

    **Arguments**

    - `inside`: whether points, float64 ``[n, 3]``, lie inside; called with at most 2^18 of them.
    - `low`, `high`: a box around the solid, which must not reach beyond it.
    - `resolution`: N, cells along the longest side of the box, 8 to 640.
    - `name`: what to call it in an error.

    Returns:
        A watertight mesh whose fronts look outward, in the units of the box.

    Raises :class:`~neuralfield.errors.SignalError` if no point of the lattice is inside.
    """
    resolution = checks.integer("resolution", resolution, 8, _MOST_CELLS)
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    step = float((high - low).max()) / resolution
    start = low - _LEAD * step
    shape = np.ceil((high - low) / step - 1e-9).astype(np.int64) + 4
    occupied = _on_lattice(inside, start, step, shape)
    if not occupied.any():
        raise SignalError(
            f"no point of a lattice of {resolution} cells along the longest side lies inside {name}: it is empty, "
            "thinner than that, or outside of the box given for it"
        )
    from skimage.measure import marching_cubes

    level = np.where(occupied, np.float32(0.5), np.float32(-0.5))
    # Lewiner's tables put vertices in the midst of some cells, and their triangles can meet four at an edge.
    placed, faces, _, _ = marching_cubes(level, 0.0, gradient_direction="ascent", method="lorensen")
    del level
    position = _on_edges(inside, placed.astype(np.float64), occupied, start, step)
    return TriangleMesh(start + step * position, faces.astype(np.int64))


def _on_lattice(
    inside: Inside, start: Float64[np.ndarray, " 3"], step: float, shape: Int64[np.ndarray, " 3"]
) -> Bool[np.ndarray, "x y z"]:
    """What is inside, a few layers at a time; the outermost points are outside by construction."""
    axes = [start[k] + step * np.arange(shape[k]) for k in range(3)]
    occupied = np.zeros(tuple(shape), bool)
    layers = max(1, _BLOCK // int(shape[1] * shape[2]))
    for first in range(0, int(shape[0]), layers):
        points = np.stack(np.meshgrid(axes[0][first : first + layers], axes[1], axes[2], indexing="ij"), axis=-1)
        occupied[first : first + layers] = inside(points.reshape(-1, 3)).reshape(points.shape[:3])
    for axis in range(3):
        for side in (0, -1):
            np.moveaxis(occupied, axis, 0)[side] = False
    return occupied


def _on_edges(
    inside: Inside,
    placed: Float64[np.ndarray, "v 3"],
    occupied: Bool[np.ndarray, "x y z"],
    start: Float64[np.ndarray, " 3"],
    step: float,
) -> Float64[np.ndarray, "v 3"]:
    """Vertices in units of the lattice, moved from the middles of its edges to where the surface crosses them."""
    position = placed.copy()
    for first in range(0, len(placed), _BLOCK):
        chosen = slice(first, first + _BLOCK)
        below, above = np.floor(placed[chosen]), np.ceil(placed[chosen])
        begins_inside = occupied[tuple(below.astype(np.int64).T)]
        near, far = np.zeros(len(below)), np.ones(len(below))
        for _ in range(_BISECTIONS):
            middle = (near + far) / 2
            there = inside(start + step * (below + middle[:, None] * (above - below))) == begins_inside
            near, far = np.where(there, middle, near), np.where(there, far, middle)
        position[chosen] = below + ((near + far) / 2)[:, None] * (above - below)
    return position
