r"""Solids that a formula describes, so that every label is exact: :data:`SOLIDS`.

Each is written for $u \in [-\tfrac12, \tfrac12]^3$, where its longest side spans 1, and lies in the unit cube at
$x = \tfrac12 + (1 - 2\,\text{margin})\,u$.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import numpy as np
from jaxtyping import Bool, Float, Float64

from neuralfield import checks
from neuralfield.signals.colour import Option
from neuralfield.signals.isosurface import boundary_mesh
from neuralfield.signals.menger import MengerSponge
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.solid import Points, Solid

_ROOT_STEPS = 60
_ON_SURFACE = 1e-10
_BLOCK = 1 << 16  # points that stay in the cache while a formula is worked out


class ImplicitSolid(Solid):
    r"""$\{u : f(u) < 0\}$ for a function f that is about the distance near its zeros.

    **Arguments**

    - `margin`: between the solid's longest side and the sides of the cube, 0 to 0.45.
    """

    version = 1
    half_extent: tuple[float, float, float] = (0.5, 0.5, 0.5)
    unit_area: float
    exact_distance = False
    surface_resolution = 128  # of the mesh that points on the surface start from

    def __init__(self, margin: Option = 0.05) -> None:
        self.margin = checks.number("signal.margin", margin, 0, 0.45)
        self.side = 1 - 2 * self.margin
        self.name = type(self).__name__.lower()
        self.identity = f"{self.name} {self.version} {self.margin!r}"
        self._meshes: dict[int, TriangleMesh] = {}

    @abstractmethod
    def implicit(self, u: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
        """f(u), negative inside."""

    @property
    def box(self) -> tuple[Float64[np.ndarray, " 3"], Float64[np.ndarray, " 3"]]:
        """Exact."""
        half = self.side * np.array(self.half_extent)
        return 0.5 - half, 0.5 + half

    @property
    def area(self) -> float:
        """Of the surface, for a cube of side 1."""
        return self.unit_area * self.side**2

    def inside(self, points: Points) -> Bool[np.ndarray, " n"]:
        """f < 0: exact."""
        return self._of(points) < 0

    def signed_distance(self, points: Points) -> Float64[np.ndarray, " n"]:
        """Distance to the surface, negative inside, the cube's side being 1; the class says how exact."""
        return self.side * self._of(points) if self.exact_distance else super().signed_distance(points)

    def mesh(self, resolution: int | None = None) -> TriangleMesh:
        """By marching cubes; see :func:`~neuralfield.signals.isosurface.boundary_mesh`."""
        resolution = self.resolution if resolution is None else resolution
        if resolution not in self._meshes:
            self._meshes[resolution] = boundary_mesh(self.inside, *self.box, resolution, self.name)
        return self._meshes[resolution]

    def surface(self, n: int, rng: np.random.Generator) -> Float64[np.ndarray, "n 3"]:
        r"""Points with $|f| < 10^{-10}$, uniform by area (stratified).

        Points of a mesh of 128 cells are moved along its normals by at most two cells to the zero of f, which changes their
        density by the square of cell over radius of curvature, and within a cell of sharp edges.
        """
        mesh, found = self.mesh(self.surface_resolution), np.empty((0, 3))
        reach = 2 / self.surface_resolution
        for _ in range(20):
            start, face = mesh.sample(n - len(found), rng)
            u = self._unit(start)
            shift, reached = self._roots(u, mesh.normals[face], reach)
            found = np.concatenate([found, 0.5 + self.side * (u + shift[:, None] * mesh.normals[face])[reached]])
            if len(found) == n:
                break
        return found

    def _unit(self, points: Points) -> Float64[np.ndarray, "n 3"]:
        return (np.asarray(points, np.float64) - 0.5) / self.side

    def _of(self, points: Points) -> Float64[np.ndarray, " n"]:
        result = np.empty(len(points))
        for first in range(0, len(points), _BLOCK):
            result[first : first + _BLOCK] = self.implicit(self._unit(points[first : first + _BLOCK]))
        return result

    def _roots(
        self, u: Float64[np.ndarray, "n 3"], normal: Float64[np.ndarray, "n 3"], reach: float
    ) -> tuple[Float64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        """Where f(u + s normal) = 0 for -reach <= s <= reach, and whether that was found; by regula falsi.

        The value at an end that stays twice is halved (the "Illinois" rule), which makes the convergence superlinear.
        """
        near, far = np.full(len(u), -reach), np.full(len(u), reach)
        f_near, f_far = self.implicit(u - reach * normal), self.implicit(u + reach * normal)
        root, reached = np.zeros(len(u)), np.zeros(len(u), bool)
        active = np.flatnonzero(f_near * f_far < 0)
        for _ in range(_ROOT_STEPS):
            if not len(active):
                break
            a, b, fa, fb = near[active], far[active], f_near[active], f_far[active]
            s = b - fb * (b - a) / (fb - fa)
            f = self.implicit(u[active] + s[:, None] * normal[active])
            root[active], reached[active] = s, np.abs(f) < _ON_SURFACE
            crossed = f * fb < 0
            near[active], f_near[active] = np.where(crossed, b, a), np.where(crossed, fb, fa / 2)
            far[active], f_far[active] = s, f
            active = active[~reached[active]]
        return root, reached


class Sphere(ImplicitSolid):
    r"""$|u| < \tfrac12$. The distance is exact: $|u| - \tfrac12$."""

    unit_area = math.pi
    exact_distance = True

    def implicit(self, u: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
        return _length(u) - 0.5

    def surface(self, n: int, rng: np.random.Generator) -> Float64[np.ndarray, "n 3"]:
        """Points on the sphere, uniform by area: directions of normal vectors."""
        direction = rng.standard_normal((n, 3))
        return 0.5 + self.side / 2 * direction / _length(direction)[:, None]


class Torus(ImplicitSolid):
    r"""A tube of radius r = 0.15 around a circle of radius R = 0.35 about z: $(\sqrt{x^2+y^2} - R)^2 + z^2 < r^2$.

    The distance is exact. Volume $2 \pi^2 R r^2$, area $4 \pi^2 R r$.
    """

    R, r = 0.35, 0.15
    half_extent = (0.5, 0.5, 0.15)
    unit_area = 4 * math.pi**2 * R * r
    exact_distance = True

    def implicit(self, u: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
        return np.hypot(np.hypot(u[:, 0], u[:, 1]) - self.R, u[:, 2]) - self.r

    def surface(self, n: int, rng: np.random.Generator) -> Float64[np.ndarray, "n 3"]:
        r"""Points on the torus, uniform by area.

        The angle around the tube has the density $\propto R + r \cos v$, drawn by rejection.
        """
        v = np.empty(0)
        while len(v) < n:
            angle = rng.uniform(0, 2 * math.pi, 2 * (n - len(v)) + 8)
            kept = rng.random(len(angle)) * (self.R + self.r) < self.R + self.r * np.cos(angle)
            v = np.concatenate([v, angle[kept]])[:n]
        w, across = rng.uniform(0, 2 * math.pi, n), self.R + self.r * np.cos(v)
        return 0.5 + self.side * np.stack([across * np.cos(w), across * np.sin(w), self.r * np.sin(v)], axis=1)


class Gyroid(ImplicitSolid):
    r"""A wall along Schoen's gyroid, two periods wide, cut out by a ball: $|g| < 0.5$ and $|u| < \tfrac12$.

    $$g = \sin X \cos Y + \sin Y \cos Z + \sin Z \cos X, \qquad (X, Y, Z) = 4 \pi u$$

    The wall is about 0.05 thick and reaches the six poles of the ball, so that the box is that of the ball. There is no
    formula for the distance: it is taken to a mesh of 256 cells, and wrong by about 1e-5 beside smooth parts, and up to
    a cell, 4e-3, beside the sharp edges at the ball, for a cube of side 1.
    """

    wall, periods = 0.5, 2
    unit_area = 7.068  # by extrapolation of its mesh's
    # The gradient of g is about 1.5 in X; f then is about the distance.
    _slope = 1.5 * 2 * math.pi * periods

    def implicit(self, u: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
        angle = 2 * math.pi * self.periods * u
        sine, cosine = np.sin(angle), np.cos(angle)
        g = (sine * np.roll(cosine, -1, axis=1)).sum(axis=1)
        return np.maximum((np.abs(g) - self.wall) / self._slope, _length(u) - 0.5)


class CSG(ImplicitSolid):
    r"""The classic of constructive solid geometry: a rounded box and a ball in common, less three round bars.

    The box has half-sides 0.5 and edges rounded with radius 0.1, the ball has radius 0.68, the bars along x, y and z have
    radius 0.25: $f = \max(f_\text{box},\ |u| - 0.68,\ 0.25 - \sqrt{y^2+z^2},\ 0.25 - \sqrt{z^2+x^2},\ 0.25 -
    \sqrt{x^2+y^2})$. Inside, the distance is exact, because each term is the exact distance to the outside of one
    part. Outside, it is taken to a mesh of 256 cells, and wrong by about 1e-5, and up to
    a cell, 4e-3, beside the sharp edges.
    """

    rounding, ball, bar = 0.1, 0.68, 0.25
    unit_area = 6.552  # by extrapolation of its mesh's

    def implicit(self, u: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
        beyond = np.abs(u) - (0.5 - self.rounding)
        box = _length(np.maximum(beyond, 0)) + np.minimum(beyond.max(axis=1), 0) - self.rounding
        squares = u**2
        nearest_bar = np.sqrt((squares.sum(axis=1)[:, None] - squares).min(axis=1))
        return np.maximum(np.maximum(box, _length(u) - self.ball), self.bar - nearest_bar)

    def signed_distance(self, points: Points) -> Float64[np.ndarray, " n"]:
        """Distance to the surface, negative inside, the cube's side being 1; the class says how exact."""
        distance = self.side * self._of(points)
        outside = distance >= 0
        distance[outside] = self._distance(np.asarray(points[outside], np.float64))
        return distance


def _length(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    return np.sqrt(np.einsum("ij,ij->i", vectors, vectors))


SOLIDS: dict[str, type[ImplicitSolid] | type[MengerSponge]] = {
    "gyroid": Gyroid,
    "torus": Torus,
    "sphere": Sphere,
    "menger": MengerSponge,
    "csg": CSG,
}
"""Solids by the name that a configuration gives; each takes the margin alone."""
