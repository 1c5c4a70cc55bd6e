"""Reading one picture from a file, exactly: :func:`read_image`.

The format is recognised from the first bytes, never from the name. Each family of formats has its own module; here is
the one place where whatever a reader raises on a damaged file becomes a :class:`SignalError` with its cause attached.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np

from neuralfield import checks
from neuralfield.errors import NeuralFieldError, SignalError, nearest
from neuralfield.signals import read_float, read_png, read_raster, read_tiff
from neuralfield.signals.raw import RawImage

__all__ = ["RawImage", "read_image", "recognise"]

Reader = Callable[[Path, "int | None"], RawImage]

_READERS: dict[str, Reader] = {
    "PNG": read_png.read,
    "JPEG": read_raster.read,
    "WebP": read_raster.read,
    "BMP": read_raster.read,
    "GIF": read_raster.read,
    "TIFF": read_tiff.read,
    "EXR": read_float.read_exr,
    "HDR": read_float.read_hdr,
    "NPY": read_float.read_npy,
}
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\x76\x2f\x31\x01", "EXR"),
    (b"#?RADIANCE", "HDR"),
    (b"#?RGBE", "HDR"),
    (b"\x93NUMPY", "NPY"),
)
# What people do have in their folders but cannot be fitted as it is: (first bytes, where they start, what, the cure).
_FOREIGN: tuple[tuple[bytes, int, str, str], ...] = (
    (b"PK\x03\x04", 0, "a zip archive or .npz file", 'store the one array with np.save("image.npy", array)'),
    (b"\x1f\x8b", 0, "a gzip file", "unpack it first"),
    (b"%PDF", 0, "a PDF document", "export the page as PNG"),
    (b"8BPS", 0, "a Photoshop document", "export it as PNG or TIFF"),
    (b"ftypavif", 4, "an AVIF image", "convert it to PNG"),
    (b"ftyp", 4, "a HEIC image or a video", "convert it, or one frame of it, to PNG"),
    (b"\0\0\0\x0cjP  ", 0, "a JPEG 2000 image", "convert it to PNG or TIFF"),
    (b"\xff\x4f\xff\x51", 0, "a JPEG 2000 image", "convert it to PNG or TIFF"),
    (b"\xff\x0a", 0, "a JPEG XL image", "convert it to PNG"),
    (b"\0\0\0\x0cJXL ", 0, "a JPEG XL image", "convert it to PNG"),
    (b"DICM", 128, "a DICOM file", "convert it to TIFF or .npy"),
    (b"\x89HDF", 0, "an HDF5 file", "store the one array with np.save"),
)


def read_image(path: str | Path, frame: int | None = None) -> RawImage:
    """Read one picture from PNG, JPEG, TIFF, EXR, Radiance HDR, WebP, BMP, GIF or ``.npy``.

    Args:
        path: the file; ``~`` is expanded.
        frame: which picture of a file that holds several (animation, pages), counted from 0. A file with several
            pictures is refused without it. The parts of an EXR file count as pictures.

    Returns:
        The stored pixels, upright (EXIF and TIFF orientation are applied), at least 2 x 2 and finite. Integers keep
        their depth: 16-bit PNG and TIFF lose nothing. Large uncompressed TIFF and ``.npy`` files stay on disk.

    Raises:
        SignalError: the file is missing, not an image, damaged, cut short, too large for this machine, in a colour
            space other than grey or RGB, or holds NaN or infinite pixels. Nothing else is raised for a bad file.
        MissingDependency: the reader of this format is not installed.
    """
    path = Path(path).expanduser()
    if frame is not None:
        frame = checks.integer("signal.frame", frame, 0)
    try:
        _check_file(path)
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise _explain(error, path) from error
    name = recognise(head, path)
    try:
        raw = _READERS[name](path, frame)
    except NeuralFieldError:
        raise
    except MemoryError as error:
        raise SignalError(f"{path} does not fit into memory; cut or scale it with an image tool first") from error
    except PermissionError as error:
        raise _explain(error, path) from error
    except Exception as error:
        raise SignalError(
            f"{path} cannot be read as {name}: it is damaged, cut short or of an unusual kind "
            f"({_one_line(error)}); copy it again, or open it in an image tool and save it as "
            "PNG"
        ) from error
    check_pixels(raw.pixels, str(path))
    return raw


def recognise(head: bytes, path: Path) -> str:
    """The format that the first bytes of a file announce: one of PNG, JPEG, WebP, BMP, GIF, TIFF, EXR, HDR, NPY."""
    if not head:
        raise SignalError(f"{path} is an empty file; copy or download it again")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    known = "PNG, JPEG, TIFF, EXR, HDR, WebP, BMP, GIF or .npy"
    for magic, start, what, cure in _FOREIGN:
        if head[start : start + len(magic)] == magic:
            raise SignalError(f"{path} is {what}, not an image that can be read here ({known}); {cure}")
    start_of_text = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:200].lower()
    if start_of_text.startswith(b"version https://git-lfs"):
        raise SignalError(f"{path} is a Git LFS pointer, not the image itself; fetch it with: git lfs pull")
    if start_of_text.startswith((b"<!doctype html", b"<html")):
        raise SignalError(
            f"{path} is a web page, not an image; the download probably gave an error page: fetch it again"
        )
    if start_of_text.startswith((b"<svg", b"<?xml")):
        raise SignalError(f"{path} is an XML or SVG text, not a pixel image; render it to PNG first")
    if _is_text(head):
        raise SignalError(f"{path} is a text file, not an image; expected {known}")
    raise SignalError(
        f"{path} is not an image that can be read here (it starts with {head[:8].hex(' ')}); expected {known}"
    )


def check_pixels(pixels: np.ndarray, where: str) -> None:
    """Refuse pictures with nothing to fit and those that hold NaN or infinite values.

    Works in blocks of rows, so that a picture that stays on disk is not pulled into memory at once.
    """
    height, width = pixels.shape[:2]
    if height < 2 or width < 2:
        raise SignalError(
            f"{where} has {width} x {height} pixels; there is nothing to fit below 2 x 2: give a larger image"
        )
    if pixels.dtype.kind != "f":
        return
    bad, first = 0, ""
    step = max(1, (1 << 22) // (width * pixels.shape[2]))
    for top in range(0, height, step):
        wrong = ~np.isfinite(pixels[top : top + step])
        count = int(np.count_nonzero(wrong))
        if count and not bad:
            row, column, channel = (int(k) for k in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
            first = f"the first at row {top + row}, column {column}, channel {channel}"
        bad += count
    if bad:
        values = "value is" if bad == 1 else "values are"
        raise SignalError(
            f"{where}: {bad} {values} NaN or infinite, {first}; replace them, "
            "for example with np.nan_to_num, or crop them away"
        )


def _check_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise SignalError(f"{path} does not exist{_beside(path)}") from None
    except ValueError as error:  # a null byte in the name
        raise SignalError(f"{str(path)!r} is not a file name ({error}); give the path of an image") from error
    if stat.S_ISDIR(mode):
        inside = sorted(child.name for child in path.iterdir() if child.is_file())[:3]
        example = f", for example {path / inside[0]}" if inside else ""
        raise SignalError(f"{path} is a folder; give one image file{example}")
    if not stat.S_ISREG(mode):
        raise SignalError(f"{path} is a device or pipe, not a regular file; store the image in a file first")


def _beside(path: Path) -> str:
    """The nearest name in the folder, or the first part of the path that is missing."""
    for folder in path.parents:
        if folder.is_dir():
            if folder != path.parent:
                return f": there is no folder {path.parent} (the path exists up to {folder})"
            break
    try:
        names = [child.name for child in path.parent.iterdir()]
    except OSError:
        return ""
    return nearest(path.name, names) or f"; check the name (relative paths start in {Path.cwd()})"


def _explain(error: OSError, path: Path) -> SignalError:
    if isinstance(error, PermissionError):
        return SignalError(f"no permission to read {path}; change it with: chmod u+r {path}")
    return SignalError(f"{path} cannot be opened: {error.strerror or _one_line(error)}; check the path")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


def _is_text(head: bytes) -> bool:
    if any(byte < 9 or 13 < byte < 32 for byte in head):
        return False
    try:
        head[:-3].decode("utf-8") if len(head) > 64 else head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 8  # a character cut in two at the end of what was read
    return True
