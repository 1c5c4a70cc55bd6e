"""Plain arrays: ``.npy`` (mapped), ``.npz`` (unpacked), and raw bytes whose shape the user states."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neuralfield import checks
from neuralfield.errors import ConfigError, SignalError, nearest
from neuralfield.signals.raw_volume import RawVolume, Request, arranged, byte_count, mapped, unpacked

_PIECE = 1 << 22
_IN_NAME = re.compile(r"(?<!\d)(\d{1,5})x(\d{1,5})x(\d{1,5})(?!\d)(?:_(u?int(?:8|16|32)|float(?:16|32|64)))?")


def read_npy(path: Path, request: Request) -> RawVolume:
    """Map one array; see :func:`neuralfield.signals.volume_files.read_volume`. Pickled objects are never loaded."""
    with path.open("rb") as file:
        shape, fortran, dtype = _header(file, str(path))
        start = file.tell()
    array = mapped(path, dtype, shape[::-1] if fortran else shape, start, str(path))
    return RawVolume(arranged(array.T if fortran else array, str(path), request), format="NPY")


def read_npz(path: Path, request: Request) -> RawVolume:
    """Unpack the one array of an archive, or that which ``key`` names."""
    with zipfile.ZipFile(path) as archive:
        known = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        key = one_of(known, request.key, str(path), "arrays")
        where = f"{path} ({key})"
        with archive.open(f"{key}.npy") as file:
            shape, fortran, dtype = _header(file, where)
            order = shape[::-1] if fortran else shape
            if not byte_count(order, dtype):
                raise SignalError(f"{where} is empty: its shape is {list(shape)}; every axis needs at least 2 voxels")
            array = unpacked(_pieces(file), order, dtype, where, request.budget)
    return RawVolume(arranged(array.T if fortran else array, where, request), format="NPZ")


def read_raw(path: Path, request: Request) -> RawVolume:
    """Map the file as an array of the shape ``[z, y, x]`` or ``[z, y, x, channels]`` and type that were given.

    Without both, a name such as ``skull_256x256x178_uint8.raw`` (x, y, z) is believed if the size of the file agrees.
    """
    stored = path.stat().st_size
    shape, dtype = _from_name(path, stored) if request.shape is None else (None, None)
    if request.shape is not None:
        shape = [checks.integer("signal.shape", n, 1) for n in request.shape]
        if len(shape) not in (3, 4):
            raise ConfigError(f"signal.shape must be [z, y, x] or [z, y, x, channels], got {list(request.shape)}")
    if request.dtype is not None:
        dtype = _dtype(request.dtype)
    if shape is None or dtype is None:
        missing = " and ".join(
            word for word, value in (("signal.shape=[z,y,x]", shape), ("signal.dtype=uint8", dtype)) if value is None
        )
        guesses = " or ".join(_guesses(stored, dtype))
        raise SignalError(
            f"{path} is a file of plain bytes, so that {missing} must be given; it holds {stored:,} bytes"
            + (f", for example {guesses}" if guesses else "")
        )
    expected = byte_count(shape, dtype)
    if expected != stored:
        raise SignalError(
            f"{path}: signal.shape={shape} and signal.dtype={dtype.name} make {expected:,} bytes and the file holds "
            f"{stored:,}{_mended(shape, dtype, stored)}"
        )
    return RawVolume(arranged(mapped(path, dtype, shape, 0, str(path)), str(path), request), format="raw")


def one_of(known: list[str], key: str | None, where: str, what: str) -> str:
    """The only one of ``known``, or that which was asked for."""
    if not known:
        raise SignalError(f"{where} holds no {what}; write it again")
    if key is None and len(known) == 1:
        return known[0]
    shown = ", ".join(sorted(known)[:8]) + (", ..." if len(known) > 8 else "")
    if key is None:
        raise SignalError(f"{where} holds {len(known)} {what}: {shown}; choose one with signal.key={sorted(known)[0]}")
    if key not in known:
        raise SignalError(f"{where} has no '{key}'{nearest(key, known)}; it holds {shown}")
    return key


def _header(file: Any, where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise SignalError(
            f"{where} holds Python objects, which are never loaded because they can run code; store a plain array, for "
            "example np.save(path, np.asarray(volume, dtype=np.float32))"
        )
    return shape, fortran, dtype


def _pieces(file: Any) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def _dtype(given: str) -> np.dtype:
    try:
        dtype = np.dtype(given)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise ConfigError(
            f"signal.dtype must be a type of numbers such as uint8, int16, float32 or >u2 (big-endian), got {given!r}"
        )
    return dtype


def _from_name(path: Path, stored: int) -> tuple[list[int] | None, np.dtype | None]:
    found = _IN_NAME.search(path.name)
    if found is None or found.group(4) is None:
        return None, None
    x, y, z = (int(found.group(k)) for k in (1, 2, 3))
    dtype = np.dtype(found.group(4))
    return ([z, y, x], dtype) if x * y * z * dtype.itemsize == stored else (None, None)


def _guesses(stored: int, dtype: np.dtype | None) -> list[str]:
    """Up to three shapes, slices square and as many as their side to an eighth or eightfold, that make the size."""
    found: list[tuple[float, str]] = []
    for kind in [dtype] if dtype is not None else [np.dtype(name) for name in ("uint8", "uint16", "float32")]:
        count, rest = divmod(stored, kind.itemsize)
        if rest:
            continue
        for side in range(2, min(4096, math.isqrt(max(count, 1))) + 1):
            depth, rest = divmod(count, side * side)
            if rest or not side <= 8 * depth <= 64 * side:
                continue
            round_side = side & -side  # the largest power of 2 in it: sides of scans have one
            found.append(
                (abs(math.log2(depth / side)) - math.log2(round_side), f"[{depth},{side},{side}] of {kind.name}")
            )
    return [text for _, text in sorted(found)[:3]]


def _mended(shape: list[int], dtype: np.dtype, stored: int) -> str:
    """What to change so that the sizes agree: the type, one of the lengths, or all of them."""
    count = math.prod(shape)
    for name in ("uint8", "uint16", "float32", "float64"):
        if count * np.dtype(name).itemsize == stored:
            return f"; with signal.dtype={name} they agree"
    wanted, rest = divmod(stored, dtype.itemsize)
    if not rest and wanted:
        fitting = [
            [*shape[:k], wanted * shape[k] // count, *shape[k + 1 :]]
            for k in range(3)
            if wanted * shape[k] % count == 0
        ]
        if fitting:
            return f"; signal.shape={' or '.join(str(f) for f in fitting)} would fit (the order is z, y, x)"
    guesses = _guesses(stored, dtype)
    if guesses:
        return f"; {' or '.join(guesses)} would fit"
    return (
        f"; {stored - count * dtype.itemsize:,} bytes of it may be a header, which has to be cut off first"
        * (stored > count * dtype.itemsize)
        or "; copy the file again or correct the shape"
    )
