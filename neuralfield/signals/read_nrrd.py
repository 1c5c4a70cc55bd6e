"""NRRD (``.nrrd``, ``.nhdr`` with its data beside it): pynrrd parses the header, the voxels are mapped or unpacked here.

Format: Teem's definition, https://teem.sourceforge.net/nrrd/format.html. The file's first axis is the fastest, so that
its sizes backwards are the shape in C order.
"""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from neuralfield.errors import SignalError
from neuralfield.signals.raw import require
from neuralfield.signals.raw_volume import RawVolume, Request, VolumeHeader, arranged, byte_count, mapped, unpacked

_PIECE = 1 << 20
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_DTYPES = {name: dtype for dtype, names in _TYPES.items() for name in names}
# Towards which side of a patient the world's axes point: NRRD's names, against NIfTI's right, anterior, superior.
_SIGNS = {"right": 1, "left": -1, "anterior": 1, "posterior": -1, "superior": 1, "inferior": -1}
_SHORT = {"R": 1, "L": -1, "A": 1, "P": -1, "S": 1, "I": -1}


def read(path: Path, request: Request) -> RawVolume:
    """Read one volume; see :func:`neuralfield.signals.volume_files.read_volume`."""
    nrrd = require("nrrd", "pynrrd", f"reading {path} (NRRD)")
    with path.open("rb") as file:
        header = nrrd.read_header(file)
        start = file.tell()
    for field in ("type", "sizes", "encoding", "dimension"):
        if field not in header:
            raise SignalError(f"{path} is an NRRD without the field '{field}:'; its header is damaged: copy it again")
    shape = tuple(int(size) for size in header["sizes"][::-1])
    voxels, start = _data_file(path, header, start)
    array = _voxels(nrrd, voxels, start, header, shape, _dtype(path, header), str(path), request)
    axis = _range_axis(header)
    if axis is not None:
        array = np.moveaxis(array, len(shape) - 1 - axis, -1)  # [z, y, x, channels]
        axis = 3 if array.ndim == 4 else None
    array = arranged(array, str(path), request, axis)
    directions, spacing = _geometry(header)
    affine = None if directions is None else _affine(header, directions)
    units = [str(unit).strip('"') for unit in header.get("space units", header.get("units", []))]
    return RawVolume(
        array, spacing, affine, VolumeHeader("nrrd", dict(header), len(shape)), unit=_unit(units), format="NRRD"
    )


def space_signs(space: str) -> tuple[int, int, int] | None:
    """+1 or -1 for each world axis of a ``space:`` field, against right-anterior-superior; None if it says no sides."""
    words = space.strip().lower().split("-")
    if len(words) >= 3 and all(word in _SIGNS for word in words[:3]):
        x, y, z = (_SIGNS[word] for word in words[:3])
    elif len(space) in (3, 4) and all(letter in _SHORT for letter in space[:3]):
        x, y, z = (_SHORT[letter] for letter in space[:3])
    else:
        return None
    return x, y, z


def _dtype(path: Path, header: dict[str, Any]) -> np.dtype:
    name = _DTYPES.get(str(header["type"]).lower())
    if name is None:
        raise SignalError(
            f"{path} holds values of the type {header['type']!r}; integers, float and double are read: convert it first"
        )
    dtype = np.dtype(name)
    endian = str(header.get("endian", "little")).lower()
    return dtype.newbyteorder(">" if endian == "big" else "<")


def _data_file(path: Path, header: dict[str, Any], start: int) -> tuple[Path, int]:
    """The file with the voxels, and where to start in it: behind the header, or at the beginning of a file beside it."""
    given = header.get("data file", header.get("datafile"))
    if given is None:
        return path, start
    name = str(given)
    if name.split(maxsplit=1)[:1] == ["LIST"] or "%" in name:
        raise SignalError(
            f"{path} spreads its voxels over several files, which is not read; join them first, for example with: unu "
            "save -f nrrd -i volume.nhdr -o volume.nrrd"
        )
    found = path.parent / name
    if not found.is_file():
        raise SignalError(f"{path} says that its voxels are in {found}, which does not exist; copy that file too")
    return found, 0


