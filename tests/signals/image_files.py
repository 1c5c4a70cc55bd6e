"""Small image files for the tests, built by hand where no writer makes them."""

import io
import struct
import zlib

import numpy as np
import OpenEXR
import pytest
import tifffile

from neuralfield.errors import SignalError

RNG = np.random.default_rng(20)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows, width, depth, colour, before=b"", height=None):
    """A PNG from packed rows (bytes each), with chunks ``before`` the pixels."""
    header = struct.pack(">IIBBBBB", width, len(rows) if height is None else height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def png_of(pixels, before=b""):
    """A PNG of ``[H, W, C]`` uint8 or uint16 pixels."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    big = pixels.astype(pixels.dtype.newbyteorder(">"))
    return png([row.tobytes() for row in big], pixels.shape[1], 8 * pixels.dtype.itemsize, colour, before)


def noise(shape, dtype):
    if np.dtype(dtype).kind == "f":
        return RNG.random(shape).astype(dtype)
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def orientation_note(value):
    """EXIF that holds nothing but the orientation."""
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, value, 0, 0)


def turn_back(upright, orientation):
    """The stored pixels whose upright view under ``orientation`` is ``upright``, by the table of the EXIF standard.

    Written through the positions of row 0 and column 0, independently of the code under test.
    """
    height, width = upright.shape[:2]
    stored_shape = (height, width) if orientation <= 4 else (width, height)
    stored = np.empty((*stored_shape, *upright.shape[2:]), upright.dtype)
    for r in range(stored_shape[0]):
        for c in range(stored_shape[1]):
            y, x = {
                1: (r, c),
                2: (r, width - 1 - c),
                3: (height - 1 - r, width - 1 - c),
                4: (height - 1 - r, c),
                5: (c, r),
                6: (c, width - 1 - r),
                7: (height - 1 - c, width - 1 - r),
                8: (height - 1 - c, r),
            }[orientation]
            stored[r, c] = upright[y, x]
    return stored


def saved(image, kind, **options):
    """The bytes of a Pillow image in the format ``kind``."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def exr(tmp_path, channels, header=None, name="made.exr"):
    path = tmp_path / name
    header = {"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION, **(header or {})}
    OpenEXR.File(header, channels).write(str(path))
    return path


def fails(text, function, *arguments, **options):
    """The call raises a SignalError of one line that matches ``text``."""
    with pytest.raises(SignalError, match=text) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
