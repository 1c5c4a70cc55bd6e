r"""Which points lie inside a mesh, also of one with holes: :class:`Inside`.

The generalised winding number of a point $q$ is the solid angle under which it sees the oriented surface, over that of
the whole sphere (Jacobson et al., "Robust Inside-Outside Segmentation Using Generalized Winding Numbers", 2013):

$$w(q) = \frac{1}{4\pi} \sum_f \Omega_f(q)$$

It is 1 inside and 0 outside of a closed surface whose fronts look outward, and passes smoothly from one to the other
through a hole; inside is where it exceeds 1/2. libigl sums it over a tree in which far triangles are replaced by a Taylor
series (Barill et al., "Fast Winding Numbers for Soups and Clouds", 2018), on all cores.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from neuralfield.signals.mesh import TriangleMesh

_BLOCK = 1 << 17
# A cluster of triangles is expanded where it is farther away than this many of its radii; 2 is what the authors advise.
_ACCURACY = 2.0


class Inside:
    """Inside or outside, and how far from the surface, for points in the units of the mesh.

    Trees over the triangles are built once, each when it is first needed (about 1 kB per triangle altogether). Points are
    worked on in blocks of 2^17, so that beyond the results about 30 MB are needed however many there are.

    **Arguments**

    - `mesh`: its fronts must look outward; see :func:`~neuralfield.signals.mesh_repair.repaired`.
    """

    def __init__(self, mesh: TriangleMesh) -> None:
        self.mesh = mesh
        low, high = mesh.box
        self._low, self._high = low, high
        # libigl's tree computes in float32: far from the origin, or in tiny units, it would not tell points apart.
        self._centre, self._scale = (low + high) / 2, float((high - low).max())
        self._vertices = (mesh.vertices - self._centre) / self._scale

    def __call__(
        self, points: Float64[np.ndarray, "n 3"], on_progress: Callable[[float], None] | None = None
    ) -> Bool[np.ndarray, " n"]:
        """Whether each point lies inside; never outside of the mesh's bounding box, whatever holes there are.

        `on_progress` is called with the fraction done, up to 1, after each block.
        """
        result = np.zeros(len(points), bool)
        for block in _blocks(len(points), on_progress):
            result[block] = self._inside(points[block])
        return result

    def winding_number(self, points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
        """The generalised winding number at each point."""
        return self._winding_tree.winding_number(self._normalised(points), _ACCURACY)

    def signed_distance(
        self, points: Float64[np.ndarray, "n 3"], on_progress: Callable[[float], None] | None = None
    ) -> Float64[np.ndarray, " n"]:
        """Distance to the nearest triangle in the units of the mesh, negative inside.

        The distance is exact; only its sign is the winding number's. `on_progress` as above.
        """
        result = np.empty(len(points))
        for block in _blocks(len(points), on_progress):
            # Neighbours one after the other walk the same branches of the tree, which then stay in the cache.
            order = _along_curve(self._normalised(points[block]))
            here = self._normalised(points[block][order])
            squared, _, _ = self._distance_tree.squared_distance(self._vertices, self.mesh.faces, here)
            distance = np.sqrt(squared) * self._scale
            result[block][order] = np.where(self._inside(points[block][order]), -distance, distance)
        return result

    def _normalised(self, points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
        return (points - self._centre) / self._scale

    def _inside(self, points: Float64[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
        inside: Bool[np.ndarray, " n"] = np.all((points >= self._low) & (points <= self._high), axis=1)
        inside[inside] = self.winding_number(points[inside]) > 0.5
        return inside

    @cached_property
    def _winding_tree(self) -> Any:
        import igl

        tree = igl.FastWindingNumberBVH()
        tree.init(self._vertices, self.mesh.faces)
        return tree

    @cached_property
    def _distance_tree(self) -> Any:
        import igl

        tree = igl.AABB()
        tree.init(self._vertices, self.mesh.faces)
        return tree


def _blocks(n: int, on_progress: Callable[[float], None] | None) -> Any:
    for start in range(0, n, _BLOCK):
        yield slice(start, start + _BLOCK)
        if on_progress is not None:
            on_progress(min(1.0, (start + _BLOCK) / n))


def _along_curve(points: Float64[np.ndarray, "n 3"]) -> np.ndarray:
    """The order of the points along Morton's curve through a grid of 512^3 cells around the mesh."""
    cell = np.clip((points + 1) * 256, 0, 511).astype(np.int64)
    key = np.zeros(len(points), np.int64)
    for bit in range(9):
        for axis in range(3):
            key |= ((cell[:, axis] >> bit) & 1) << (3 * bit + axis)
    return np.argsort(key, kind="stable")