def _voxels(
    nrrd: Any,
    path: Path,
    start: int,
    header: dict[str, Any],
    shape: tuple[int, ...],
    dtype: np.dtype,
    where: str,
    request: Request,
) -> np.ndarray:
    encoding = str(header["encoding"]).lower()
    line_skip = int(header.get("line skip", header.get("lineskip", 0)))
    byte_skip = int(header.get("byte skip", header.get("byteskip", 0)))
    if line_skip < 0 or byte_skip < -1:
        raise SignalError(f"{where} skips {line_skip} lines and {byte_skip} bytes, which makes no sense; copy it again")
    with path.open("rb") as file:
        file.seek(start)
        for _ in range(min(line_skip, path.stat().st_size)):
            file.readline()
        start = file.tell()
    if encoding == "raw":
        size = byte_count(shape, dtype)
        offset = path.stat().st_size - size if byte_skip == -1 else start + byte_skip
        return mapped(path, dtype, shape, max(0, offset), where)
    if encoding in ("gzip", "gz", "bzip2", "bz2"):
        skip = max(0, byte_skip)
        return unpacked(_unzipped(path, start, encoding[0] == "g", skip), shape, dtype, where, request.budget)
    if encoding in ("ascii", "text", "txt"):
        # A number and its blank take two bytes at least, so that the file's own size bounds what can be in it.
        if byte_count(shape, np.dtype(np.uint8)) > path.stat().st_size:
            raise SignalError(f"{where} was cut short: it cannot hold {' x '.join(map(str, shape))} numbers")
        with path.open("rb") as file:
            file.seek(start)
            numbers = [float(word) for word in file.read().split()]
        if len(numbers) < byte_count(shape, np.dtype(np.uint8)):
            raise SignalError(f"{where} was cut short: {len(numbers)} numbers are there; copy it again")
        return np.array(numbers).astype(dtype).reshape(shape)
    raise SignalError(
        f"{where} has the encoding {encoding!r}; raw, gzip, bzip2 and ascii are read: save it as one of them"
    )


def _unzipped(path: Path, start: int, gzipped: bool, skip: int) -> Iterator[bytes]:
    stream: Any = zlib.decompressobj(zlib.MAX_WBITS | 16) if gzipped else bz2.BZ2Decompressor()
    with path.open("rb") as file:
        file.seek(start)
        while piece := file.read(_PIECE):
            if stream.eof:
                return
            data = stream.decompress(piece)
            dropped, data = data[:skip], data[skip:]
            skip -= len(dropped)
            yield data


def _range_axis(header: dict[str, Any]) -> int | None:
    """Which axis of the file counts channels or times rather than space: without a direction, or not of a domain kind."""
    axes = len(header["sizes"])
    directions = header.get("space directions")
    if directions is not None and len(directions) == axes:
        without = [
            k for k, row in enumerate(directions) if row is None or not np.isfinite(np.asarray(row, np.float64)).any()
        ]
        if len(without) == 1 and axes == 4:
            return without[0]
    kinds = header.get("kinds")
    if kinds is not None and len(kinds) == axes == 4:
        other = [k for k, kind in enumerate(kinds) if str(kind).lower() not in ("domain", "space", "???", "none")]
        if len(other) == 1:
            return other[0]
    return None


def _geometry(
    header: dict[str, Any],
) -> tuple[Float[np.ndarray, "3 3"] | None, tuple[float, float, float] | None]:
    """The step of each spatial axis in the world (rows x, y, z), and its length; None where the file does not say."""
    directions = header.get("space directions")
    if directions is not None:
        rows = [np.asarray(row, np.float64) for row in directions if row is not None]
        rows = [row for row in rows if row.shape == (3,) and np.isfinite(row).all()]
        if len(rows) == 3:
            x, y, z = (float(np.linalg.norm(row)) for row in rows)
            return np.stack(rows), (x, y, z)
    spacings = header.get("spacings")
    if spacings is not None:
        numbers = [float(s) for s in spacings]
        axis = _range_axis(header)
        finite = [s for k, s in enumerate(numbers) if k != axis and np.isfinite(s)]
        if len(finite) == 3:
            return None, (finite[0], finite[1], finite[2])
    return None, None


def _affine(header: dict[str, Any], directions: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "4 4"]:
    affine = np.eye(4)
    affine[:3, :3] = directions.T
    origin = header.get("space origin")
    if origin is not None and np.isfinite(np.asarray(origin, np.float64)).all() and len(origin) == 3:
        affine[:3, 3] = origin
    signs = space_signs(str(header.get("space", "")))
    return affine if signs is None else np.diag([*signs, 1.0]) @ affine


def _unit(units: list[str]) -> str:
    known = {"mm": "mm", "millimeter": "mm", "um": "um", "micron": "um", "m": "m", "meter": "m", "cm": "cm", "nm": "nm"}
    return next((known[unit.lower()] for unit in units if unit.lower() in known), "")
