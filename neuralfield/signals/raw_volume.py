"""What every reader of volume files hands out, and the arranging, unpacking and checks that all of them share."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from neuralfield.errors import SignalError
from neuralfield.memory import available_bytes

UNPACK_BUDGET = 1 << 30
"""Bytes up to which a compressed volume is unpacked into memory; a larger one goes into a temporary file."""
CHANNELS = ("auto", "first", "last", "none")
_FEW, _MOST = 4, 64  # channels that are taken for such by themselves, and the most that can be asked for

Progress = Callable[[float], None]


@dataclass(frozen=True)
class VolumeHeader:
    """What a file says beside its voxels, kept so that results can be written with it.

    - `format`: "nifti" or "nrrd". `fields`: nibabel's header, or pynrrd's dictionary.
    - `axes`: the number of axes that the file's array has.
    """

    format: str
    fields: Any
    axes: int = 3


@dataclass(frozen=True)
class RawVolume:
    r"""The voxels of one volume exactly as the file stores them: $\text{value} = \text{slope} \cdot v + \text{intercept}$.

    Attributes:
        array: ``[z, y, x, channels]`` of any integer or float type and byte order; a read-only map of the file where the
            file allows it.
        spacing: distance of neighbouring voxels along x, y, z, in ``unit``; None where the file does not say.
        affine: from voxel indices (i, j, k, 1) along x, y, z to the world, in the axes of NIfTI (towards the right, the
            front and the top of a patient); None where the file does not say.
        header: for writing results back; None for formats without one.
        slope, intercept: NIfTI's scaling, not yet applied.
        unit: of the spacing ("mm"); empty where the file does not say.
        format: the name of the format, as recognised.
    """

    array: Shaped[np.ndarray, "z y x channels"]
    spacing: tuple[float, float, float] | None = None
    affine: Float[np.ndarray, "4 4"] | None = None
    header: VolumeHeader | None = None
    slope: float = 1.0
    intercept: float = 0.0
    unit: str = ""
    format: str = "array"


@dataclass(frozen=True)
class Request:
    """What was asked of a reader; :func:`neuralfield.signals.volume_files.read_volume` says what the options mean."""

    channels: str = "auto"
    frame: int | None = None
    key: str | None = None
    shape: Sequence[int] | None = None
    dtype: str | None = None
    budget: int = UNPACK_BUDGET


def arranged(array: np.ndarray, where: str, request: Request, axis: int | None = None) -> np.ndarray:
    """``[z, y, x]`` or an array with one more axis as ``[z, y, x, channels]``, a view.

    ``axis`` is where the channels or frames are, if the format says so. Otherwise ``request.channels`` does: "first",
    "last", "none" (the first axis counts frames), or "auto": last if there are at most 4, else first if at most 4.
    """
    frame = request.frame
    if array.ndim < 3:
        raise SignalError(
            f"{where} is {array.ndim}-dimensional (shape {list(array.shape)}), not a volume, which is [z, y, x] or "
            "[z, y, x, channels]; fit a picture with signal=image"
        )
    if array.ndim > 4:
        raise SignalError(
            f"{where} has {array.ndim} axes (shape {list(array.shape)}); a volume is [z, y, x] or [z, y, x, channels]: "
            "select one part of it first"
        )
    if array.ndim == 3:
        if request.channels in ("first", "last") and axis is None:
            raise SignalError(
                f"{where} has the shape {list(array.shape)}: with signal.channels={request.channels} only a picture is "
                "left; use signal.channels=none"
            )
        if frame:
            raise SignalError(f"{where} holds one volume, so that there is no frame {frame}; leave signal.frame out")
        return array[..., None]
    if axis is None:
        axis = _channel_axis(array.shape, request)
    count = array.shape[axis]
    if frame is not None:
        if frame >= count:
            raise SignalError(f"{where} has no frame {frame}: signal.frame goes from 0 to {count - 1}")
        return np.moveaxis(array, axis, -1)[..., frame : frame + 1]
    if (request.channels == "none" and count > 1) or (request.channels == "auto" and count > _FEW):
        raise SignalError(
            f"{where} holds {count} volumes (shape {list(array.shape)}); choose one with signal.frame=0 (up to "
            f"{count - 1}), or fit them together with signal.channels={'last' if axis == 3 else 'first'}"
        )
    if count > _MOST:
        raise SignalError(f"{where} has {count} channels, at most {_MOST} are fitted together; use signal.frame=0")
    return np.moveaxis(array, axis, -1)


def _channel_axis(shape: tuple[int, ...], request: Request) -> int:
    if request.channels == "auto":
        return 3 if shape[3] <= _FEW else 0
    return 3 if request.channels == "last" else 0


def unpacked(
    pieces: Iterable[Any], shape: Sequence[int], dtype: np.dtype, where: str, budget: int = UNPACK_BUDGET
) -> np.ndarray:
    """An array of ``shape`` (C order) from the bytes that ``pieces`` yield one after the other.

    Up to ``budget`` bytes it lies in memory, above in a temporary file (in ``$TMPDIR``) that is mapped and that vanishes
    with the last use of the array. Raises SignalError where there is no room, or where the pieces end too early.
    """
    size = byte_count(shape, dtype)
    in_memory = size <= budget
    check_room(size, where, in_memory)
    if in_memory:
        memory = np.empty(size, np.uint8)
        done = 0
        for piece in pieces:
            data = np.frombuffer(piece, np.uint8)[: size - done]
            memory[done : done + len(data)] = data
            done += len(data)
            if done == size:
                break
        _check_complete(done, size, where)
        return memory.view(dtype).reshape(shape)
    with tempfile.TemporaryFile(prefix="neuralfield-volume-") as file:
        done = 0
        try:
            for piece in pieces:
                part = memoryview(piece).cast("B")[: size - done]
                file.write(part)
                done += len(part)
                if done == size:
                    break
            file.flush()
        except OSError as error:
            raise SignalError(
                f"{where} could not be unpacked into {tempfile.gettempdir()} ({error.strerror or error}); free some "
                "space there or point TMPDIR to another disk"
            ) from error
        _check_complete(done, size, where)
        return np.memmap(file, dtype, "r", 0, tuple(shape))  # type: ignore[call-overload]  # keeps a handle of its own


def mapped(path: Any, dtype: np.dtype, shape: Sequence[int], offset: int, where: str) -> np.ndarray:
    """The file's bytes from ``offset`` as a read-only array of ``shape``, C order; SignalError where they are missing."""
    expected, found = byte_count(shape, dtype), max(0, path.stat().st_size - offset)
    if expected > found:
        raise SignalError(
            f"{where} was cut short: its header promises {expected:,} bytes of voxels ({'x'.join(map(str, shape))} "
            f"{dtype.name}) and {found:,} are there; copy or write it again"
        )
    if not expected:
        raise SignalError(f"{where} is empty: its shape is {list(shape)}; every axis needs at least 2 voxels")
    return np.memmap(path, dtype, "r", offset, tuple(shape))


