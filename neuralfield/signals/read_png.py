"""PNG: every bit depth exactly, which the usual readers do not give.

Pillow (and imageio, which reads through it) silently cuts 16-bit RGB, RGBA and grey-alpha to 8 bits. libpng, reached
through imagecodecs, decodes every kind straight into one array; Pillow serves only where it is exact as well.
"""

from __future__ import annotations

import importlib
import struct
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from neuralfield.errors import SignalError
from neuralfield.signals import read_raster
from neuralfield.signals.raw import RawImage, check_size, choose_frame, oriented, require

_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type; a palette counts as the RGB that it becomes


@dataclass
class _Header:
    width: int
    height: int
    depth: int
    colour: int
    transparent: bool = False
    frames: int = 1
    exif: bytes = b""

    @property
    def channels(self) -> int:
        return _CHANNELS[self.colour] + (1 if self.transparent else 0)

    @property
    def has_alpha(self) -> bool:
        return self.transparent or self.colour in (4, 6)


def read(path: Path, frame: int | None = None) -> RawImage:
    """Read a PNG: 1 to 16 bits, grey, grey-alpha, RGB, RGBA or palette, with tRNS transparency and eXIf orientation."""
    data = np.memmap(path, np.uint8, mode="r")  # mapped, so that a large picture is not in memory twice
    header = _walk(data, path)
    chosen = choose_frame(str(path), header.frames, frame, "animation frames")
    check_size(str(path), header.height, header.width, header.channels * (2 if header.depth == 16 else 1))
    if header.frames > 1:
        if header.depth == 16:
            raise SignalError(
                f"{path} is an animated PNG of 16 bits, whose frames cannot be read exactly; "
                "export the wanted frame as a PNG of its own"
            )
        return read_raster.read(path, chosen)
    codecs = _imagecodecs()
    if codecs is None and not _pillow_is_exact(header):
        codecs = require("imagecodecs", "imagecodecs", f"reading {path} (PNG with 16 bits per channel)")
    if codecs is None:
        return read_raster.read(path, chosen)
    pixels = np.asarray(codecs.png_decode(data)).reshape(header.height, header.width, -1)
    return RawImage(oriented(pixels, _orientation(header.exif)), header.has_alpha, format="PNG")


def _walk(data: np.ndarray, path: Path) -> _Header:
    """Read the header and step over the chunks to the end, so that a file that was cut anywhere is noticed."""
    cut = f"{path} is a PNG that was cut short ({len(data)} bytes); copy or download it again"
    header: _Header | None = None
    position = 8
    while True:
        if position + 12 > len(data):
            raise SignalError(cut)
        length, kind = struct.unpack(">I4s", data[position : position + 8].tobytes())
        body = position + 8
        position = body + length + 4
        if position > len(data):
            raise SignalError(cut)
        if kind == b"IHDR" and header is None and length == 13:
            header = _Header(*struct.unpack(">IIBB", data[body : body + 10].tobytes()))
            if header.colour not in _CHANNELS:
                raise SignalError(f"{path} is a damaged PNG (colour type {header.colour}); copy or download it again")
        elif header is None:
            raise SignalError(f"{path} is a damaged PNG (it does not start with a header); copy or download it again")
        elif kind == b"tRNS":
            header.transparent = True
        elif kind == b"acTL" and length >= 4:
            header.frames = max(1, int.from_bytes(data[body : body + 4].tobytes(), "big"))
        elif kind == b"eXIf":
            header.exif = data[body : body + length].tobytes()
        elif kind == b"IEND":
            return header


def _pillow_is_exact(header: _Header) -> bool:
    return header.depth <= 8 or (header.colour == 0 and not header.transparent)


def _imagecodecs() -> ModuleType | None:
    try:
        return importlib.import_module("imagecodecs")
    except ImportError:
        return None


def _orientation(exif: bytes) -> int:
    if not exif:
        return 1
    tags = Image.Exif()
    try:
        tags.load(exif)
        return int(tags.get(0x0112, 1))
    except Exception:  # unreadable notes of a camera do not make the pixels unreadable
        return 1
