"""Small closed surfaces."""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial import ConvexHull

from neuralfield.signals.mesh import TriangleMesh
from neuralfield.viz.camera import corners


def sphere(n: int = 4000) -> TriangleMesh:
    """The hull of a Fibonacci spiral, radius 0.4 about (0.5, 0.5, 0.5), fronts outward."""
    k = np.arange(n) + 0.5
    angle, z = math.pi * (1 + 5**0.5) * k, 1 - 2 * k / n
    points = np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], axis=1)
    faces = ConvexHull(points).simplices.astype(np.int64)
    a, b, c = (points[faces[:, i]] for i in range(3))
    inward = (np.cross(b - a, c - a) * a).sum(axis=1) < 0
    faces[inward] = faces[inward][:, ::-1]
    return TriangleMesh(0.5 + 0.4 * points, faces)


def box(low: tuple[float, ...] = (0, 0, 0), high: tuple[float, ...] = (1, 1, 1)) -> TriangleMesh:
    points = corners(np.array(low, float), np.array(high, float))
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    return TriangleMesh(points, np.array([[q[0], q[i], q[i + 1]] for q in quads for i in (1, 2)]))


def joined(*meshes: TriangleMesh) -> TriangleMesh:
    start = np.cumsum([0, *(len(m.vertices) for m in meshes)])
    faces = [m.faces + s for m, s in zip(meshes, start, strict=False)]
    return TriangleMesh(np.concatenate([m.vertices for m in meshes]), np.concatenate(faces))


def soup(n: int = 150) -> TriangleMesh:
    rng = np.random.default_rng(3)
    points = rng.random((n, 1, 3)) + rng.normal(scale=0.15, size=(n, 3, 3))
    points[: n // 5, 2] = points[: n // 5, 0] + 1e-3 * rng.normal(size=(n // 5, 3))  # slivers
    return TriangleMesh(points.reshape(-1, 3), np.arange(3 * n).reshape(n, 3))


BALL = sphere()
