"""Reading one volume from a file or a folder, exactly: :func:`read_volume`.

The format is recognised from the first bytes, and by the name only where they say nothing (raw bytes, damaged files).
Whatever a reader raises on a damaged file becomes a :class:`SignalError` here.
"""

from __future__ import annotations

import gzip
import logging
import stat
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from neuralfield import checks
from neuralfield.errors import ConfigError, NeuralFieldError, SignalError, nearest
from neuralfield.signals import read_nifti, read_nrrd, read_volume_array, read_volume_tiff, read_zarr
from neuralfield.signals.raw_volume import CHANNELS, UNPACK_BUDGET, RawVolume, Request, check_volume

__all__ = ["SUFFIXES", "RawVolume", "read_volume", "recognise"]

Reader = Callable[[Path, Request], RawVolume]

_READERS: dict[str, Reader] = {
    "NIfTI": read_nifti.read,
    "NRRD": read_nrrd.read,
    "TIFF": read_volume_tiff.read,
    "NPY": read_volume_array.read_npy,
    "NPZ": read_volume_array.read_npz,
    "raw": read_volume_array.read_raw,
    "Zarr": read_zarr.read,
}
SUFFIXES = {
    ".nii": "NIfTI",
    ".nii.gz": "NIfTI",
    ".hdr": "NIfTI",
    ".img": "NIfTI",
    ".nrrd": "NRRD",
    ".nhdr": "NRRD",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".npy": "NPY",
    ".npz": "NPZ",
    ".raw": "raw",
    ".bin": "raw",
    ".dat": "raw",
    ".zarr": "Zarr",
}
"""By the end of a file's name, its format."""
_KNOWN = "NIfTI (.nii, .nii.gz), NRRD, a TIFF stack, .npy, .npz, .raw with signal.shape, or a Zarr folder"
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"NRRD", "NRRD"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\x93NUMPY", "NPY"),
    (b"PK\x03\x04", "NPZ"),
)
# What people do have in their folders but cannot be read: (first bytes, where they start, what it is, the way out).
_FOREIGN: tuple[tuple[bytes, int, str, str], ...] = (
    (b" BDV", 0, "an OpenVDB file", "no reader of it on PyPI is kept up; with the openvdb module of conda-forge or of "
     "Blender, copy the grid into a dense array (grid.copyToArray) and store that with np.save"),
    (b"DICM", 128, "a DICOM file", "convert the series to NIfTI with dcm2niix"),
    (b"\x89HDF", 0, "an HDF5 file", "store the one array with np.save, for example from h5py.File(path)['name'][:]"),
    (b"ObjectType", 0, "a MetaImage header", "convert it to NRRD, for example with SimpleITK or 3D Slicer"),
    (b"CDF", 0, "a NetCDF or MINC file", "convert it to NIfTI with mnc2nii, or store the array with np.save"),
    (b"# vtk", 0, "a VTK file", "store its point data, reshaped to [z, y, x], with np.save"),
    (b"\x89PNG", 0, "a PNG picture", "fit it with signal=image; for slices in a folder, stack them into a TIFF or .npy"),
    (b"\xff\xd8\xff", 0, "a JPEG picture", "fit it with signal=image; stack slices into a TIFF or .npy"),
    (b"version https://git-lfs", 0, "a Git LFS pointer", "fetch the file itself with: git lfs pull"),
)  # fmt: skip


def read_volume(
    path: str | Path,
    *,
    channels: str = "auto",
    frame: int | None = None,
    key: str | None = None,
    shape: Any = None,
    dtype: str | None = None,
    unpack_budget: int = UNPACK_BUDGET,
) -> RawVolume:
    """Read one volume from NIfTI, NRRD, a TIFF stack, ``.npy``, ``.npz``, raw bytes or Zarr.

    Uncompressed files stay on disk and are mapped. Compressed ones are unpacked once: into memory up to
    ``unpack_budget`` bytes, otherwise into a temporary file (in ``$TMPDIR``) that vanishes with the array.

    Args:
        path: the file or (Zarr) folder; ``~`` is expanded.
        channels: of an array with four axes. "first", "last": where the channels are; "none": the first axis counts
            frames. "auto": what the format says (NIfTI, NRRD, OME); else the last axis if it has at most 4 entries, else
            the first if it has. At most 4 are taken together without being asked for, and at most 64 when asked.
        frame: picks one of several channels, or one volume of a series of volumes, counted from 0.
        key: which array of an ``.npz`` or of a Zarr group.
        shape, dtype: of raw bytes, ``[z, y, x]`` or ``[z, y, x, channels]`` (the last is the fastest) and a NumPy type.
        unpack_budget: bytes.

    Returns:
        The stored voxels ``[z, y, x, channels]``, at least 2 along each axis, not yet looked at for NaN.

    Raises:
        SignalError: the file is missing, not a volume, damaged, cut short, or too large for this machine. ConfigError: an
            option has a wrong value. MissingDependency: the reader of this format is not installed.
    """
    checks.choice("signal.channels", channels, CHANNELS)
    request = Request(
        channels,
        None if frame is None else checks.integer("signal.frame", frame, 0),
        key,
        _lengths(shape),
        dtype,
        checks.integer("unpack_budget", unpack_budget, 0),
    )
    path = Path(path).expanduser()
    try:
        name = recognise(path, request)
        with _quiet():
            raw = _READERS[name](path, request)
    except NeuralFieldError:
        raise
    except MemoryError as error:
        raise SignalError(f"{path} does not fit into memory; crop it first, or store it uncompressed") from error
    except PermissionError as error:
        raise SignalError(f"no permission to read {path}; change it with: chmod u+r {path}") from error
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise SignalError(
            f"{path} cannot be read as a volume: it is damaged, cut short or of an unusual kind ({text[:160]}); copy it "
            "again, or open it in a viewer and save it as .nii"
        ) from error
    return RawVolume(
        check_volume(raw.array, str(path)),
        raw.spacing,
        raw.affine,
        raw.header,
        raw.slope,
        raw.intercept,
        raw.unit,
        raw.format,
    )


