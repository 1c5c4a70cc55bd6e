"""TIFF and BigTIFF through tifffile: every depth of the format, with its colour spaces, planes and orientations.

tifffile hands out the stored samples. What the tags say about them (inverted grey, palettes, YCbCr, alpha, turned
pictures) is applied here, and so is the check that every strip lies inside the file: some decoders fill up silently.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from neuralfield.errors import SignalError
from neuralfield.signals.raw import RawImage, check_size, choose_frame, oriented, require, storable

MAP_FROM = 1 << 24  # bytes: uncompressed pictures of at least this size are mapped rather than read

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_JPEG_COMPRESSIONS = (6, 7, 99, 33007, 34892)  # their decoder already turns YCbCr into RGB
_PLAIN_COMPRESSIONS = (1, 5, 8, 32773, 32946, 34925, 50000)  # none, LZW, deflate, PackBits, LZMA, zstd: lossless


def read(path: Path, frame: int | None = None) -> RawImage:
    """Read one page of a TIFF; see :func:`neuralfield.signals.reading.read_image`. Thumbnails are no pages."""
    tifffile = require("tifffile", "tifffile", f"reading {path} (TIFF)")
    with tifffile.TiffFile(path) as file:
        # Reduced copies (pyramids, thumbnails) and masks are marked as such and are no pictures of their own.
        # Counted first: iterating over a damaged chain of pages that leads back into itself would never end.
        pages = [page for page in (file.pages[k] for k in range(len(file.pages))) if not (page.subfiletype & 0b101)]
        if not pages:
            raise SignalError(f"{path} is a TIFF without a picture; copy or download it again")
        hidden = _hidden_planes(file, pages)
        chosen = choose_frame(str(path), max(len(pages), hidden), frame, "pages")
        if hidden > len(pages):
            raise SignalError(
                f"{path} stores {hidden} pictures behind one header (ImageJ stack), which cannot be "
                "read one by one; save the wanted one as a TIFF of its own"
            )
        page = pages[chosen]
        _check_page(page, path)
        samples = _channels_last(_samples(page, path), page)
        pixels, alpha, premultiplied = _interpret(samples, page, path)
        tag = page.tags.get(274)
    orientation = int(tag.value) if tag is not None else 1
    return RawImage(oriented(pixels, orientation), alpha, premultiplied, format="TIFF")


def _hidden_planes(file: Any, pages: list[Any]) -> int:
    """Pictures that ImageJ stores one after the other behind a single header; 0 when there are none."""
    if len(pages) != 1 or not file.is_imagej:
        return 0
    return int((file.imagej_metadata or {}).get("images", 0))


def _check_page(page: Any, path: Path) -> None:
    if page.imagedepth > 1:
        raise SignalError(f"{path} is a volume of depth {page.imagedepth}; save one slice of it as a TIFF of its own")
    kind = page.dtype
    if kind is None:
        raise SignalError(
            f"{path} stores {page.bitspersample} bits per sample in a way that cannot be read; "
            "convert it to 8 or 16 bits, or to float32"
        )
    if kind.kind not in "buf" or (kind.kind == "u" and kind.itemsize > 4):
        raise SignalError(
            f"{path} holds {kind} samples, which have no fixed range as an image; convert them to uint8, "
            "uint16, uint32 or to float32 (0 to 1) first"
        )
    mapped = page.is_memmappable and page.is_contiguous  # stays on disk, whose end is checked below
    in_memory = 0 if mapped else page.samplesperpixel * kind.itemsize
    check_size(str(path), page.imagelength, page.imagewidth, in_memory)
    length = path.stat().st_size
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    expected = math.prod(page.chunked) if not page.is_contiguous else 1
    missing = sum(1 for offset, count in segments if offset <= 0 or count <= 0)
    if any(offset + count > length for offset, count in segments):
        raise SignalError(f"{path} is a TIFF that was cut short ({length} bytes); copy or download it again")
    if missing or len(segments) < expected:
        raise SignalError(
            f"{path} is an unfinished TIFF: {missing or expected - len(segments)} of its {expected} "
            "strips or tiles were never written; write or download it again"
        )


def _samples(page: Any, path: Path) -> np.ndarray:
    """The stored samples, ``[height, width(, samples)]`` or with the samples first when they are stored as planes."""
    size = math.prod(page.shape) * page.dtype.itemsize
    if not (page.is_memmappable and page.is_contiguous):
        return page.asarray()
    offset = page.dataoffsets[0]
    if offset + size > path.stat().st_size:
        raise SignalError(f"{path} is a TIFF that was cut short; copy or download it again")
    if size < MAP_FROM:
        return page.asarray()
    dtype = np.dtype(page.parent.byteorder + page.dtype.char)
    # Copy-on-write: nothing that is done to the array can reach the file.
    return np.memmap(path, dtype=dtype, mode="c", offset=offset, shape=page.shape)


def _channels_last(samples: np.ndarray, page: Any) -> np.ndarray:
    if samples.ndim == 3 and page.planarconfig == 2 and page.samplesperpixel > 1:
        samples = np.moveaxis(samples, 0, -1)
        return samples if isinstance(samples, np.memmap) else np.ascontiguousarray(samples)
    return samples.reshape(page.imagelength, page.imagewidth, -1)


def _interpret(samples: np.ndarray, page: Any, path: Path) -> tuple[np.ndarray, bool, bool]:
    """Samples to ``(pixels, has_alpha, premultiplied)`` as the photometric interpretation asks."""
    photometric = int(page.photometric)
    if photometric == _PALETTE:
        return _from_palette(samples, page, path), False, False
    if photometric == _YCBCR:
        return _from_ycbcr(samples, page, path), False, False
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
        name = getattr(page.photometric, "name", str(photometric))
        raise SignalError(
            f"{path} is a TIFF in the colour space {name}; only grey, RGB, palette and YCbCr are read: "
            "convert it first, for example with: magick in.tif -colorspace sRGB out.tif"
        )
    pixels = _full_range(storable(samples, str(path)), page, path)
    if photometric == _WHITE_IS_ZERO:
        if pixels.dtype.kind == "f":
            raise SignalError(
                f"{path} stores floats with white as zero, which has no defined range; save it with black as zero"
            )
        pixels = np.iinfo(pixels.dtype).max - pixels
    extra = int(page.extrasamples[-1]) if page.extrasamples else 0
    # 1: colours multiplied by alpha, 2: independent alpha; 0 says nothing (infrared, depth): a channel as any other.
    return pixels, extra in (1, 2), extra == 1


def _full_range(pixels: np.ndarray, page: Any, path: Path) -> np.ndarray:
    """Stretch depths such as 4 or 12 bits, which are stored in a wider type, to the range of that type."""
    bits = page.bitspersample
    if not isinstance(bits, int):
        raise SignalError(f"{path} stores its channels with different depths {tuple(bits)}; convert it to 8 or 16 bits")
    if pixels.dtype.kind == "f" or bits in (1, 8 * pixels.dtype.itemsize):
        return pixels
    top, limit = np.iinfo(pixels.dtype).max, (1 << bits) - 1
    return ((pixels.astype(np.uint64) * top + limit // 2) // limit).astype(pixels.dtype)


def _from_palette(samples: np.ndarray, page: Any, path: Path) -> np.ndarray:
    if page.colormap is None or samples.shape[2] != 1 or samples.dtype.kind != "u":
        raise SignalError(f"{path} is a palette TIFF without a usable palette; convert it to RGB")
    colours = np.asarray(page.colormap, np.uint16).T
    if int(samples.max()) >= len(colours):
        raise SignalError(
            f"{path} is a damaged palette TIFF: its pixels name colour {int(samples.max())} of "
            f"{len(colours)}; convert it to RGB"
        )
    # The table has 16 bits; programs fill it from 8-bit colours times 257, times 256, or (wrongly) as they are.
    for factor in (257, 256):
        if not np.any(colours % factor):
            return (colours // factor).astype(np.uint8)[samples[:, :, 0]]
    return (colours.astype(np.uint8) if colours.max() < 256 else colours)[samples[:, :, 0]]


def _from_ycbcr(samples: np.ndarray, page: Any, path: Path) -> np.ndarray:
    """TIFF 6.0 section 21, for samples that no JPEG decoder has turned into RGB already."""
    if page.compression in _JPEG_COMPRESSIONS:
        return samples
    full = page.subsampling in (None, (1, 1)) and samples.shape[2] == 3 and samples.dtype == np.uint8
    if page.compression not in _PLAIN_COMPRESSIONS or not full:
        raise SignalError(
            f"{path} is a YCbCr TIFF with subsampled or unusual colours; convert it to RGB, for example "
            "with: magick in.tif -colorspace sRGB -compress none out.tif"
        )
    red, green, blue = _rationals(page, 529, (0.299, 0.587, 0.114))
    black_white = _rationals(page, 532, (0.0, 255.0, 128.0, 255.0, 128.0, 255.0))
    rgb = np.empty_like(samples)
    for top in range(0, len(samples), 256):  # blocks, because the arithmetic is in floats
        block = samples[top : top + 256].astype(np.float32)
        luma, cb, cr = (
            (block[:, :, k] - black_white[2 * k])
            * (255.0 if k == 0 else 127.0)
            / (black_white[2 * k + 1] - black_white[2 * k])
            for k in range(3)
        )
        r = luma + (2 - 2 * red) * cr
        b = luma + (2 - 2 * blue) * cb
        g = (luma - blue * b - red * r) / green
        rgb[top : top + 256] = np.clip(np.rint(np.stack([r, g, b], -1)), 0, 255).astype(np.uint8)
    return rgb


def _rationals(page: Any, tag: int, default: tuple[float, ...]) -> tuple[float, ...]:
    found = page.tags.get(tag)
    if found is None:
        return default
    numbers = np.asarray(found.value, float).reshape(-1, 2)
    return tuple(float(n / d) for n, d in numbers)
