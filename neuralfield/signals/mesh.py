"""Triangles in space: :class:`TriangleMesh`, with what geometry alone says about them.

Files are read in :mod:`~neuralfield.signals.mesh_files`, what is broken is mended in
:mod:`~neuralfield.signals.mesh_repair`, and which points lie inside is decided in :mod:`~neuralfield.signals.inside`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64

from neuralfield import checks
from neuralfield.errors import SignalError
from neuralfield.signals.placement import Placement

# The square of an area is a fourth power of a length and has to stay a finite float64.
_LARGEST = 1e70
_BLOCK = 1 << 18


@dataclass(frozen=True, eq=False)
class TriangleMesh:
    """A surface made of triangles, in whatever units and axes its vertices are given in.

    Nothing is asked of it but finite vertices and one triangle with an area: it may have holes, several bodies and
    vertices that no triangle uses. The front of a triangle is where its vertices are seen counter-clockwise.

    **Arguments**

    - `vertices`: positions, ``[v, 3]``, any floats; kept as float64.
    - `faces`: three vertex numbers each, ``[f, 3]``, any integers, counted from 0; kept as int64.

    Raises :class:`~neuralfield.errors.SignalError` for arrays of another shape or type, for vertices that are NaN,
    infinite or beyond 1e70, for vertex numbers out of range and where no triangle has a positive area.
    """

    vertices: np.ndarray
    faces: np.ndarray

    def __post_init__(self) -> None:
        vertices, faces = np.asarray(self.vertices), np.asarray(self.faces)
        if vertices.ndim != 2 or vertices.shape[1] != 3 or vertices.dtype.kind != "f":
            raise SignalError(f"the vertices of a mesh are floats [v, 3], got {vertices.dtype} {list(vertices.shape)}")
        if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu":
            raise SignalError(f"the faces of a mesh are integers [f, 3], got {faces.dtype} {list(faces.shape)}")
        if not len(faces):
            raise SignalError(f"the mesh has no triangles, only {len(vertices)} points: there is no surface to fit")
        vertices = np.ascontiguousarray(vertices, np.float64)
        bad = np.flatnonzero(~np.isfinite(vertices).all(1))
        if len(bad):
            raise SignalError(
                f"{len(bad)} of {len(vertices)} vertices are NaN or infinite, the first is vertex {bad[0]} (from 0): "
                f"{vertices[bad[0]].tolist()}; export the mesh again without them"
            )
        largest = float(np.abs(vertices).max(initial=0))
        if largest > _LARGEST:
            raise SignalError(
                f"the coordinates of the mesh reach {largest:.3g}, beyond {_LARGEST:g}: the file is damaged"
            )
        wrong = np.flatnonzero(((faces < 0) | (faces >= len(vertices))).any(1))
        if len(wrong):
            raise SignalError(
                f"{len(wrong)} of {len(faces)} triangles name vertices that do not exist, the first is triangle "
                f"{wrong[0]} (from 0): {faces[wrong[0]].tolist()} of {len(vertices)} vertices; export the mesh again"
            )
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "faces", np.ascontiguousarray(faces, np.int64))
        if not any((self._twice_areas(part) != 0).any() for part in self._blocks()):
            raise SignalError(
                f"none of the {len(faces)} triangles has an area (all points coincide or lie on lines): there is no "
                "surface to fit"
            )

    @property
    def corners(self) -> Float64[np.ndarray, "f 3 3"]:
        """Positions of each triangle's three vertices; made anew each time, because they take more than the mesh."""
        return self.vertices[self.faces]

    @cached_property
    def box(self) -> tuple[Float64[np.ndarray, " 3"], Float64[np.ndarray, " 3"]]:
        """The lowest and the highest x, y, z of the vertices that triangles use."""
        used = self.vertices[np.unique(self.faces)]
        return used.min(0), used.max(0)

    @cached_property
    def areas(self) -> Float64[np.ndarray, " f"]:
        """Area of each triangle, in squared units."""
        return np.concatenate([_length(self._twice_areas(part)) for part in self._blocks()]) / 2

    @cached_property
    def normals(self) -> Float64[np.ndarray, "f 3"]:
        """Unit vectors towards the front of each triangle; zero where there is no area."""
        return np.concatenate([_unit(self._twice_areas(part)) for part in self._blocks()])

    def _twice_areas(self, part: slice) -> Float64[np.ndarray, "f 3"]:
        """Normals of some triangles, as long as twice their area."""
        a, b, c = np.moveaxis(self.vertices[self.faces[part]], 1, 0)
        return np.cross(b - a, c - a)

    def _blocks(self) -> list[slice]:
        """Portions of the triangles: beside a mesh of millions of them nothing of its own size is held."""
        return [slice(first, first + _BLOCK) for first in range(0, len(self.faces), _BLOCK)]

    @cached_property
    def vertex_normals(self) -> Float64[np.ndarray, "v 3"]:
        r"""Unit normals at the vertices, of their triangles' normals weighted by the angle there.

        $n_v \propto \sum_f \alpha_{f,v}\, n_f$ (Thürmer and Wüthrich, "Computing Vertex Normals from Polygonal Facets",
        1998), which does not depend on how a flat part is triangulated. Vertices of equal position share one normal, so
        that seams of a texture do not show; it is zero at a vertex that no triangle with an area uses.
        """
        sums = np.zeros((len(self.vertices), 3))
        faces, corners = self.same_position[self.faces], self.corners
        for k in range(3):
            first, second = (_unit(corners[:, (k + j) % 3] - corners[:, k]) for j in (1, 2))
            # Exact also for tiny and for nearly straight angles, where the arc cosine is not.
            angle = 2 * np.arctan2(_length(first - second), _length(first + second))
            for axis in range(3):
                sums[:, axis] += np.bincount(faces[:, k], angle * self.normals[:, axis], len(sums))
        return _unit(sums)[self.same_position]

    @cached_property
    def same_position(self) -> Int64[np.ndarray, " v"]:
        """For each vertex the first one at exactly its position: itself where there is no other before it."""
        order = np.lexsort(self.vertices.T)  # stable: of equal positions the first vertex comes first
        placed = self.vertices[order]
        starts = np.concatenate([[True], (placed[1:] != placed[:-1]).any(1)])
        first = np.empty(len(order), np.int64)
        first[order] = order[starts][np.cumsum(starts) - 1]
        return first

    @cached_property
    def is_watertight(self) -> bool:
        """Whether every edge belongs to exactly two triangles that run along it in opposite directions.

        Vertices of equal position count as one, and triangles that collapse to an edge or a point then do not count.
        """
        faces = self.same_position[self.faces]
        faces = faces[(faces != np.roll(faces, 1, axis=1)).all(1)]
        start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
        forward = np.sort(start * len(self.vertices) + end)
        backward = np.sort(end * len(self.vertices) + start)
        return bool(len(forward)) and bool((forward[1:] != forward[:-1]).all() and (forward == backward).all())

    @cached_property
    def volume(self) -> float:
        r"""Signed volume $\frac16 \sum_f a_f \cdot (b_f \times c_f)$, about the middle of the box; positive for a closed
        surface whose fronts look outward."""
        low, high = self.box
        middle = (low + high) / 2
        first = [self.vertices[self.faces[part, 0]] - middle for part in self._blocks()]
        return float(
            sum(np.vdot(a, self._twice_areas(part)) for a, part in zip(first, self._blocks(), strict=True)) / 6
        )

    def moved(self, placement: Placement) -> TriangleMesh:
        """The same mesh in cube coordinates."""
        return TriangleMesh(placement.to_cube(self.vertices), self.faces)

    def content_hash(self) -> str:
        """SHA-256 (hex) of the vertices and faces, the same on every machine."""
        digest = hashlib.sha256(f"{len(self.vertices)} {len(self.faces)} ".encode())
        digest.update(self.vertices.astype("<f8", copy=False).tobytes())
        digest.update(self.faces.astype("<i8", copy=False).tobytes())
        return digest.hexdigest()

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Float64[np.ndarray, "n 3"], Int64[np.ndarray, " n"]]:
        r"""Points spread evenly over the surface: uniform by area, one in each $n$-th of it (stratified).

        Stratum $i$ draws the triangle in which the cumulated area reaches $(i + u)\,A / n$, and a uniform point in it,
        $(1 - \sqrt{r})\,a + \sqrt{r}\,(1 - s)\,b + \sqrt{r}\,s\,c$ (Osada et al., "Shape Distributions", 2002).

        Returns:
            points ``[n, 3]`` in the mesh's own units and the number of the triangle of each, in the order of the
            triangles: the first half of the points covers only a part of the surface.
        """
        n = checks.integer("n", n, 0)
        reached = np.cumsum(self.areas)
        wanted = (np.arange(n) + rng.random(n)) * (reached[-1] / max(n, 1))
        last = int(np.flatnonzero(self.areas)[-1])  # rounding can lift the last one to the end
        face = np.minimum(np.searchsorted(reached, wanted, side="right"), last)
        a, b, c = np.moveaxis(self.corners[face], 1, 0)
        root, s = np.sqrt(rng.random((n, 1))), rng.random((n, 1))
        return (1 - root) * a + root * ((1 - s) * b + s * c), face


def _length(vectors: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
    return np.sqrt((vectors**2).sum(1))


def _unit(vectors: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
    """Vectors of length one; zero stays zero. Scaled first, because squares of tiny vectors vanish."""
    scaled = vectors / np.maximum(np.abs(vectors).max(1, keepdims=True, initial=0), np.finfo(np.float64).tiny)
    length = _length(scaled)[:, None]
    return np.divide(scaled, length, out=np.zeros_like(scaled), where=length > 0)
