"""Which triangles meet along which edges: :class:`Topology`, from the vertex numbers alone."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int64


class Topology:
    """The edges of triangles that each name three different vertices.

    **Attributes**

    - `edge`: number of the edge from each triangle's vertex k to k + 1, ``[f, 3]``.
    - `forward`: whether the triangle runs along it from the lower to the higher vertex number, ``[f, 3]``.
    - `degree`: how many triangles an edge has, ``[e]``: 1 at the rim of a hole, 2 inside of a surface, more where
      surfaces meet.
    """

    def __init__(self, faces: Int64[np.ndarray, "f 3"]) -> None:
        self.n_faces = len(faces)
        start, end = faces, np.roll(faces, -1, axis=1)
        self.forward: Bool[np.ndarray, "f 3"] = start < end
        key = np.minimum(start, end) * (int(faces.max(initial=0)) + 1) + np.maximum(start, end)
        _, edge, self.degree = np.unique(key, return_inverse=True, return_counts=True)
        self.edge: Int64[np.ndarray, "f 3"] = edge.reshape(key.shape)

    @property
    def open_edges(self) -> int:
        """How many edges have a single triangle."""
        return int((self.degree == 1).sum())

    @cached_property
    def _sides(self) -> tuple[Int64[np.ndarray, " s"], Int64[np.ndarray, " e"]]:
        """Sides (3 f + k) in the order of their edges, and where each edge begins in that order."""
        return np.argsort(self.edge.ravel(), kind="stable"), np.cumsum(self.degree) - self.degree

    @cached_property
    def bodies(self) -> tuple[int, Int64[np.ndarray, " f"]]:
        """Triangles connected through edges of any degree: how many groups, and which one each belongs to."""
        order, begin = self._sides
        follows = np.ones(len(order), bool)
        follows[begin] = False
        second = np.flatnonzero(follows)
        return _components(self.n_faces, order[second - 1] // 3, order[second] // 3)

    @cached_property
    def pairs(self) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"], Bool[np.ndarray, " p"]]:
        """The two triangles of every edge of degree two, and whether they agree on which side is the front."""
        order, begin = self._sides
        at = begin[self.degree == 2]
        one, other = order[at], order[at + 1]
        forward = self.forward.ravel()
        return one // 3, other // 3, forward[one] != forward[other]

    def patches(self) -> tuple[int, Int64[np.ndarray, " f"], Bool[np.ndarray, " f"]]:
        """Triangles connected through edges of degree two, and which of them to turn over to make each patch agree.

        The graph of (triangle, as it is) and (triangle, turned over) is joined along every edge of degree two so that
        neighbours agree. An orientable patch then falls into two mirrored components, of which either gives a
        consistent winding; the one that keeps the patch's first triangle is taken. On a one-sided patch (a Möbius
        strip) both are the same component: it is left as it is.

        Returns:
            number of patches, patch of each triangle, whether to turn it over.
        """
        one, other, agree = self.pairs
        n = self.n_faces
        count, patch = _components(n, one, other)
        partner = np.where(agree, other, other + n)
        mirrored = np.where(agree, other + n, other)
        _, group = _components(2 * n, np.concatenate([one, one + n]), np.concatenate([partner, mirrored]))
        first = np.empty(count, np.int64)
        first[patch[::-1]] = np.arange(n)[::-1]
        return count, patch, group[:n] != group[first[patch]]


def _components(n: int, one: Int64[np.ndarray, " p"], other: Int64[np.ndarray, " p"]) -> tuple[int, np.ndarray]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(n, n))
    count, label = connected_components(graph, directed=False)
    return int(count), label.astype(np.int64)
