"""Meshes for the tests, built from formulas."""

import numpy as np
from scipy.spatial import ConvexHull, Delaunay

from neuralfield.signals.mesh import TriangleMesh


def box(low=(0.0, 0.0, 0.0), high=(1.0, 1.0, 1.0)):
    """An axis-aligned box of 12 triangles, fronts outward."""
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]
    return TriangleMesh(np.asarray(low) + corners * (np.asarray(high) - low), np.array(faces))


def sphere(n=2000, radius=0.5, centre=(0.5, 0.5, 0.5)):
    """The convex hull of ``n`` points spread over a sphere (2 n - 4 triangles), fronts outward."""
    k = np.arange(n) + 0.5
    z, turn = 1 - 2 * k / n, np.pi * (1 + 5**0.5) * k
    ring = np.sqrt(1 - z**2)
    points = np.stack([ring * np.cos(turn), ring * np.sin(turn), z], 1)
    faces = ConvexHull(points).simplices.astype(np.int64)
    a, b, c = np.moveaxis(points[faces], 1, 0)
    inward = np.einsum("fi,fi->f", np.cross(b - a, c - a), a) < 0
    faces[inward] = faces[inward][:, [0, 2, 1]]
    return TriangleMesh(np.asarray(centre) + radius * points, faces)


def torus(n=96, m=48, big=0.35, small=0.12):
    """A torus around the z axis through (0.5, 0.5, 0.5), fronts outward."""
    u, v = (a.ravel() for a in np.meshgrid(np.arange(n), np.arange(m), indexing="ij"))
    a, b = 2 * np.pi * u / n, 2 * np.pi * v / m
    ring = big + small * np.cos(b)
    points = 0.5 + np.stack([ring * np.cos(a), ring * np.sin(a), small * np.sin(b)], 1)

    def at(i, j):
        return (i % n) * m + j % m

    p, q, r, s = at(u, v), at(u + 1, v), at(u + 1, v + 1), at(u, v + 1)
    return TriangleMesh(points, np.concatenate([np.stack([p, q, r], 1), np.stack([p, r, s], 1)]))


def sheet(n=12, height=0.5):
    """An open, flat square of triangles at z = ``height``, fronts up."""
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n)))
    faces = Delaunay(np.stack([x, y], 1)).simplices.astype(np.int64)
    points = np.stack([x, y, np.full_like(x, height)], 1)
    a, b, c = np.moveaxis(points[faces], 1, 0)
    down = np.cross(b - a, c - a)[:, 2] < 0
    faces[down] = faces[down][:, [0, 2, 1]]
    return TriangleMesh(points, faces)


def joined(*meshes):
    """Several meshes as one, without merging anything."""
    starts = np.cumsum([0, *(len(m.vertices) for m in meshes)])
    faces = [m.faces + start for m, start in zip(meshes, starts, strict=False)]
    return TriangleMesh(np.concatenate([m.vertices for m in meshes]), np.concatenate(faces))


def inverted(mesh, which=slice(None)):
    """The mesh with the chosen triangles turned over."""
    faces = mesh.faces.copy()
    faces[which] = faces[which][:, [0, 2, 1]]
    return TriangleMesh(mesh.vertices, faces)


def soup(mesh, scale=1.0):
    """Every triangle with three vertices of its own, shrunk about its centre by ``scale``."""
    middle = mesh.corners.mean(1, keepdims=True)
    corners = middle + scale * (mesh.corners - middle) if scale != 1 else mesh.corners
    return TriangleMesh(corners.reshape(-1, 3), np.arange(3 * len(mesh.faces)).reshape(-1, 3))


def in_sphere(points, radius=0.5, centre=0.5):
    return ((points - centre) ** 2).sum(1) < radius**2


def in_torus(points, big=0.35, small=0.12):
    x, y, z = (points - 0.5).T
    return (np.hypot(x, y) - big) ** 2 + z**2 < small**2