def check_room(size: int, where: str, in_memory: bool = True) -> None:
    """Raise SignalError where ``size`` bytes fit neither into memory nor into the folder of temporary files."""
    if in_memory:
        free, place = available_bytes(), "memory"
    else:
        folder = tempfile.gettempdir()
        free, place = float(shutil.disk_usage(folder).free), folder
    if size > free:
        raise SignalError(
            f"{where} needs {size:,} bytes in {place} and {free:,.0f} are free; crop the file first, store it uncompressed "
            "(.nii, .npy, raw NRRD stay on disk), or point TMPDIR to a larger disk"
        )


def check_volume(array: np.ndarray, where: str) -> np.ndarray:
    """``array`` ``[z, y, x, channels]`` if it can be fitted: real numbers, at least 2 voxels along every axis."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "b":
        array = array.view(np.uint8)
    elif kind == "c":
        raise SignalError(f"{where} holds complex numbers; store their magnitude, np.abs(array), or real and imaginary "
                          "part as two channels")  # fmt: skip
    elif kind not in "uif" or size > 8:
        raise SignalError(f"{where} holds {array.dtype} values; a volume holds integers or floats of up to 8 bytes: "
                          "convert it, for example with array.astype(np.float32)")  # fmt: skip
    depth, height, width, channels = array.shape
    if 0 in array.shape:
        raise SignalError(f"{where} is empty: it has {width} x {height} x {depth} voxels and {channels} channels")
    if min(depth, height, width) < 2:
        raise SignalError(
            f"{where} has {width} x {height} x {depth} voxels, which is not a volume: every axis needs at least 2; fit a "
            "picture with signal=image"
        )
    return array


def raw_of(array: Any, spacing: Any, affine: Any, unit: str, name: str) -> RawVolume:
    """An array ``[z, y, x]`` or ``[z, y, x, channels]`` of a Python user; copied, unless it is a ``np.memmap``."""
    where = "the array" if name == "array" else f"the array {name!r}"
    if isinstance(array, Tensor):
        array = array.detach().cpu()
        array = (array.float() if array.dtype == torch.bfloat16 else array).numpy()
    if not isinstance(array, np.ndarray):
        raise SignalError(f"a volume must be a NumPy array or a torch tensor, got {type(array).__name__}")
    if array.ndim not in (3, 4):
        raise SignalError(f"{where} has the shape {list(array.shape)}; a volume is [z, y, x] or [z, y, x, channels]")
    voxels = check_volume(array if array.ndim == 4 else array[..., None], where)
    matrix = None if affine is None else np.asarray(affine, np.float64)
    if matrix is not None and (matrix.shape != (4, 4) or not np.isfinite(matrix).all()):
        raise SignalError(f"an affine is a finite [4, 4] matrix, got the shape {list(matrix.shape)}")
    sizes = checked_spacing(spacing, where, True)
    return RawVolume(voxels if isinstance(array, np.memmap) else voxels.copy(), sizes, matrix, unit=unit)


def checked_spacing(spacing: Any, where: str, option: bool = False) -> tuple[float, float, float]:
    """Three positive lengths, x, y, z; ``option``: they were given by a person rather than by a file."""
    values = [spacing] * 3 if isinstance(spacing, (int, float)) and not isinstance(spacing, bool) else list(spacing)
    try:
        sx, sy, sz = (float(value) for value in values)
    except (TypeError, ValueError):
        sx = sy = sz = math.nan
    if not all(math.isfinite(s) and s > 0 for s in (sx, sy, sz)) or max(sx, sy, sz) > 1e6 * min(sx, sy, sz):
        given = [float(v) if isinstance(v, (int, float, np.number)) else v for v in values]
        cure = "give three positive numbers x, y, z" if option else "give it with signal.spacing=[x,y,z]"
        raise SignalError(f"{where}: the spacing of the voxels, {given}, is not usable; {cure}")
    return sx, sy, sz


def byte_count(shape: Sequence[int], dtype: np.dtype) -> int:
    """Bytes of an array, in Python's integers, because a hostile shape overflows fixed ones."""
    size = int(dtype.itemsize)
    for length in shape:
        if length < 0:
            raise SignalError(f"the header promises an axis of {length} voxels; it is damaged: copy the file again")
        size *= int(length)
    return size


def _check_complete(done: int, size: int, where: str) -> None:
    if done < size:
        raise SignalError(
            f"{where} was cut short: its header promises {size:,} bytes of voxels and {done:,} are there; copy or write "
            "it again"
        )
