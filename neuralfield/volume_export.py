"""Writing volumes, slab by slab, with the header of the file that was fitted: :func:`write_volume`."""

from __future__ import annotations

import gzip
import io
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float

from neuralfield.errors import OutputError, nearest
from neuralfield.files import atomic
from neuralfield.signals.raw import require
from neuralfield.signals.raw_volume import VolumeHeader
from neuralfield.signals.read_nrrd import space_signs

Slab = Float[np.ndarray, "k y x channels"]
Affine = Float[np.ndarray, "4 4"]
SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".npy", ".tif", ".tiff")
_UNITS = {"mm": "mm", "um": "micron", "m": "meter"}


def write_volume(
    path: str | Path,
    blocks: Iterable[Slab],
    shape: Sequence[int],
    *,
    like: VolumeHeader | None = None,
    spacing: Sequence[float] | None = None,
    affine: Affine | None = None,
    unit: str = "",
    on_progress: Callable[[float], None] | None = None,
) -> None:
    """Write float32 voxels; whole or not at all, with one slab in memory at a time.

    Args:
        path: ``.nii``, ``.nii.gz``, ``.nrrd``, ``.npy`` or ``.tiff``.
        blocks: slabs ``[k, y, x, channels]`` in the order of k, in the source's units, that together are the volume.
        shape: z, y, x, channels.
        like: the header of the source (``signal.header``); its units, description and codes are kept where the format
            is the same.
        spacing: x, y, z; when None, that of ``affine``, else 1.
        affine: from voxel indices (i, j, k, 1) to the world of NIfTI (``signal.affine``); kept to the last bit that the
            format holds (NIfTI: single precision).
        unit: of the spacing, where ``like`` does not say.
        on_progress: called with a fraction, 0 to 1.

    Raises:
        OutputError: the file cannot be written, the suffix is unknown, or the blocks are not of the shape.
    """
    path = Path(path)
    depth, height, width, channels = (int(n) for n in shape)
    size = (depth, height, width, channels)
    suffix = next((s for s in sorted(SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise OutputError(
            f"cannot write {path}: a volume is written as {', '.join(SUFFIXES)}{nearest(path.suffix, SUFFIXES)}"
        )
    if affine is None and spacing is not None:
        affine = np.diag([*spacing, 1.0])
    if spacing is None:
        spacing = [1.0] * 3 if affine is None else np.linalg.norm(affine[:3, :3], axis=0).tolist()
    slabs = _checked(blocks, size, path, on_progress)
    with atomic(path) as temporary:
        if suffix.startswith(".nii"):
            _write_nifti(temporary, slabs, size, like, affine, spacing, unit, suffix == ".nii.gz")
        elif suffix in (".tif", ".tiff"):
            _write_tiff(temporary, slabs, size, spacing, unit)
        else:
            head = _nrrd_header(size, like, affine, spacing, unit) if suffix == ".nrrd" else _npy_header(size)
            with temporary.open("wb") as file:
                file.write(head)
                for slab in slabs:
                    file.write(slab.astype("<f4", copy=False).data)


def _checked(
    blocks: Iterable[Slab], shape: tuple[int, int, int, int], path: Path, on_progress: Callable[[float], None] | None
) -> Iterator[Slab]:
    done = 0
    for block in blocks:
        slab = np.ascontiguousarray(block, np.float32)
        if slab.ndim != 4 or slab.shape[1:] != shape[1:] or done + len(slab) > shape[0]:
            raise OutputError(
                f"cannot write {path}: a block of shape {list(slab.shape)} after {done} slices does not belong to a "
                f"volume of shape {list(shape)}"
            )
        yield slab
        done += len(slab)
        if on_progress is not None:
            on_progress(done / shape[0])
    if done != shape[0]:
        raise OutputError(f"cannot write {path}: {done} of {shape[0]} slices were given")


def _write_nifti(
    path: Path,
    slabs: Iterator[Slab],
    shape: tuple[int, int, int, int],
    like: VolumeHeader | None,
    affine: Affine | None,
    spacing: Sequence[float],
    unit: str,
    zipped: bool,
) -> None:
    header = _nifti_header(shape, like, affine, spacing, unit)
    head = io.BytesIO()
    header.write_to(head)
    prefix = head.getvalue().ljust(int(header["vox_offset"]), b"\0")
    dtype = np.dtype(np.float32).newbyteorder(header.endianness)
    if not zipped:
        with path.open("wb") as file:
            _write_planar(file, prefix, slabs, shape, dtype)
    elif shape[3] == 1:
        with path.open("wb") as file, _gzipped(file) as stream:
            stream.write(prefix)
            for slab in slabs:
                stream.write(slab.astype(dtype, copy=False).data)
    else:  # the channels lie one after the other in the file, so that they are put in place before they are zipped
        with tempfile.TemporaryFile(dir=path.parent) as plain:
            _write_planar(plain, prefix, slabs, shape, dtype)
            plain.seek(0)
            with path.open("wb") as file, _gzipped(file) as stream:
                shutil.copyfileobj(plain, stream, 1 << 22)


def _gzipped(file: BinaryIO) -> gzip.GzipFile:
    # Without name and time, so that equal volumes make equal files; floats hardly shrink more at higher levels.
    return gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=4, mtime=0)


def _write_planar(file: Any, prefix: bytes, slabs: Iterator[Slab], shape: tuple[int, ...], dtype: np.dtype) -> None:
    file.write(prefix)
    depth, height, width, channels = shape
    plane, done = height * width * dtype.itemsize, 0
    for slab in slabs:
        for channel in range(channels):
            file.seek(len(prefix) + (channel * depth + done) * plane)
            file.write(np.ascontiguousarray(slab[..., channel], dtype).data)
        done += len(slab)


def _nifti_header(
    shape: tuple[int, int, int, int],
    like: VolumeHeader | None,
    affine: Affine | None,
    spacing: Sequence[float],
    unit: str,
) -> Any:
    nibabel = require("nibabel", "nibabel", "writing NIfTI")
    depth, height, width, channels = shape
    source = like.fields if like is not None and like.format == "nifti" else None
    second = isinstance(source, nibabel.Nifti2Header) or max(shape) > 32767
    kind = nibabel.Nifti2Header if second else nibabel.Nifti1Header
    if source is None:
        header = kind()
    elif type(source) in (nibabel.Nifti1Header, nibabel.Nifti2Header) and type(source) is kind:
        header = source.copy()
    elif isinstance(source, nibabel.Nifti1Header) and not second:  # a pair of files becomes one
        header = kind(source.binaryblock, source.endianness, check=False)
        header["magic"] = b"n+1"
    else:
        header = kind.from_header(source, check=False)
    # 5 axes where the source stored vectors, [x, y, z, 1, channels]
    extra = () if channels == 1 else (channels,) if like is None or like.axes != 5 else (1, channels)
    zooms = [float(zoom) for zoom in header.get_zooms()]
    header.set_data_dtype(np.float32)
    header.set_data_shape((width, height, depth, *extra))
    header.set_slope_inter(1.0, 0.0)
    header["vox_offset"] = 0  # the writer computes it
    header.set_zooms((*spacing, *(zooms[3:] + [1.0] * len(extra))[: len(extra)]))
    if source is None and unit in _UNITS:
        header.set_xyzt_units(_UNITS[unit])
    if affine is not None and not np.array_equal(header.get_best_affine(), affine):
        codes = int(header["sform_code"]), int(header["qform_code"])
        header.set_sform(affine, codes[0] or codes[1] or 2)
        if codes[1]:
            header.set_qform(affine, codes[1], strip_shears=True)
    return header


def _npy_header(shape: tuple[int, int, int, int]) -> bytes:
    out = io.BytesIO()
    stored = shape if shape[3] > 1 else shape[:3]
    np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": stored})
    return out.getvalue()


def _nrrd_header(
    shape: tuple[int, int, int, int],
    like: VolumeHeader | None,
    affine: Affine | None,
    spacing: Sequence[float],
    unit: str,
) -> bytes:
    depth, height, width, channels = shape
    several = channels > 1
    fields = dict(like.fields) if like is not None and like.format == "nrrd" else {"space": "right-anterior-superior"}
    lines = ["NRRD0005", "type: float", f"dimension: {4 if several else 3}"]
    signs = None
    if affine is not None:
        space = str(fields.get("space", ""))
        signs = space_signs(space)
        lines.append(f"space: {space}" if space else "space dimension: 3")
    lines.append(f"sizes: {f'{channels} ' if several else ''}{width} {height} {depth}")
    first = "none " if several else ""
    if affine is not None:
        world = affine if signs is None else np.diag([*signs, 1.0]) @ affine
        lines.append(f"space directions: {first}" + " ".join(_vector(world[:3, axis]) for axis in range(3)))
        lines.append(f"space origin: {_vector(world[:3, 3])}")
        units = list(fields.get("space units", [unit] * 3 if unit else []))
        if len(units) == 3:
            lines.append("space units: " + " ".join('"' + str(u).strip('"') + '"' for u in units))
    else:
        lines.append(f"spacings: {'nan ' if several else ''}" + " ".join(repr(float(s)) for s in spacing))
    lines.append(f"kinds: {'vector ' if several else ''}domain domain domain")
    if "content" in fields:
        lines.append(f"content: {fields['content']}")
    lines += ["encoding: raw", "endian: little"]
    return ("\n".join(lines) + "\n\n").encode("ascii", "replace")


def _vector(numbers: np.ndarray) -> str:
    return "(" + ",".join(repr(float(number)) for number in numbers) + ")"


def _write_tiff(
    path: Path, slabs: Iterator[Slab], shape: tuple[int, int, int, int], spacing: Sequence[float], unit: str
) -> None:
    tifffile = require("tifffile", "tifffile", "writing TIFF")
    depth, height, width, channels = shape
    small = 4 * depth * height * width * channels < 1 << 31
    pages = (page for slab in slabs for plane in slab for page in np.moveaxis(plane, -1, 0))
    stored = (depth, channels, height, width) if channels > 1 else (depth, height, width)
    meta: dict[str, Any] = {
        "axes": "ZCYX" if channels > 1 else "ZYX",
        "spacing": float(spacing[2]),
        "unit": unit or "pixel",
    }
    with tifffile.TiffWriter(path, imagej=small, bigtiff=not small) as file:
        file.write(
            (np.ascontiguousarray(page) for page in pages),
            shape=stored,
            dtype=np.float32,
            photometric="minisblack",
            metadata=meta,
            resolution=(1 / spacing[0], 1 / spacing[1]),
        )
