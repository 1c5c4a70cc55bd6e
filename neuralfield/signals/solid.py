"""What can be asked of a solid in the unit cube: :class:`Solid`, from a mesh or from any function.

Those with a formula are in :mod:`~neuralfield.signals.analytic`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

from neuralfield.errors import SignalError
from neuralfield.signals.inside import Inside
from neuralfield.signals.isosurface import boundary_mesh
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.placement import Placement

Points = Float[np.ndarray, "n 3"]

RESOLUTION = 256
"""Cells along the longest side in meshes of solids that are given by something else than triangles."""

_BLOCK = 1 << 17


class Solid(ABC):
    """A closed set of points of the cube, with an inside and a surface. All points are in cube coordinates, ``[n, 3]``.

    - `name`: what to call it.
    - `identity`: equal identities have equal insides, surfaces and distances; None where that cannot be said.
    - `resolution`: cells along the longest side in meshes that only approximate the surface.
    """

    name: str
    identity: str | None = None
    resolution: int = RESOLUTION

    @property
    @abstractmethod
    def box(self) -> tuple[Float64[np.ndarray, " 3"], Float64[np.ndarray, " 3"]]:
        """Lowest and highest x, y, z of the solid."""

    @abstractmethod
    def inside(self, points: Points) -> Bool[np.ndarray, " n"]:
        """Whether each point lies inside."""

    @abstractmethod
    def mesh(self, resolution: int | None = None) -> TriangleMesh:
        """Its surface as triangles; where they only approximate it, of `resolution`, if given, instead of its own."""

    @property
    def area(self) -> float:
        """Of the surface, for a cube of side 1."""
        return float(self.mesh().areas.sum())

    def signed_distance(self, points: Points) -> Float64[np.ndarray, " n"]:
        """Distance to the surface, negative inside, the cube's side being 1: to the nearest triangle of :meth:`mesh`."""
        distance = self._distance(np.asarray(points, np.float64))
        return np.where(self.inside(points), -distance, distance)

    def surface(self, n: int, rng: np.random.Generator) -> Float64[np.ndarray, "n 3"]:
        """Points on the surface, uniform by area (stratified), in the order of the triangles of :meth:`mesh`."""
        return self.mesh().sample(n, rng)[0]

    def _distance(self, points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
        """To the nearest triangle."""
        mesh, result = self.mesh(), np.empty(len(points))
        if not hasattr(self, "_tree"):
            import igl

            self._tree = igl.AABB()
            self._tree.init(mesh.vertices, mesh.faces)
        for first in range(0, len(points), _BLOCK):
            block = np.ascontiguousarray(points[first : first + _BLOCK])
            result[first : first + _BLOCK] = np.sqrt(self._tree.squared_distance(mesh.vertices, mesh.faces, block)[0])
        return result


class MeshSolid(Solid):
    """The inside of a mesh in cube coordinates, by its winding number; see :mod:`~neuralfield.signals.inside`.

    **Arguments**

    - `mesh`: its fronts must look outward (:func:`~neuralfield.signals.mesh_repair.repaired`).
    - `name`: what to call it.
    """

    def __init__(self, mesh: TriangleMesh, name: str = "mesh") -> None:
        self.name, self._mesh = name, mesh
        self.identity = f"mesh {mesh.content_hash()}"
        self._inside = Inside(mesh)

    @property
    def box(self) -> tuple[Float64[np.ndarray, " 3"], Float64[np.ndarray, " 3"]]:
        """Of the vertices that triangles use."""
        return self._mesh.box

    def inside(self, points: Points) -> Bool[np.ndarray, " n"]:
        """Whether the winding number exceeds 1/2."""
        return self._inside(np.asarray(points, np.float64))

    def signed_distance(self, points: Points) -> Float64[np.ndarray, " n"]:
        """Distance to the nearest triangle, negative inside."""
        return self._inside.signed_distance(np.asarray(points, np.float64))

    def mesh(self, resolution: int | None = None) -> TriangleMesh:
        """The mesh itself."""
        return self._mesh


class FunctionSolid(Solid):
    r"""The points of a box for which a function says that they are inside.

    **Arguments**

    - `function`: takes float64 points ``[n, 3]`` in the source's own coordinates, at most 2^18 at a time, and gives n
      truth values.
    - `low`, `high`: a box around the solid, in the source's own coordinates; beyond it nothing is inside.
    - `placement`: between those and the cube.
    - `name`: what to call it.
    """

    def __init__(
        self, function: Callable[[np.ndarray], Any], low: Any, high: Any, placement: Placement, name: str = "function"
    ) -> None:
        self.name, self._function, self._placement = name, function, placement
        self._low, self._high = (placement.to_cube(np.asarray(bound, np.float64)) for bound in (low, high))
        self._meshes: dict[int, TriangleMesh] = {}

    @property
    def box(self) -> tuple[Float64[np.ndarray, " 3"], Float64[np.ndarray, " 3"]]:
        """Of the surface: no larger than the box that was given."""
        return self.mesh().box

    def inside(self, points: Points) -> Bool[np.ndarray, " n"]:
        """What the function says, and outside of the box False.

        Raises :class:`~neuralfield.errors.SignalError` if what it gives are not n truth values.
        """
        given = np.asarray(points, np.float64)
        inside = np.asarray(((given >= self._low) & (given <= self._high)).all(axis=1))
        n = int(inside.sum())
        if n:
            said = np.asarray(self._function(self._placement.to_world(given[inside])))
            if said.dtype != bool or said.shape not in ((n,), (n, 1)):
                raise SignalError(
                    f"{self.name} must give one truth value (bool) for each of {n} points [n, 3], and gave "
                    f"{said.dtype} {list(said.shape)}; return an array such as distance(points) < 0"
                )
            inside[np.flatnonzero(inside)] = said.reshape(n)
        return inside

    def mesh(self, resolution: int | None = None) -> TriangleMesh:
        """By marching cubes; see :func:`~neuralfield.signals.isosurface.boundary_mesh`."""
        resolution = self.resolution if resolution is None else resolution
        if resolution not in self._meshes:
            self._meshes[resolution] = boundary_mesh(self.inside, self._low, self._high, resolution, self.name)
        return self._meshes[resolution]
