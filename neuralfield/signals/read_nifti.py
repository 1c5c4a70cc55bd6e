"""NIfTI-1 and -2 (``.nii``, ``.nii.gz``, ``.hdr`` + ``.img``) and its ancestor Analyze 7.5.

nibabel reads the header; the voxels are mapped here, or unzipped piece by piece, because nibabel holds a zipped volume
in memory twice. The array ``[i, j, k, ...]`` of the file, first axis fastest, is ``[..., k, j, i]`` in C order.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neuralfield.errors import SignalError
from neuralfield.signals.raw import require
from neuralfield.signals.raw_volume import RawVolume, Request, VolumeHeader, arranged, mapped, unpacked

_UNITS = {"mm": "mm", "micron": "um", "meter": "m"}
_PIECE = 1 << 22


def read(path: Path, request: Request) -> RawVolume:
    """Read one volume; see :func:`neuralfield.signals.volume_files.read_volume`."""
    nibabel = require("nibabel", "nibabel", f"reading {path} (NIfTI)")
    with nibabel.imageglobals.LoggingOutputSuppressor():
        header, voxels = _header(nibabel, path)
        affine = np.asarray(header.get_best_affine(), np.float64)
    slope, intercept = header.get_slope_inter()
    shape = tuple(int(length) for length in header.get_data_shape())
    dtype, interleaved = _dtype(header, path)
    if interleaved:  # RGB24, RGBA32: the colours of a voxel follow one another
        shape = (interleaved, *shape)
    array = _voxels(voxels, dtype, shape[::-1], int(header.get_data_offset()), str(path), request)
    array, axis, request = _one_extra_axis(array, bool(interleaved), str(path), request)
    array = arranged(array, str(path), request, axis)
    unit = _UNITS.get(header.get_xyzt_units()[0], "") if hasattr(header, "get_xyzt_units") else ""
    zooms = tuple(float(zoom) for zoom in header.get_zooms()[:3])
    return RawVolume(
        array,
        zooms if len(zooms) == 3 else None,
        affine if np.isfinite(affine).all() else None,
        VolumeHeader("nifti", header, len(header.get_data_shape())),
        1.0 if slope is None else float(slope),
        0.0 if intercept is None else float(intercept),
        unit,
        "NIfTI",
    )


def _header(nibabel: Any, path: Path) -> tuple[Any, Path]:
    """The header, by what its first bytes say it is, and the file with the voxels (the other one of a pair)."""
    head = path.with_suffix(".hdr") if path.suffix.lower() == ".img" and path.with_suffix(".hdr").is_file() else path
    with _opened(head) as file:
        start = file.read(348)
        file.seek(0)
        if len(start) < 348:
            raise SignalError(f"{head} was cut short: {len(start)} bytes are there, less than a header; copy it again")
        two = start[4:7] in (b"n+2", b"ni2")
        pair = start[344:347] == b"ni1" or start[4:7] == b"ni2"
        if two:
            kind = nibabel.nifti2.Nifti2PairHeader if pair else nibabel.Nifti2Header
        elif pair or start[344:347] == b"n+1":
            kind = nibabel.nifti1.Nifti1PairHeader if pair else nibabel.Nifti1Header
        else:
            kind, pair = nibabel.spm2analyze.Spm2AnalyzeHeader, True
        header = kind.from_fileobj(file)
    return header, head.with_suffix(".img") if pair else path


def _opened(path: Path) -> Any:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else path.open("rb")


def _dtype(header: Any, path: Path) -> tuple[np.dtype, int]:
    """The type of one number, and how many make a colour (0: the voxels are no colours)."""
    dtype = np.dtype(header.get_data_dtype())
    if dtype.names and all(dtype[name] == np.uint8 for name in dtype.names):
        return np.dtype(np.uint8), len(dtype.names)
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        what = "complex numbers" if dtype.kind == "c" else f"values of the type {dtype}"
        raise SignalError(f"{path} holds {what}; convert it to float32 (of complex numbers: the magnitude) first")
    return dtype, 0


def _voxels(
    path: Path, dtype: np.dtype, shape: tuple[int, ...], offset: int, where: str, request: Request
) -> np.ndarray:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    if not zipped:
        return mapped(path, dtype, shape, offset, where)
    return unpacked(_unzipped(path, offset), shape, dtype, where, request.budget)


def _unzipped(path: Path, offset: int) -> Iterator[bytes]:
    with gzip.open(path, "rb") as file:
        file.seek(offset)
        while True:
            try:
                piece = file.read(_PIECE)
            except EOFError:  # the end of the stream is missing; how much is missing the receiver knows
                return
            if not piece:
                return
            yield piece


def _one_extra_axis(
    array: np.ndarray, interleaved: bool, where: str, request: Request
) -> tuple[np.ndarray, int | None, Request]:
    """``[..., t, z, y, x]`` (colours last) with at most one axis beside z, y, x, which one that is, and what is left to ask.

    Of a series of vectors ``frame`` picks the time, and the components are the channels.
    """
    spatial = 4 if interleaved else 3
    while array.ndim > max(4, spatial) and 1 in array.shape[: array.ndim - spatial]:
        array = array.squeeze(array.shape.index(1))
    if interleaved:
        return array, 3, replace(request, channels="last", frame=None)
    if array.ndim != 5:
        return array, 0 if array.ndim > 3 else None, request
    components, times = array.shape[:2]
    if request.frame is None:
        raise SignalError(
            f"{where} is a series of {times} volumes with {components} components each; choose one with signal.frame=0"
        )
    if request.frame >= times:
        raise SignalError(f"{where} has no frame {request.frame}: signal.frame goes from 0 to {times - 1}")
    return array[:, request.frame], 0, replace(request, frame=None)
