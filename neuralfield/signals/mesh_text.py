"""The plain-text mesh formats OBJ and OFF, strictly: what cannot be read is an error, never skipped.

Readers exist for both, but those at hand resolve an OBJ's relative vertex numbers against the end of the file instead of
against the line, take its vertex 0 for vertex 1, and do not notice that an OFF file was cut short.
"""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from neuralfield.errors import SignalError

Polygons = tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, " p"], Int64[np.ndarray, " c"]]


def read_obj(path: Path) -> Polygons:
    """Positions, corners per face and vertex numbers (from 0) of a Wavefront OBJ; texture and normals do not matter.

    Vertex numbers count from 1, negative ones backward from the latest vertex: -1 is the one just before the face.
    """
    positions, corners, counts = array("d"), array("q"), array("q")
    data = path.read_bytes().replace(b"\\\r\n", b" ").replace(b"\\\n", b" ")
    for number, line in enumerate(data.split(b"\n"), 1):
        parts = line.split()
        if not parts or parts[0] not in (b"v", b"f"):
            continue
        try:
            if parts[0] == b"v":
                if len(parts) < 4:
                    raise ValueError("a vertex needs x, y and z")
                positions.extend(map(float, parts[1:4]))
                continue
            refs = [int(part.partition(b"/")[0]) for part in parts[1:]]
            if len(refs) < 3:
                raise ValueError("a face needs at least three vertices")
            if 0 in refs:
                raise ValueError("vertex numbers begin with 1, not 0")
        except ValueError as error:
            raise SignalError(
                f"{path}, line {number} ({_shown(line)}): {error}; the file is damaged or was cut short: export it again"
            ) from error
        seen = len(positions) // 3
        corners.extend([ref - 1 if ref > 0 else seen + ref for ref in refs])
        counts.append(len(refs))
    return _arrays(positions, counts, corners)


def read_off(path: Path) -> Polygons:
    """Positions, corners per face and vertex numbers of an Object File Format text; colours and normals do not matter."""
    lines = [(number, line.split(b"#")[0].split()) for number, line in enumerate(path.read_bytes().split(b"\n"), 1)]
    lines = [(number, parts) for number, parts in lines if parts]
    keyword = lines[0][1][0] if lines else b""
    if not keyword.endswith(b"OFF") or len(keyword) > 6:
        raise SignalError(f"{path} does not begin with OFF, as such a file must; give it the suffix of what it holds")
    if b"4" in keyword or b"n" in keyword or lines[0][1][1:2] == [b"BINARY"]:
        raise SignalError(
            f"{path} is an OFF file of an unusual kind ({_shown(b' '.join(lines[0][1]))}); save it as PLY"
        )
    lines = ([(lines[0][0], lines[0][1][1:])] if len(lines[0][1]) > 1 else []) + lines[1:]
    positions, corners, counts = array("d"), array("q"), array("q")
    number, parts = lines[0] if lines else (1, [])
    try:
        if len(parts) < 2:
            raise ValueError("expected the numbers of vertices and faces")
        n_vertices, n_faces = int(parts[0]), int(parts[1])
        if min(n_vertices, n_faces) < 0 or n_vertices + n_faces > len(lines) - 1:
            raise ValueError(f"{n_vertices} vertices and {n_faces} faces are announced, {len(lines) - 1} lines follow")
        for k in range(1, n_vertices + 1):
            number, parts = lines[k]
            if len(parts) < 3:
                raise ValueError("a vertex needs x, y and z")
            positions.extend(map(float, parts[:3]))
        for k in range(n_vertices + 1, n_vertices + n_faces + 1):
            number, parts = lines[k]
            count = int(parts[0])
            if not 0 < count < len(parts):
                raise ValueError(f"a face of {count} vertices names {len(parts) - 1}")
            corners.extend(map(int, parts[1 : count + 1]))
            counts.append(count)
    except (ValueError, OverflowError) as error:
        raise SignalError(
            f"{path}, line {number} ({_shown(b' '.join(parts))}): {error}; the file is damaged or was cut short: "
            "export it again"
        ) from error
    return _arrays(positions, counts, corners)


def _arrays(positions: array, counts: array, corners: array) -> Polygons:
    vertices = np.array(positions, np.float64).reshape(-1, 3)
    return vertices, np.array(counts, np.int64), np.array(corners, np.int64)


def _shown(line: bytes) -> str:
    text = " ".join(line.decode("ascii", "replace").split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 60 else text[:57] + "..."
