"""What every reader of image files hands out, and the checks and turns that all of them share."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from jaxtyping import Shaped

from neuralfield.errors import MissingDependency, SignalError
from neuralfield.memory import available_bytes

STORAGE = ("uint8", "uint16", "uint32", "float32")


@dataclass(frozen=True)
class RawImage:
    """The pixels of one picture exactly as the file stores them, and what its format says about them.

    Attributes:
        pixels: ``[height, width, channels]`` of uint8, uint16, uint32 or float32 (half and double floats are
            converted), 1 to 4 channels, row 0 on top; it may be a copy-on-write map of the file.
        has_alpha: the last channel is opacity (0 = transparent, the maximum of the type = opaque).
        premultiplied: the colours were multiplied by the opacity (EXR always, TIFF where ExtraSamples says so).
        linear: the values are proportional to light (EXR, HDR); otherwise they are taken as sRGB, as stored.
        format: the name of the format, as recognised from the first bytes.
    """

    pixels: Shaped[np.ndarray, "height width channels"]
    has_alpha: bool
    premultiplied: bool = False
    linear: bool = False
    format: str = "array"


def require(module: str, package: str, what: str) -> ModuleType:
    """Import an optional reader, or say what needs it and which command installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependency(f"{what} needs {package}; install it with: pip install {package}") from error


def storable(array: np.ndarray, where: str) -> np.ndarray:
    """``array`` as ``[height, width, channels]`` in one of the storage types; other types and shapes are refused.

    bool becomes 0 and 255; float16 and float64 become float32; a foreign byte order becomes the native one. Without a
    need to convert nothing is copied.
    """
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3:
        raise SignalError(
            f"{where} has the shape {list(array.shape)}; an image is [height, width] or "
            "[height, width, channels]: select one slice first"
        )
    if 0 in array.shape:
        raise SignalError(f"{where} is empty: its shape is {list(array.shape)}; give an image of at least 2 x 2 pixels")
    if array.shape[2] > 4:
        hint = (
            "; the channels seem to come first: move them last with np.moveaxis(a, 0, -1)"
            if array.shape[0] <= 4
            else "; select 1 to 4 of them, for example a[:, :, :3]"
        )
        raise SignalError(f"{where} has {array.shape[2]} channels, at most 4 are supported{hint}")
    kind = array.dtype.kind
    if kind == "b":
        return np.asarray(array, dtype=np.uint8) * np.uint8(255)
    if kind == "f":
        return _native(array, np.dtype(np.float32), where)
    if kind == "u" and array.dtype.itemsize <= 4:
        return _native(array, array.dtype.newbyteorder("="), where)
    raise SignalError(
        f"{where} holds {array.dtype} values, which have no fixed range as an image; convert them to "
        "uint8 (0 to 255), uint16, uint32 or to float32 (0 to 1) first"
    )


def _native(array: np.ndarray, dtype: np.dtype, where: str) -> np.ndarray:
    if array.dtype == dtype and array.dtype.isnative:
        return array
    check_memory(array.size * dtype.itemsize, where)
    with np.errstate(over="ignore"):  # a double beyond the float32 range becomes infinite and is refused as such later
        return array.astype(dtype)


def oriented(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """``pixels`` turned upright for an EXIF or TIFF orientation of 1 to 8; any other number means "as stored".

    The numbers name where row 0 and column 0 of the file belong: 1 top left, 2 top right (mirrored), 3 bottom right,
    4 bottom left (mirrored), 5 left top (transposed), 6 right top (turn clockwise), 7 right bottom, 8 left bottom.
    """
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels if orientation in (0, 1) else np.ascontiguousarray(pixels)


def choose_frame(where: str, count: int, frame: int | None, what: str = "pictures") -> int:
    """Which of ``count`` pictures of a file to read: the only one, or the one that was asked for."""
    if frame is None and count > 1:
        raise SignalError(f"{where} holds {count} {what}; choose one with signal.frame=0 (up to {count - 1})")
    chosen = 0 if frame is None else frame
    if chosen >= count:
        known = "only signal.frame=0 exists" if count == 1 else f"signal.frame goes from 0 to {count - 1}"
        raise SignalError(f"{where} has no picture {chosen}: {known}")
    return chosen


def check_size(where: str, height: int, width: int, bytes_per_pixel: int) -> None:
    """Refuse a picture that is empty, or whose header claims more than this machine can hold, before allocating."""
    if height < 1 or width < 1:
        raise SignalError(
            f"{where} is empty: its header says {width} x {height} pixels; give an image of at least 2 x 2"
        )
    check_memory(height * width * bytes_per_pixel, f"{where} ({width} x {height} pixels)")


def check_memory(needed: int, where: str) -> None:
    """Raise a :class:`SignalError` when ``needed`` bytes are more than what is available."""
    available = available_bytes()
    if needed > available:
        raise SignalError(
            f"{where} needs {_bytes(needed)} of memory and {_bytes(available)} are available; cut or "
            "scale it with an image tool first, or store it as an uncompressed TIFF or .npy, which stay "
            "on disk"
        )


def _bytes(count: float) -> str:
    number = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} TB" if number < 1e6 else f"{number:.1e} TB"
