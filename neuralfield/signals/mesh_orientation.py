"""Which patches of a surface are inside out: :func:`inside_out`.

A *shell* is a patch that is closed or nearly so; the sign of the volume that it encloses says where its fronts look, and
shells inside of shells (cavities) are told apart. Any other patch is a *sheet*, for which rays decide.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

# |sum of area vectors| / area: 0 for a closed surface, 0.5 for a hemisphere, 1 for a flat sheet.
_NEARLY_CLOSED = 0.2
_LEAST_VOLUME = 1e-9  # of area^1.5; rounding in the volume of something flat stays below
_RAYS, _ROUNDS, _RAYS_IN_ALL = 16, 12, 1 << 22
_BLOCK = 1 << 14  # sheets at a time


def inside_out(
    corners: Float64[np.ndarray, "f 3 3"], patch: Int64[np.ndarray, " f"], n_patches: int
) -> Bool[np.ndarray, " p"]:
    """Which of the patches have to be turned over so that fronts look out of the solid.

    **Arguments**

    - `corners`: vertices of the triangles, each patch with a winding that is consistent within it.
    - `patch`: number of each triangle's patch, below `n_patches`.

    Shells are gone through from outside to inside. One that has nothing around it and a negative volume is turned over
    together with all that lies in it, because a file is inside out as a whole more often than in parts; so the inner wall
    of a hollow body, whose fronts look into the cavity, stays as it is. Sheets are turned over only where rays leave the
    scene clearly more often from the back than from the front (after Takayama et al., "A Simple Method for Correcting
    Facet Orientations in Polygon Meshes Based on Ray Casting", 2014).
    """
    low, high = corners.min((0, 1)), corners.max((0, 1))
    corners = (corners - (low + high) / 2) / max(float((high - low).max()), np.finfo(np.float64).tiny)
    a, b, c = np.moveaxis(corners, 1, 0)
    vectors = np.cross(b - a, c - a) / 2
    areas = np.sqrt((vectors**2).sum(1))
    area = np.bincount(patch, areas, n_patches)
    vector = _sums(patch, vectors, n_patches)
    middle = _sums(patch, areas[:, None] * corners.mean(1), n_patches) / np.maximum(area, 1e-300)[:, None]
    # About the patch's own middle, so that the lids that a few holes lack would add little.
    volume = (np.bincount(patch, (a * vectors).sum(1), n_patches) - (middle * vector).sum(1)) / 3
    closed = np.sqrt((vector**2).sum(1)) <= _NEARLY_CLOSED * area
    shell = closed & (np.abs(volume) > _LEAST_VOLUME * area**1.5)
    turn = np.zeros(n_patches, bool)
    if (volume[shell] < 0).any():
        turn |= _inverted_shells(corners, patch, np.flatnonzero(shell), volume)
    sheets = np.flatnonzero(~closed & (area > 0))
    if len(sheets):
        turn[sheets] = _inverted_sheets(corners, np.where(turn[patch], -1, 1), vectors, patch, sheets)
    return turn


def _sums(patch: Int64[np.ndarray, " f"], values: Float64[np.ndarray, "f 3"], n: int) -> Float64[np.ndarray, "p 3"]:
    return np.stack([np.bincount(patch, values[:, axis], n) for axis in range(3)], 1)


def _inverted_shells(
    corners: Float64[np.ndarray, "f 3 3"],
    patch: Int64[np.ndarray, " f"],
    shells: Int64[np.ndarray, " s"],
    volume: Float64[np.ndarray, " p"],
) -> Bool[np.ndarray, " p"]:
    order = np.argsort(patch, kind="stable")
    begin = np.searchsorted(patch[order], np.arange(len(volume) + 1))
    members = [order[begin[s] : begin[s + 1]] for s in shells]
    lows = np.stack([corners[m].min((0, 1)) for m in members])
    highs = np.stack([corners[m].max((0, 1)) for m in members])
    outer_first = np.argsort(-np.prod(highs - lows, axis=1), kind="stable")
    around: list[list[int]] = [[] for _ in shells]
    within: list[list[int]] = [[] for _ in shells]
    for rank, i in enumerate(outer_first):
        later = outer_first[rank + 1 :]
        fits = later[((lows[later] >= lows[i]) & (highs[later] <= highs[i])).all(1)]
        if len(fits):
            # The middles of five triangles, since one may happen to touch the shell around it.
            probes = [members[j][np.linspace(0, len(members[j]) - 1, 5).astype(np.int64)] for j in fits]
            winding = _winding(corners[members[i]], corners[np.concatenate(probes)].mean(1)).reshape(len(fits), 5)
            for j in fits[np.abs(np.median(winding, axis=1)) > 0.5]:
                around[j].append(int(i))
                within[i].append(int(j))
    sign = np.sign(volume[shells])
    for j in outer_first:
        if sign[j] < 0 and sign[around[j]].sum() == 0:
            sign[[j, *within[j]]] *= -1
    turn = np.zeros(len(volume), bool)
    turn[shells] = sign != np.sign(volume[shells])
    return turn


def _winding(corners: Float64[np.ndarray, "f 3 3"], points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
    import igl

    tree: Any = igl.FastWindingNumberBVH()
    tree.init(corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3))
    return tree.winding_number(points)


def _inverted_sheets(
    corners: Float64[np.ndarray, "f 3 3"],
    side: Int64[np.ndarray, " f"],
    vectors: Float64[np.ndarray, "f 3"],
    patch: Int64[np.ndarray, " f"],
    sheets: Int64[np.ndarray, " s"],
) -> Bool[np.ndarray, " s"]:
    """Rays in rounds, until the two sides of a sheet differ by three standard deviations or the rays are used up."""
    rays = _Rays(corners, vectors * side[:, None], patch)
    escaped = np.zeros((2, len(sheets)), np.int64)
    open_, cast = np.arange(len(sheets)), 0
    for _ in range(_ROUNDS):
        for start in range(0, len(open_), _BLOCK):
            block = open_[start : start + _BLOCK]
            escaped[:, block] += rays.escaping(sheets[block])
        cast += 2 * _RAYS * len(open_)
        front, back = escaped[:, open_]
        open_ = open_[np.abs(front - back) <= 3 * np.sqrt(front + back)]
        if not len(open_) or cast > _RAYS_IN_ALL:
            break
    front, back = escaped
    return back - front > 3 * np.sqrt(front + back)


class _Rays:
    """Rays from either side of patches, spread over their area."""

    def __init__(
        self,
        corners: Float64[np.ndarray, "f 3 3"],
        vectors: Float64[np.ndarray, "f 3"],
        patch: Int64[np.ndarray, " f"],
    ) -> None:
        import igl

        areas = np.sqrt((vectors**2).sum(1))
        solid = np.flatnonzero(areas > 0)
        order = solid[np.argsort(patch[solid], kind="stable")]
        self._corners, self._normals = corners[order], vectors[order] / areas[order, None]
        self._patch, self._reached = patch[order], np.concatenate([[0.0], np.cumsum(areas[order])])
        self._vertices = self._corners.reshape(-1, 3)
        self._faces = np.arange(len(self._vertices)).reshape(-1, 3)
        self._tree: Any = igl.AABB()
        self._tree.init(self._vertices, self._faces)
        self._rng = np.random.default_rng(0)

    def escaping(self, sheets: Int64[np.ndarray, " s"]) -> Int64[np.ndarray, "2 s"]:
        """Of the next rays from the front and from the back of each patch, how many hit nothing."""
        begin, end = (np.searchsorted(self._patch, sheets, side=s)[:, None] for s in ("left", "right"))
        low, high = self._reached[begin], self._reached[end]
        wanted = low + (high - low) * (np.arange(_RAYS) + self._rng.random((len(sheets), _RAYS))) / _RAYS
        face = np.clip(np.searchsorted(self._reached, wanted, side="right") - 1, begin, end - 1).ravel()
        weights = self._rng.dirichlet((1, 1, 1), len(face))
        origin = np.einsum("nk,nki->ni", weights, self._corners[face])
        # A point of the unit sphere around the normal's tip: directions as the cosine, as a dull surface gives off light.
        spread = self._rng.standard_normal((len(face), 3))
        spread *= 0.999 / np.sqrt((spread**2).sum(1, keepdims=True))
        counts = []
        for away in (self._normals[face], -self._normals[face]):
            hit, _, _ = self._tree.intersect_ray_first(self._vertices, self._faces, origin + 1e-6 * away, away + spread)
            counts.append((hit < 0).reshape(-1, _RAYS).sum(1))
        return np.stack(counts)
