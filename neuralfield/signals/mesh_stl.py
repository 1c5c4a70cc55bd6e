"""STL, binary and text: :func:`read_stl`. Strict, because a file that was cut short still looks like a smaller one."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from neuralfield.errors import SignalError

_HEADER = 84  # bytes, the last four of which are the number of triangles
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def read_stl(path: Path) -> tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, "f 3"]]:
    """Vertices and faces of an STL file. Each triangle has three vertices of its own; the stored normals do not matter.

    Binary is what has exactly the length that its header announces: some programs begin binary files with "solid" too.
    """
    data = path.read_bytes()
    announced = struct.unpack("<I", data[_HEADER - 4 : _HEADER])[0] if len(data) >= _HEADER else 0
    expected = _HEADER + _TRIANGLE.itemsize * announced
    if len(data) == expected:
        corners = np.frombuffer(data, _TRIANGLE, announced, _HEADER)["corners"]
    elif data[:_HEADER].lstrip()[:5].lower() == b"solid" and b"facet" in data[:4096].lower():
        corners = _text_corners(data, path)
    else:
        raise SignalError(
            f"{path} is neither text STL nor complete binary STL: {announced} triangles take {expected} bytes and it has "
            f"{len(data)}; it is damaged or was cut short: export it again"
        )
    with np.errstate(invalid="ignore"):  # NaN of float32 that carry a payload; they are refused by name later
        vertices = corners.reshape(-1, 3).astype(np.float64)
    return vertices, np.arange(len(vertices)).reshape(-1, 3)


def _text_corners(data: bytes, path: Path) -> Float64[np.ndarray, "f 3 3"]:
    """Every solid in the file; between ``facet`` and ``endfacet`` lie three lines that begin with ``vertex``."""
    numbers: list[float] = []
    opened, own, number = "", 0, 0
    for number, line in enumerate(data.split(b"\n"), 1):
        words = line.split()
        word = words[0].lower() if words else b""
        try:
            if word == b"vertex" and opened == "facet" and len(words) == 4:
                numbers.extend(map(float, words[1:]))
                own += 1
            elif word == b"facet" and opened == "solid":
                opened, own = "facet", 0
            elif (word == b"solid" and not opened) or (word == b"endfacet" and opened == "facet" and own == 3):
                opened = "solid"
            elif word == b"endsolid" and opened == "solid":
                opened = ""
            elif word not in (b"", b"outer", b"endloop"):
                raise ValueError(f"{word.decode('ascii', 'replace')[:20]!r} does not belong here")
        except ValueError as error:
            raise SignalError(
                f"{path}, line {number}: {' '.join(str(error).split())}; the text STL is damaged: export it again"
            ) from error
    if opened:
        raise SignalError(f"{path}, line {number}: ends within a {opened}; the text STL was cut short: export it again")
    return np.array(numbers, np.float64).reshape(-1, 3, 3)
