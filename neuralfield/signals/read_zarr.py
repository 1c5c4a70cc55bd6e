"""Zarr, versions 2 and 3: one array of a folder, read block by block; OME-NGFF images bring their spacing."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neuralfield.errors import MissingDependency, SignalError
from neuralfield.signals.raw_volume import RawVolume, Request, arranged, check_room, unpacked
from neuralfield.signals.read_volume_array import one_of

_BLOCK = 1 << 26
_UNITS = {"micrometer": "um", "millimeter": "mm", "nanometer": "nm", "meter": "m"}


def is_zarr(path: Path) -> bool:
    """Whether a folder says that it is a Zarr array or group."""
    return any((path / name).is_file() for name in (".zarray", ".zgroup", "zarr.json"))


def read(path: Path, request: Request) -> RawVolume:
    """Unpack one array; see :func:`neuralfield.signals.volume_files.read_volume`.

    Chunks are compressed and random voxels of a large array would unpack nearly all of them again at every step.
    """
    try:
        zarr = importlib.import_module("zarr")
    except ImportError as error:
        raise MissingDependency(
            f'reading {path} (Zarr) needs zarr; install it with: pip install "neuralfield[zarr]"'
        ) from error
    node = zarr.open(str(path), mode="r")
    scale: list[float] | None = None
    axes: list[dict[str, Any]] = []
    where = str(path)
    if not isinstance(node, zarr.Array):
        ngff = _multiscale(dict(node.attrs)) if request.key is None else None
        if ngff is None:
            key = one_of(_arrays(node), request.key, where, "arrays")
        else:
            key, axes, scale = ngff
        where = f"{path} ({key})"
        node = node[key]
    dtype, shape = np.dtype(node.dtype), tuple(int(n) for n in node.shape)
    if dtype.kind not in "buif":
        raise SignalError(f"{where} holds {dtype} values; store integers or floats")
    if 0 in shape or not shape:
        raise SignalError(f"{where} is empty: its shape is {list(shape)}; every axis needs at least 2 voxels")
    names = [str(axis.get("name", "")).lower() for axis in axes]
    array, axis = _chosen(node, shape, names, where, request)
    spacing, unit = _spacing(axes, names, scale)
    frame = None if _counts_times(names, shape) else request.frame
    return RawVolume(arranged(array, where, Request(request.channels, frame), axis), spacing, unit=unit, format="Zarr")


def _chosen(
    node: Any, shape: tuple[int, ...], names: list[str], where: str, request: Request
) -> tuple[np.ndarray, int | None]:
    """The array in memory or in a temporary file, ``[z, y, x]`` or with one more axis, and where that is if known.

    Of an array that counts times first (named so, or with five axes) only the wanted ones are read.
    """
    fixed: tuple[int, ...] = ()
    if _counts_times(names, shape):
        frame = request.frame
        if frame is None and shape[0] > 1:
            raise SignalError(
                f"{where} holds {shape[0]} volumes (shape {list(shape)}); choose one with signal.frame=0 (up to "
                f"{shape[0] - 1})"
            )
        if frame is not None and frame >= shape[0]:
            raise SignalError(f"{where} has no frame {frame}: signal.frame goes from 0 to {shape[0] - 1}")
        fixed = (frame or 0,)
    inner = shape[len(fixed) :]
    dtype = np.dtype(node.dtype).newbyteorder("=")
    array = unpacked(_blocks(node, fixed, inner, dtype, where), inner, dtype, where, request.budget)
    axis = names[len(fixed) :].index("c") if "c" in names and array.ndim == 4 else None
    return array, axis


def _counts_times(names: list[str], shape: tuple[int, ...]) -> bool:
    return names[:1] == ["t"] or len(shape) == 5


def _blocks(node: Any, fixed: tuple[int, ...], shape: tuple[int, ...], dtype: np.dtype, where: str) -> Iterator[Any]:
    row = int(np.prod(shape[1:], dtype=object)) * dtype.itemsize
    chunk = int(node.chunks[len(fixed)])
    step = max(1, min(_BLOCK // max(row, 1), shape[0]))
    step = min(-(-step // chunk) * chunk, shape[0])  # whole chunks, so that none is unpacked twice
    check_room(step * row, where)
    for start in range(0, shape[0], step):
        chosen = (*fixed, slice(start, start + step))
        block = node[chosen]
        yield np.ascontiguousarray(block, dtype).reshape(-1).view(np.uint8)


def _arrays(group: Any) -> list[str]:
    return [str(key) for key in group.array_keys()]


def _multiscale(attributes: dict[str, Any]) -> tuple[str, list[dict[str, Any]], list[float] | None] | None:
    """Name, axes and scale of the finest level of an OME-NGFF image (0.4, or 0.5 below "ome"); None if it is none."""
    scales = attributes.get("ome", attributes).get("multiscales")
    if not scales:
        return None
    level = scales[0]["datasets"][0]
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in scales[0].get("axes", [])]
    found = [t["scale"] for t in level.get("coordinateTransformations", []) if t.get("type") == "scale"]
    return str(level["path"]), axes, [float(s) for s in found[0]] if found else None


def _spacing(
    axes: list[dict[str, Any]], names: list[str], scale: list[float] | None
) -> tuple[tuple[float, float, float] | None, str]:
    if scale is None or len(scale) != len(names) or not {"x", "y", "z"} <= set(names):
        return None, ""
    x, y, z = (names.index(name) for name in "xyz")
    return (scale[x], scale[y], scale[z]), _UNITS.get(str(axes[x].get("unit", "")), "")
