"""Normals at the corners of triangles: smooth where a surface is, flat at its creases."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float, Int64

from neuralfield.checks import number
from neuralfield.signals.mesh import TriangleMesh

_PAIRS = 2**20  # pairs of triangles looked at together: about 100 MB


def corner_normals(
    mesh: TriangleMesh, chosen: Int64[np.ndarray, " n"], crease: float = 50.0
) -> Float[np.ndarray, "n 3 3"]:
    r"""Unit normals at the three corners of chosen triangles.

    The normal at a corner of triangle $i$ is the mean, weighted by area, of the normals of those triangles about the vertex
    that are at most ``crease`` degrees (0 to 180) from that of $i$. Vertices of equal position are one vertex, so that
    seams do not show. Triangles without area have no say and are given the mean of all triangles about the vertex.
    """
    least = math.cos(math.radians(number("crease", crease, 0, 180)))
    joined = mesh.same_position[mesh.faces]
    area, unit, count = mesh.areas / mesh.areas.max(), mesh.normals, len(mesh.vertices)
    weighted = area[:, None] * unit
    total = np.zeros((count, 3))
    for k in range(3):
        for axis in range(3):
            total[:, axis] += np.bincount(joined[:, k], weighted[:, axis], count)
    mean = _normalised(total)
    result = mean[joined[chosen]]

    # Where all triangles about a vertex are within half the angle of its mean, any two of them are within the angle, and
    # the mean is exact. That is nearly everywhere; the others are looked at pair by pair.
    half = math.cos(math.radians(crease) / 2)
    creased = np.zeros(count, bool)
    for k in range(3):
        apart = np.einsum("ij,ij->i", unit, mean[joined[:, k]]) < half
        creased[joined[apart & (area > 0), k]] = True
    face, corner = np.nonzero(creased[joined[chosen]] & (area[chosen] > 0)[:, None])
    vertex = joined[chosen[face], corner]
    about, start, size = _incident(joined, creased)
    done = np.cumsum(size[vertex])
    begin = 0
    while begin < len(face):
        end = max(int(np.searchsorted(done, (done[begin - 1] if begin else 0) + _PAIRS, side="right")), begin + 1)
        many = size[vertex[begin:end]]
        own = np.repeat(np.arange(end - begin), many)
        position = np.arange(len(own)) - np.repeat(np.cumsum(many) - many, many)
        other = about[start[vertex[begin:end]][own] + position]
        cosine = np.einsum("ij,ij->i", unit[chosen[face[begin:end]]][own], unit[other])
        near = cosine >= least - 1e-9
        own, other = own[near], other[near]
        sums = [np.bincount(own, weighted[other, axis], end - begin) for axis in range(3)]
        result[face[begin:end], corner[begin:end]] = _normalised(np.stack(sums, axis=1))
        begin = end
    return result


def _incident(
    joined: Int64[np.ndarray, "f 3"], wanted: Bool[np.ndarray, " v"]
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " v"], Int64[np.ndarray, " v"]]:
    """Triangles about the wanted vertices, one list after the other; where each list starts, and its length."""
    face, corner = np.nonzero(wanted[joined])
    vertex = joined[face, corner]
    size = np.bincount(vertex, minlength=len(wanted))
    return face[np.argsort(vertex, kind="stable")], np.cumsum(size) - size, size


def _normalised(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Unit vectors; zero stays zero."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, where=length > 0, out=np.zeros_like(vectors))
