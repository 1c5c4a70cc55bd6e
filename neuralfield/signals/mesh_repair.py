"""What meshes from the wild need before anyone can say what is inside: :func:`repaired`.

Nothing is invented: no hole is closed and no vertex moves. Vertices become one, triangles go or turn over, and what is
left to the winding number is counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.mesh_orientation import inside_out
from neuralfield.signals.mesh_topology import Topology

# Height over longest side below which a triangle is a line: the rounding of coordinates, which float64 keeps to 1e-16.
_FLAT = 1e-12


@dataclass(frozen=True)
class Repair:
    """What was done to a mesh, in numbers.

    **Attributes**

    - `merged_vertices`: vertices that had exactly the position of another one.
    - `degenerate_faces`: triangles without an area, removed.
    - `duplicate_faces`: triangles removed because another one has the same three vertices.
    - `flipped_faces`: triangles turned over.
    - `bodies`: groups of triangles connected through edges.
    - `open_edges`: edges with a single triangle, the rims of holes. Triangles without an area count here: where one
      stitches two sides of different divisions together there is no hole.
    """

    merged_vertices: int = 0
    degenerate_faces: int = 0
    duplicate_faces: int = 0
    flipped_faces: int = 0
    bodies: int = 1
    open_edges: int = 0

    def words(self) -> str:
        """One sentence for a person; empty where there was nothing to do and there is nothing to know."""
        said = [
            _count("merged", self.merged_vertices, "vertex", "vertices"),
            _count("dropped", self.degenerate_faces, "triangle without an area", "triangles without an area"),
            _count("dropped", self.duplicate_faces, "duplicate triangle", "duplicate triangles"),
            _count("flipped", self.flipped_faces, "triangle", "triangles"),
            f"{self.bodies:,} separate bodies" if self.bodies > 1 else "",
            _count("", self.open_edges, "open edge", "open edges") + ": inside is decided by the winding number"
            if self.open_edges
            else "",
        ]
        return "; ".join(part for part in said if part)


def repaired(mesh: TriangleMesh) -> tuple[TriangleMesh, Repair]:
    """The mesh with a consistent winding and without superfluous parts, and what that took.

    In this order: vertices of exactly equal position become one; triangles that collapse are dropped, and so are
    duplicates (see below); in each patch of triangles that are connected through edges of two triangles the winding is
    made consistent, following the larger part of its area; patches that are inside out are turned over
    (:func:`~neuralfield.signals.mesh_orientation.inside_out`); triangles without an area go last, since they may hold
    neighbours together; so do vertices that nothing uses. Triangles that stay keep their order and first vertex.

    Of triangles with the same three vertices one stays, by the majority of their windings. Where there are as many of
    either winding, they cancel if they are the wall between two bodies that touch: each edge that they share with
    other triangles has an even number of those. If not (a file that holds every triangle twice, for both sides), one stays.

    Any mesh is accepted: edges of three and more triangles, one-sided surfaces, soups of loose triangles.

    Raises :class:`~neuralfield.errors.SignalError` when nothing with an area is left.
    """
    used = np.zeros(len(mesh.vertices), bool)
    used[mesh.faces] = True
    merged = int(used.sum() - len(np.unique(mesh.same_position[used])))
    faces = mesh.same_position[mesh.faces]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(1)]
    collapsed = len(mesh.faces) - len(faces)

    distinct = len(faces)
    faces = faces[_kept(faces)]
    duplicates = distinct - len(faces)

    topology = Topology(faces)
    n_patches, patch, turn = topology.patches()
    corners = mesh.vertices[faces]
    areas = _areas(corners)
    turn ^= _share(areas, turn, patch, n_patches)[patch] > 0.5
    if len(faces):
        consistent = np.where(turn[:, None, None], corners[:, [0, 2, 1]], corners)
        turn ^= inside_out(consistent, patch, n_patches)[patch]
    faces = np.where(turn[:, None], faces[:, [0, 2, 1]], faces)

    solid = areas > 0
    numbers, faces_used = np.unique(faces[solid], return_inverse=True)
    result = TriangleMesh(mesh.vertices[numbers], faces_used.reshape(-1, 3))
    return result, Repair(
        merged_vertices=merged,
        degenerate_faces=collapsed + int((~solid).sum()),
        duplicate_faces=duplicates,
        flipped_faces=int((turn & solid).sum()),
        bodies=topology.bodies[0],
        open_edges=topology.open_edges,
    )


def _count(verb: str, n: int, one: str, many: str) -> str:
    return f"{verb} {n:,} {one if n == 1 else many}".strip() if n else ""


def _areas(corners: Float64[np.ndarray, "f 3 3"]) -> Float64[np.ndarray, " f"]:
    """Areas; zero where the height is rounding against the longest side."""
    sides = np.roll(corners, -1, axis=1) - corners
    twice = np.sqrt((np.cross(sides[:, 0], sides[:, 1]) ** 2).sum(1))
    return np.where(twice > _FLAT * (sides**2).sum(2).max(1, initial=0), twice / 2, 0)


def _share(
    areas: Float64[np.ndarray, " f"], turn: Bool[np.ndarray, " f"], patch: Int64[np.ndarray, " f"], n: int
) -> Float64[np.ndarray, " p"]:
    """The part of each patch's area that is to be turned over."""
    whole = np.bincount(patch, areas, n)
    return np.divide(np.bincount(patch, areas * turn, n), whole, out=np.zeros(n), where=whole > 0)


def _kept(faces: Int64[np.ndarray, "f 3"]) -> Int64[np.ndarray, " k"]:
    """Which triangles stay, in their order, when those with the same three vertices become one or cancel."""
    lowest = np.argmin(faces, axis=1)
    turned = np.take_along_axis(
        faces, (lowest[:, None] + np.arange(3)) % 3, axis=1
    )  # lowest number first, same winding
    sign = np.where(turned[:, 1] < turned[:, 2], 1, -1)
    order = np.lexsort(np.sort(turned, axis=1).T)
    placed = np.sort(turned, axis=1)[order]
    starts = np.concatenate([np.ones(min(1, len(order)), bool), (placed[1:] != placed[:-1]).any(1)])
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(starts) - 1
    n_groups = int(starts.sum())
    if n_groups == len(faces):
        return np.arange(len(faces))
    net = np.bincount(group, sign, n_groups)
    # The first triangle of each group whose winding is that of the majority.
    agrees = np.flatnonzero((sign * net[group] > 0) | (net[group] == 0))[::-1]
    chosen = np.zeros(n_groups, np.int64)
    chosen[group[agrees]] = agrees
    walls = _walls(faces[chosen], net == 0)
    return np.sort(chosen[~walls])


def _walls(faces: Int64[np.ndarray, "g 3"], doubled: Bool[np.ndarray, " g"]) -> Bool[np.ndarray, " g"]:
    """Which of the doubled triangles lie between bodies, so that both copies go without leaving a hole."""
    if not doubled.any() or doubled.all():
        return np.zeros(len(faces), bool)
    edge = Topology(faces).edge
    n_edges = int(edge.max()) + 1
    single = np.bincount(edge[~doubled].ravel(), minlength=n_edges)
    chosen = np.flatnonzero(doubled)
    count, patch = Topology(faces[chosen]).bodies
    touches, leaves_hole = np.zeros(count, bool), np.zeros(count, bool)
    touches[patch[(single[edge[chosen]] > 0).any(1)]] = True
    leaves_hole[patch[(single[edge[chosen]] % 2 > 0).any(1)]] = True
    walls = np.zeros(len(faces), bool)
    walls[chosen] = (touches & ~leaves_hole)[patch]
    return walls
