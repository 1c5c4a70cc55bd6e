"""Pictures of light itself and plain arrays: OpenEXR, Radiance HDR and NumPy's ``.npy``."""

from __future__ import annotations

import contextlib
import io
import mmap
import re
from pathlib import Path
from typing import Any

import numpy as np

from neuralfield.errors import MissingDependency, SignalError
from neuralfield.signals.raw import RawImage, check_memory, check_size, choose_frame, require, storable

_SETS = (("R", "G", "B", "A"), ("R", "G", "B"), ("Y", "A"), ("Y",))  # the first that is complete is read


def read_exr(path: Path, frame: int | None = None) -> RawImage:
    """Read RGB(A) or luminance from an OpenEXR file: half, float or uint channels, scanlines or tiles.

    What is read is the data window (the stored pixels); where it sits on the display window does not matter to a fit.
    Unsigned integer channels keep their numbers, as floats. A part of a multi-part file counts as a frame; when only
    one part has colours, it is taken without asking. Values are linear and premultiplied, as the format prescribes.
    """
    openexr = require("OpenEXR", "OpenEXR", f"reading {path} (EXR)")
    if not hasattr(openexr, "File"):
        raise MissingDependency(
            f"reading {path} (EXR) needs OpenEXR 3.3 or newer; install it with: pip install 'OpenEXR>=3.3'"
        )
    parts = [part.header for part in openexr.File(str(path), separate_channels=True, header_only=True).parts]
    if not parts:
        raise SignalError(f"{path} is an EXR without a picture; copy or download it again")
    usable = [k for k, header in enumerate(parts) if _channel_set(header)]
    only = frame is None and len(usable) == 1
    chosen = usable[0] if only else choose_frame(str(path), len(parts), frame, "parts")
    header = parts[chosen]
    names = _channel_set(header)
    if "deep" in str(header.get("type", "")):
        raise SignalError(f"{path} holds deep data (many samples for each pixel); flatten it to RGBA first")
    if names is None:
        there = ", ".join(sorted(channel.name for channel in header["channels"])) or "none"
        raise SignalError(
            f"{path} has neither R, G, B nor Y channels of full resolution; its channels are: {there}. "
            "Write the wanted ones as R, G, B or Y"
        )
    low, high = (np.asarray(corner, np.int64) for corner in header["dataWindow"])
    width, height = (int(k) for k in high - low + 1)
    everything = sum(len(part["channels"]) for part in parts)
    check_size(str(path), height, width, 4 * (everything + len(names)))
    # OpenEXR prints its complaints, which would stand above the one line that says what is wrong.
    with contextlib.redirect_stdout(io.StringIO()):
        read = openexr.File(str(path), separate_channels=True).parts
    if chosen >= len(read):
        raise SignalError(f"{path} is an EXR whose pixels are cut short or damaged; copy or download it again")
    channels = read[chosen].channels
    pixels = np.empty((height, width, len(names)), np.float32)
    for k, name in enumerate(names):
        pixels[:, :, k] = channels[name].pixels
    return RawImage(pixels, "A" in names, premultiplied="A" in names, linear=True, format="EXR")


def _channel_set(header: dict[str, Any]) -> tuple[str, ...] | None:
    full = {c.name for c in header["channels"] if (c.xSampling, c.ySampling) == (1, 1)}
    if {"RY", "BY"} & {c.name for c in header["channels"]}:
        return None  # luminance with subsampled colour differences: Y alone would lose the colours silently
    return next((names for names in _SETS if full.issuperset(names)), None)


def read_hdr(path: Path, frame: int | None = None) -> RawImage:
    """Read a Radiance picture (RGBE, run-length coded or flat) as float32; values are linear.

    The exposure note of the header is not applied: a fit does not depend on it, and few programs heed it.
    """
    choose_frame(str(path), 1, frame)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        head = data[:65536]
        size = re.search(rb"\n([+-][XY]) +(\d+) +([+-][XY]) +(\d+)\s*\n", head)
        if b"32-bit_rle_xyze" in head[: size.start() if size else None]:
            raise SignalError(f"{path} is a Radiance picture in the colour space XYZ; convert it with ra_xyze -r")
        if size is None:
            raise SignalError(
                f"{path} is a Radiance picture without a size line, or cut short; copy or download it again"
            )
        if size.group(1) != b"-Y" or size.group(3) != b"+X":
            raise SignalError(
                f"{path} stores its rows in the order {size.group(0).decode().strip()}; only -Y .. +X .. "
                "(top to bottom, left to right) is read: turn it with pflip"
            )
        height, width = int(size.group(2)), int(size.group(4))
        check_size(str(path), height, width, 12)
        codecs = require("imagecodecs", "imagecodecs", f"reading {path} (Radiance HDR)")
        if not getattr(codecs.RGBE, "available", True):
            raise MissingDependency(
                f"reading {path} (Radiance HDR) needs imagecodecs with RGBE; install the wheel "
                "with: pip install imagecodecs"
            )
        pixels = np.asarray(codecs.rgbe_decode(bytes(data)), np.float32)
    return RawImage(pixels.reshape(height, width, 3), False, linear=True, format="HDR")


def read_npy(path: Path, frame: int | None = None) -> RawImage:
    """Map an array ``[height, width]`` or ``[height, width, 1 to 4]``; 2 and 4 channels mean that the last is alpha.

    The array stays on disk (copy-on-write) unless its type has to be converted. Pickled objects are never loaded.
    """
    choose_frame(str(path), 1, frame)
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if dtype.hasobject:
            raise SignalError(
                f"{path} holds Python objects, which are never loaded because they can run code; store "
                "a plain array, for example np.save(path, np.asarray(image, dtype=np.float32))"
            )
        start = file.tell()
    size = dtype.itemsize
    for length in shape:  # plain integers: a hostile shape overflows fixed ones
        size *= length
    stored = path.stat().st_size - start
    if size > stored:
        check_memory(size, f"{path} (shape {list(shape)})")
        raise SignalError(
            f"{path} was cut short: its header promises {size} bytes of pixels and {stored} are there; "
            "copy or write it again"
        )
    array = np.load(path, mmap_mode="c", allow_pickle=False) if size else np.empty(shape, dtype)
    pixels = storable(array, str(path))
    return RawImage(pixels, pixels.shape[2] in (2, 4), format="NPY")
