"""TIFF stacks: the pages of one file as slices; ImageJ and OME files bring their channels and spacing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from neuralfield.errors import SignalError
from neuralfield.signals.raw import require
from neuralfield.signals.raw_volume import RawVolume, Request, arranged, mapped, unpacked

_UNITS = {"mm": "mm", "millimeter": "mm", "micron": "um", "um": "um", "\\u00b5m": "um", "µm": "um", "μm": "um",
          "nm": "nm", "cm": "cm", "inch": "inch", "m": "m"}  # fmt: skip
_CHANNEL_AXES = "CS"


def read(path: Path, request: Request) -> RawVolume:
    """Read the first series of pages of one size; see :func:`neuralfield.signals.volume_files.read_volume`.

    Where the voxels follow one another uncompressed, they are mapped. Palettes and colour spaces are not looked at: a
    volume's values are measurements.
    """
    tifffile = require("tifffile", "tifffile", f"reading {path} (TIFF)")
    with tifffile.TiffFile(path) as file:
        if not len(file.pages):  # counted first: a chain of pages that leads back into itself would never end
            raise SignalError(f"{path} is a TIFF without pages; copy it again")
        series = file.series[0]
        dtype = series.dtype
        if dtype is None or dtype.kind not in "buif" or dtype.itemsize > 8:
            raise SignalError(f"{path} holds {dtype} values; convert it to integers or floats of up to 8 bytes")
        shape, axes = tuple(int(n) for n in series.shape), str(series.axes)
        if len(shape) == 3:
            axes = axes.replace("C", "Z")  # many programs call the slices of a plain stack channels
        if len(axes) != len(shape) or len([a for a in axes if a not in "YX" + _CHANNEL_AXES]) == 0:
            raise SignalError(
                f"{path} is a TIFF with one picture of shape {list(shape)}, not a stack; fit it with signal=image"
            )
        array = _voxels(file, series, shape, path, request)
        spacing, unit = _spacing(file, path)
    array, axis, request = _to_four_axes(array, axes, str(path), request)
    return RawVolume(arranged(array, str(path), request, axis), spacing, unit=unit, format="TIFF")


def _voxels(file: Any, series: Any, shape: tuple[int, ...], path: Path, request: Request) -> np.ndarray:
    offset = series.dataoffset
    if offset is not None:
        return mapped(path, np.dtype(file.byteorder + series.dtype.char), shape, int(offset), str(path))
    length = path.stat().st_size
    pages = list(series.pages)
    for number, page in enumerate(pages):
        segments = [] if page is None else list(zip(page.dataoffsets, page.databytecounts, strict=False))
        expected = 0 if page is None else 1 if page.is_contiguous else math.prod(page.keyframe.chunked)
        if any(start <= 0 or count <= 0 or start + count > length for start, count in segments):
            raise SignalError(f"{path} is a TIFF that was cut short: page {number} is incomplete; copy it again")
        if page is None or len(segments) < expected:
            raise SignalError(f"{path} is an unfinished TIFF: page {number} was never written; write it again")
    dtype = np.dtype(series.dtype).newbyteorder("=")
    return unpacked(_pages(pages, dtype), shape, dtype, str(path), request.budget)


def _pages(pages: list[Any], dtype: np.dtype) -> Iterator[Any]:
    for page in pages:
        yield np.ascontiguousarray(page.asarray(), dtype).reshape(-1).view(np.uint8)


def _to_four_axes(array: np.ndarray, axes: str, where: str, request: Request) -> tuple[np.ndarray, int | None, Request]:
    """``[z, y, x]`` or with one more axis, where that is, and what is left to ask; ``frame`` picks the time."""
    if "T" in axes and any(a not in "TYX" + _CHANNEL_AXES for a in axes):
        t = axes.index("T")
        count = array.shape[t]
        if request.frame is None and count > 1:
            raise SignalError(f"{where} holds {count} volumes; choose one with signal.frame=0 (up to {count - 1})")
        if (request.frame or 0) >= count:
            raise SignalError(f"{where} has no frame {request.frame}: signal.frame goes from 0 to {count - 1}")
        array, axes = np.moveaxis(array, t, 0)[request.frame or 0], axes.replace("T", "")
        request = replace(request, frame=None)
    for k in reversed(range(len(axes))):
        if array.shape[k] == 1 and array.ndim > 3 and axes[k] not in "YX":
            array, axes = array.squeeze(k), axes[:k] + axes[k + 1 :]
    found = [k for k, axis in enumerate(axes) if axis in _CHANNEL_AXES]
    if array.ndim == 4 and len(found) == 1:
        return array, found[0], request
    return array, None, request


def _spacing(file: Any, path: Path) -> tuple[tuple[float, float, float] | None, str]:
    """x, y, z in the file's unit, from OME-XML or from what ImageJ writes; None where neither is there."""
    if file.is_ome and file.ome_metadata:
        return _from_ome(file.ome_metadata)
    if not file.is_imagej:
        return None, ""
    meta = file.imagej_metadata or {}
    x, y = (_pixels_per_unit(file.pages[0], code) for code in (282, 283))
    if "spacing" not in meta or x is None or y is None:
        return None, ""
    return (1 / x, 1 / y, abs(float(meta["spacing"]))), _UNITS.get(str(meta.get("unit", "")), "")


def _pixels_per_unit(page: Any, code: int) -> float | None:
    tag = page.tags.get(code)
    if tag is None:
        return None
    numerator, denominator = tag.value
    return numerator / denominator if numerator and denominator else None


def _from_ome(text: str) -> tuple[tuple[float, float, float] | None, str]:
    for element in ElementTree.fromstring(text).iter():
        if element.tag.endswith("}Pixels"):
            given = [element.get(f"PhysicalSize{axis}") for axis in "XYZ"]
            if any(value is None for value in given):
                return None, ""
            x, y, z = (float(value or 0) for value in given)
            return (x, y, z), _UNITS.get(element.get("PhysicalSizeXUnit", "um"), "")
    return None, ""
