"""JPEG, WebP, BMP, GIF (and what libpng is not needed for) through Pillow, which imageio uses for them too.

Pillow itself rather than imageio, because the mode of the stored pixels (palette, CMYK, transparency in a side note)
has to be seen before anything converts it.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from neuralfield.errors import SignalError
from neuralfield.signals.raw import RawImage, check_size, choose_frame, oriented

_FORMATS = ["PNG", "JPEG", "WEBP", "BMP", "GIF"]
_NAMES = {"WEBP": "WebP", "MPO": "JPEG"}
# Pillow's mode -> the mode to read, without and with a transparency note beside the pixels.
_MODES = {
    "1": ("L", "LA"),
    "L": ("L", "LA"),
    "P": ("RGB", "RGBA"),
    "RGB": ("RGB", "RGBA"),
    "LA": ("LA", "LA"),
    "La": ("LA", "LA"),
    "PA": ("RGBA", "RGBA"),
    "RGBA": ("RGBA", "RGBA"),
    "RGBa": ("RGBA", "RGBA"),
    "RGBX": ("RGB", "RGB"),
    "YCbCr": ("RGB", "RGB"),
    "I;16": ("I;16", "I;16"),
    "I;16B": ("I;16B", "I;16B"),
}
_bomb_limit = threading.Lock()


def read(path: Path, frame: int | None = None) -> RawImage:
    """Read a JPEG, WebP, BMP, GIF or 8-bit PNG file; see :func:`neuralfield.signals.reading.read_image`."""
    with _no_bomb_limit(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path, formats=_FORMATS) as image:
            kind = _NAMES.get(str(image.format), str(image.format))
            # Pillow keeps up to 4 bytes for each pixel beside the array that is filled from it.
            check_size(str(path), image.height, image.width, 8)
            # The further pictures of a JPEG (MPO) are previews and depth maps of cameras, not an animation.
            count = 1 if kind == "JPEG" else int(getattr(image, "n_frames", 1))
            chosen = choose_frame(str(path), count, frame, "animation frames")
            if chosen:
                image.seek(chosen)
            image.load()  # raises for a file that was cut short, and may add the transparency note
            if image.mode not in _MODES:
                raise SignalError(
                    f"{path} is a {kind} in the colour space {image.mode}; only grey and RGB are read: "
                    "convert it first, for example with: magick in.jpg -colorspace sRGB out.png"
                )
            mode = _MODES[image.mode]["transparency" in image.info]
            orientation = _orientation(image)
            pixels = _to_array(image if image.mode == mode else image.convert(mode))
    return RawImage(oriented(pixels, orientation), mode in ("LA", "RGBA"), format=kind)


def _to_array(image: Image.Image) -> np.ndarray:
    """Pixels as ``[height, width, channels]``, copied in strips: np.asarray would hold the picture three times."""
    channels = len(image.getbands())
    dtype = np.uint16 if image.mode.startswith("I;16") else np.uint8
    pixels = np.empty((image.height, image.width, channels), dtype)
    step = max(1, (1 << 24) // image.width)
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        strip = np.asarray(image.crop((0, top, image.width, bottom)))
        pixels[top:bottom] = strip.reshape(bottom - top, image.width, channels)
    return pixels


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # unreadable notes of a camera do not make the pixels unreadable
        return 1


@contextmanager
def _no_bomb_limit() -> Iterator[None]:
    """Lift Pillow's limit of 179 megapixels: sizes are compared with the memory of the machine instead."""
    with _bomb_limit:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
