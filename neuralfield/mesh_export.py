"""Triangle meshes as files for other programs: PLY, OBJ, STL, GLB, OFF."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neuralfield.errors import ConfigError, OutputError, nearest
from neuralfield.files import atomic
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.placement import Placement

MESH_SUFFIXES = (".ply", ".obj", ".stl", ".glb", ".off")
_BLOCK = 1 << 18  # vertices or triangles written at once
_ROUNDING = 1e-6  # of the longest side, the most that float32 may move a vertex
_LARGEST = 1e38  # about what float32 holds
_COMMENT = "neuralfield"


def write_mesh(
    path: str | Path,
    mesh: TriangleMesh,
    placement: Placement | None = None,
    *,
    comment: str = _COMMENT,
    normals: bool = False,
) -> None:
    """Write a mesh in the format of the suffix, whole or not at all.

    - ``.ply``: binary, little-endian, written block by block: beside the mesh it takes 30 MiB. Vertices are float32, or
      float64 where float32 would move one by more than a millionth of the mesh's longest side (far from the origin).
    - ``.obj``, ``.off``: text. ``.stl``: binary; vertices are repeated for each triangle, in float32. ``.glb``: float32,
      axes as they are. These are built in memory.

    **Arguments**

    - `placement`: where the mesh lies in the source's own coordinates, if its vertices are in the cube's. None: as it is.
    - `comment`: for the header of PLY, OBJ and STL; other characters than ASCII become "?", line breaks become spaces.
    - `normals`: also write the normals at the vertices, in PLY, OBJ and GLB. They show the surface smoothly shaded.

    Raises :class:`~neuralfield.errors.ConfigError` for another suffix, and :class:`~neuralfield.errors.OutputError` when it
    cannot be written or its coordinates do not fit the format.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        hint = nearest(suffix, MESH_SUFFIXES)
        raise ConfigError(f"cannot write {path.name}: known formats of meshes are {', '.join(MESH_SUFFIXES)}{hint}")
    words = "".join(c if " " <= c <= "~" else "?" for c in " ".join(comment.split()))
    if suffix == ".ply":
        _write_ply(path, mesh, placement, words, normals)
        return
    vertices = mesh.vertices if placement is None else placement.to_world(mesh.vertices)
    if suffix in (".stl", ".glb") and np.abs(vertices).max() > _LARGEST:
        raise OutputError(
            f"cannot write {path}: coordinates reach {np.abs(vertices).max():.3g}, beyond float32; use .ply"
        )
    with atomic(path) as temporary:
        try:
            temporary.write_bytes(_exported(suffix, vertices, mesh, words, normals))
        except OSError:
            raise
        except Exception as error:
            raise OutputError(f"cannot write {path}: {error}") from error


def _write_ply(path: Path, mesh: TriangleMesh, placement: Placement | None, comment: str, normals: bool) -> None:
    ends = mesh.vertices.min(0), mesh.vertices.max(0)  # also of vertices that no triangle uses
    low, high = ends if placement is None else (placement.to_world(end) for end in ends)
    largest = float(np.abs([low, high]).max())
    exact = largest * 2.0**-24 <= _ROUNDING * float((high - low).max()) and largest < _LARGEST
    kind, code = ("float", "<f4") if exact else ("double", "<f8")
    columns = ["x", "y", "z"] + (["nx", "ny", "nz"] if normals else [])
    header = [
        "ply",
        "format binary_little_endian 1.0",
        *([f"comment {comment}"] if comment else []),
        f"element vertex {len(mesh.vertices)}",
        *(f"property {kind} {column}" for column in columns),
        f"element face {len(mesh.faces)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(("\n".join(header) + "\n").encode("ascii"))
        for start, stop in _blocks(len(mesh.vertices)):
            part = mesh.vertices[start:stop]
            part = part if placement is None else placement.to_world(part)
            if normals:
                part = np.concatenate([part, mesh.vertex_normals[start:stop]], axis=1)
            file.write(part.astype(code).tobytes())
        for start, stop in _blocks(len(mesh.faces)):
            rows = np.empty(stop - start, [("n", "u1"), ("v", "<i4", 3)])
            rows["n"], rows["v"] = 3, mesh.faces[start:stop]
            file.write(rows.tobytes())


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, _BLOCK):
        yield start, min(start + _BLOCK, count)


def _exported(suffix: str, vertices: np.ndarray, mesh: TriangleMesh, comment: str, normals: bool) -> bytes:
    import trimesh

    options: dict[str, Any] = {"vertex_normals": mesh.vertex_normals} if normals and suffix != ".off" else {}
    # Nothing is merged, dropped or turned: what is written is what was found.
    solid = trimesh.Trimesh(vertices, mesh.faces, process=False, validate=False, **options)
    if suffix == ".stl":
        solid.face_normals = mesh.normals
        content = trimesh.exchange.stl.export_stl(solid)
        # A header that begins with "solid" is taken for a text file.
        words = f"binary: {comment}" if comment.lower().startswith("solid") else comment
        return words.encode("ascii")[:80].ljust(80, b"\0") + content[80:]
    if suffix == ".glb":
        return trimesh.exchange.gltf.export_glb(trimesh.Scene(solid), include_normals=normals)
    # Of the longest side at least nine significant digits; six for the normals.
    extent = float(np.ptp(vertices, axis=0).max())
    digits = int(np.clip(9 - np.floor(np.log10(extent)), 6, 300))
    if suffix == ".off":
        return trimesh.exchange.off.export_off(solid, digits=digits).encode("ascii")
    text = trimesh.exchange.obj.export_obj(
        solid,
        include_normals=normals,
        include_color=False,
        include_texture=False,
        digits=digits,
        header=comment or None,
    )
    return str(text).encode("ascii")