def recognise(path: Path, request: Request | None = None) -> str:
    """The format of a file or folder: one of the values of :data:`SUFFIXES`; SignalError where it is none of them."""
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        if read_zarr.is_zarr(path):
            return "Zarr"
        inside = sorted(child.name for child in path.iterdir())[:3]
        example = f" (it holds {', '.join(inside)})" if inside else " (it is empty)"
        raise SignalError(f"{path} is a folder and not a Zarr array{example}; give one file, or stack its slices first")
    if not stat.S_ISREG(mode):
        raise SignalError(f"{path} is a device or pipe, not a regular file; store the volume in a file first")
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise SignalError(f"{path} is an empty file; copy or download it again")
    suffix = _suffix(path)
    if request is not None and request.shape is not None and SUFFIXES.get(suffix, "raw") == "raw":
        return "raw"  # plain bytes may begin with anything
    return _by_content(head, path, suffix) or _by_name(path, suffix)


def _by_content(head: bytes, path: Path, suffix: str) -> str | None:
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if SUFFIXES.get(suffix) == "raw":
        return "raw"
    for magic, start, what, cure in _FOREIGN:
        if head[start : start + len(magic)] == magic:
            raise SignalError(f"{path} is {what}, which cannot be read here ({_KNOWN} can); {cure}")
    if head.startswith(b"\x1f\x8b"):
        if _is_nifti(_unzipped(path)) or suffix == ".nii.gz":
            return "NIfTI"
        raise SignalError(f"{path} is a gzip file without a NIfTI inside; unpack it first with: gunzip {path.name}")
    return "NIfTI" if _is_nifti(head) else None


def _by_name(path: Path, suffix: str) -> str:
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    if suffix in (".vdb", ".nvdb"):
        raise SignalError(f"{path} is named like an OpenVDB file but does not begin like one; write it again")
    raise SignalError(
        f"{path} is not a volume that can be read here{nearest(suffix, SUFFIXES)}; expected {_KNOWN}. If it is plain "
        "bytes, give signal.shape=[z,y,x] and signal.dtype"
    )


def _is_nifti(head: bytes) -> bool:
    """NIfTI-1 and -2 say so at byte 344 and 4; Analyze only gives the length of its header, 348."""
    return (
        head[344:348] in (b"n+1\0", b"ni1\0")
        or head[4:7] in (b"n+2", b"ni2")
        or head[:4] in (b"\x5c\1\0\0", b"\0\0\1\x5c")
    )


def _unzipped(path: Path) -> bytes:
    try:
        with gzip.open(path, "rb") as file:
            return file.read(512)
    except (OSError, EOFError, zlib.error):
        return b""


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise SignalError(f"{path} does not exist{_beside(path)}") from None
    except ValueError as error:  # a null byte in the name
        raise SignalError(f"{str(path)!r} is not a file name ({error}); give the path of a volume") from error


def _beside(path: Path) -> str:
    """The nearest name in the folder, or that the folder is missing."""
    if not path.parent.is_dir():
        return f": there is no folder {path.parent}"
    names = [child.name for child in path.parent.iterdir()]
    return nearest(path.name, names) or f"; check the name (relative paths start in {Path.cwd()})"


def _lengths(shape: Any) -> list[int] | None:
    if shape is None:
        return None
    if (
        isinstance(shape, str)
        or not hasattr(shape, "__iter__")
        or not all(isinstance(n, (int, np.integer)) for n in shape)
    ):
        raise ConfigError(f"signal.shape must be [z, y, x] or [z, y, x, channels] in voxels, got {shape!r}")
    return [int(n) for n in shape]


@contextmanager
def _quiet() -> Iterator[None]:
    """Readers warn and log about damaged files; what matters of that is in the error that is raised."""
    loggers = [logging.getLogger(name) for name in ("tifffile", "nibabel.global")]
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
