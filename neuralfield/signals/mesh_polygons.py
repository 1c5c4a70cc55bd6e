"""Polygons with any number of corners to triangles: :func:`triangulated`."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from neuralfield.errors import SignalError


def triangulated(
    vertices: Float64[np.ndarray, "v 3"], counts: Int64[np.ndarray, " p"], corners: Int64[np.ndarray, " c"]
) -> Int64[np.ndarray, "f 3"]:
    """Triangles that cover polygons, with their winding and in their order.

    A convex polygon becomes a fan around its first corner. One that is not is cut ear by ear (Meisters, "Polygons Have
    Ears", 1975) as seen along its mean normal, because a fan would reach outside of it.

    **Arguments**

    - `vertices`: positions.
    - `counts`: corners of each polygon; those with fewer than three (points, lines) have no triangles.
    - `corners`: the vertex numbers of all polygons one after the other; their sum of `counts`.

    Raises :class:`~neuralfield.errors.SignalError` for a vertex number that is out of range.
    """
    wrong = np.flatnonzero((corners < 0) | (corners >= len(vertices)))
    if len(wrong):
        face = int(np.searchsorted(np.cumsum(counts), wrong[0], side="right"))
        raise SignalError(
            f"face {face} names vertex {corners[wrong[0]]} (both counted from 0) and there are {len(vertices)} vertices; "
            "export the mesh again"
        )
    begin = np.cumsum(counts) - counts
    n_triangles = np.maximum(counts - 2, 0)
    # Triangle k of a polygon has its corners 0, k + 1 and k + 2.
    polygon = np.repeat(np.arange(len(counts)), n_triangles)
    first_triangle = np.cumsum(n_triangles) - n_triangles
    k = np.arange(len(polygon)) - first_triangle[polygon]
    apex = begin[polygon]
    faces = np.stack([corners[apex], corners[apex + k + 1], corners[apex + k + 2]], 1)
    for p in _not_convex(vertices, counts, corners, begin, faces, polygon).tolist():
        own = corners[begin[p] : begin[p] + counts[p]]
        faces[first_triangle[p] : first_triangle[p] + n_triangles[p]] = own[_ears(vertices[own])]
    return faces


def _not_convex(
    vertices: Float64[np.ndarray, "v 3"],
    counts: Int64[np.ndarray, " p"],
    corners: Int64[np.ndarray, " c"],
    begin: Int64[np.ndarray, " p"],
    faces: Int64[np.ndarray, "f 3"],
    polygon: Int64[np.ndarray, " f"],
) -> Int64[np.ndarray, " q"]:
    """Polygons of four and more corners that turn the other way at one of them, or of whose fan a triangle is turned."""
    if not (counts > 3).any():
        return np.zeros(0, np.int64)
    a, b, c = (vertices[faces[:, j]] for j in range(3))
    fan = np.cross(b - a, c - a)
    # The sum over any triangulation is twice the vector area, whose direction is Newell's normal.
    normal = np.stack([np.bincount(polygon, fan[:, j], len(counts)) for j in range(3)], 1)
    of = np.repeat(np.arange(len(counts)), counts)
    at = np.arange(len(corners)) - begin[of]
    here = vertices[corners]
    after = vertices[corners[begin[of] + (at + 1) % counts[of]]]
    before = vertices[corners[begin[of] + (at - 1) % counts[of]]]
    turns = (np.cross(here - before, after - here) * normal[of]).sum(1)
    slack = -1e-9 * (normal**2).sum(1)
    wrong = np.zeros(len(counts), bool)
    wrong[of[turns < slack[of]]] = True
    wrong[polygon[(fan * normal[polygon]).sum(1) < slack[polygon]]] = True
    return np.flatnonzero(wrong & (counts > 3))


def _ears(points: Float64[np.ndarray, "n 3"]) -> Int64[np.ndarray, "t 3"]:
    """The triangles (corner numbers) of one simple polygon; a fan of what remains where no ear is left to cut."""
    following = np.roll(points, -1, axis=0)
    normal = np.cross(points - points[0], following - points[0]).sum(0)
    drop = int(np.argmax(np.abs(normal)))  # seen along the axis that is nearest to the normal
    x, y = np.delete(points, drop, axis=1).T
    if (normal[drop] < 0) != (drop == 1):  # without y, what remains (x, z) is mirrored
        x = -x
    left = list(range(len(points)))
    triangles = []
    k, failed = 0, 0
    while len(left) > 3 and failed < len(left):
        a, b, c = left[k - 1], left[k], left[(k + 1) % len(left)]
        rest = np.array([p for p in left if p not in (a, b, c)])
        area = _turn(x, y, a, b, c)
        inside = (_turn(x, y, a, b, rest) >= 0) & (_turn(x, y, b, c, rest) >= 0) & (_turn(x, y, c, a, rest) >= 0)
        # A corner at the position of another one (the bridge to a hole) does not block.
        distinct = np.ones(len(rest), bool)
        for other in (a, b, c):
            distinct &= (x[rest] != x[other]) | (y[rest] != y[other])
        if area > 0 and not (inside & distinct).any():
            triangles.append((a, b, c))
            del left[k]
            k, failed = k % len(left), 0
        else:
            k, failed = (k + 1) % len(left), failed + 1
    triangles += [(left[0], left[i], left[i + 1]) for i in range(1, len(left) - 1)]
    return np.array(triangles, np.int64)


def _turn(x: np.ndarray, y: np.ndarray, a: int, b: int, c: Any) -> Any:
    """Twice the area of the triangle a, b, c in the plane, positive when it is counter-clockwise."""
    return (x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a])
